"""w8a8sc: W8A8S checkpoints to W8A8SC sharded_state directories for Ascend 310P."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import VERSION

__version__ = VERSION

# Everything is imported on first use: `import w8a8sc_tool` loads neither numpy nor numba.
_PUBLIC = {
    "compress": "jobs.compress",
    "plan": "jobs.compress",
    "run_batch": "jobs.batch",
    "reshard": "jobs.reshard",
    "to_checkpoint": "jobs.reshard",
    "card": "jobs.card",
    "synthesize": "synthesis.synthesize",
    "locate": "hub.locate",
    "inspect": "jobs.inspect",
    "report": "reporting.report",
    "verify": "checking.verify",
    "verify_tree": "checking.tree",
    "compare": "checking.compare",
    "fit": "jobs.serving",
    "examine": "jobs.doctor",
    "prepare_serving": "jobs.serving",
    "start_serving": "jobs.serving",
    "generate": "jobs.generate",
    "install_executor": "backends.msmodelslim.installed",
    "uninstall_executor": "backends.msmodelslim.installed",
    "compile_kernels": "jobs.kernels",
    "encode_matrix": "codec",
    "decode_matrix": "codec",
    "Compressed": "conversion.convert",
    "Plan": "planning.plan",
    "Outcome": "jobs.batch",
    "Card": "jobs.card",
    "Inspection": "jobs.inspect",
    "ReportPage": "reporting.report",
    "Report": "checking.verify",
    "TreeReport": "checking.tree",
    "Finding": "checking.findings",
    "Comparison": "checking.compare",
    "Estimate": "serving.memory",
    "Row": "serving.environment",
    "Prepared": "jobs.serving",
    "Command": "serving.command",
    "Generated": "jobs.generate",
    "EncodedMatrix": "codec",
    "Manifest": "sharded_state.manifest",
    "Progress": "workers.progress",
    "W8A8SCError": "errors",
    "InputError": "errors",
    "UsageError": "errors",
    "WorkError": "errors",
    "MissingError": "errors",
    "Problem": "errors",
}

if TYPE_CHECKING:
    from .backends.msmodelslim.installed import install_executor as install_executor
    from .backends.msmodelslim.installed import uninstall_executor as uninstall_executor
    from .checking.compare import Comparison as Comparison
    from .checking.compare import compare as compare
    from .checking.findings import Finding as Finding
    from .checking.tree import TreeReport as TreeReport
    from .checking.tree import verify_tree as verify_tree
    from .checking.verify import Report as Report
    from .checking.verify import verify as verify
    from .codec import EncodedMatrix as EncodedMatrix
    from .codec import decode_matrix as decode_matrix
    from .codec import encode_matrix as encode_matrix
    from .conversion.convert import Compressed as Compressed
    from .errors import InputError as InputError
    from .errors import MissingError as MissingError
    from .errors import Problem as Problem
    from .errors import UsageError as UsageError
    from .errors import W8A8SCError as W8A8SCError
    from .errors import WorkError as WorkError
    from .hub.locate import locate as locate
    from .jobs.batch import Outcome as Outcome
    from .jobs.batch import run_batch as run_batch
    from .jobs.card import Card as Card
    from .jobs.card import card as card
    from .jobs.compress import compress as compress
    from .jobs.compress import plan as plan
    from .jobs.doctor import examine as examine
    from .jobs.generate import Generated as Generated
    from .jobs.generate import generate as generate
    from .jobs.inspect import Inspection as Inspection
    from .jobs.inspect import inspect as inspect
    from .jobs.kernels import compile_kernels as compile_kernels
    from .jobs.reshard import reshard as reshard
    from .jobs.reshard import to_checkpoint as to_checkpoint
    from .jobs.serving import Prepared as Prepared
    from .jobs.serving import fit as fit
    from .jobs.serving import prepare_serving as prepare_serving
    from .jobs.serving import start_serving as start_serving
    from .planning.plan import Plan as Plan
    from .reporting.report import ReportPage as ReportPage
    from .reporting.report import report as report
    from .serving.command import Command as Command
    from .serving.environment import Row as Row
    from .serving.memory import Estimate as Estimate
    from .sharded_state.manifest import Manifest as Manifest
    from .synthesis.synthesize import synthesize as synthesize
    from .workers.progress import Progress as Progress

__all__ = ["VERSION", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
