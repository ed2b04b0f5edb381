"""What is to be made, as data: a record for every tensor, with its fallback decision, before any work.

    options     what may change the output's bytes
    preset      what is known of a model beforehand; the shipped ones are in configs/presets
    plan        modules, sizes, fallbacks, warnings, and everything that stands in the way
    side_files  the small files of a directory

Plans are printed by a dry run, travel to workers and are stored in manifests. Nothing is read here but headers,
scalars and small files, and what vLLM would lose if it is not zero or not equal: biases, and a second table beside tied
embeddings.
"""

from .options import Options
from .plan import FALLBACK_REASONS, Fallback, Plan, PlannedModule, make_plan
from .preset import Preset

__all__ = ["FALLBACK_REASONS", "Fallback", "Options", "Plan", "PlannedModule", "Preset", "make_plan"]
