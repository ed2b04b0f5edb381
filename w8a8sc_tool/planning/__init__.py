"""What is to be made: a record for every tensor, with its fallback decision."""

from .options import Options
from .plan import Fallback, Plan, PlannedModule, make_plan
from .preset import Preset

__all__ = ["Fallback", "Options", "Plan", "PlannedModule", "Preset", "make_plan"]
