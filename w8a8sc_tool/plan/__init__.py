"""What is to be made: a record for every tensor, with its fallback decision."""

from .plan import Fallback, Options, Plan, PlannedModule, make_plan

__all__ = ["Fallback", "Options", "Plan", "PlannedModule", "make_plan"]
