"""From a directory to a service: the vLLM command, what fits on the chips, and whether the machine is ready."""

from .command import Command, Service, build, container
from .memory import Estimate, estimate, parse_size

__all__ = ["Command", "Estimate", "Service", "build", "container", "estimate", "parse_size"]
