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
    "verify": "checking.verify",
    "compare": "checking.compare",
    "reshard": "jobs.reshard",
    "to_checkpoint": "jobs.reshard",
    "fit": "jobs.serving",
    "generate": "jobs.generate",
    "inspect": "jobs.inspect",
    "synthesize": "synthesis.synthesize",
    "encode_matrix": "codec",
    "decode_matrix": "codec",
    "W8A8SCError": "errors",
    "InputError": "errors",
    "UsageError": "errors",
    "WorkError": "errors",
    "MissingError": "errors",
}

if TYPE_CHECKING:
    from .checking.compare import compare as compare
    from .checking.verify import verify as verify
    from .codec import decode_matrix as decode_matrix
    from .codec import encode_matrix as encode_matrix
    from .errors import InputError as InputError
    from .errors import MissingError as MissingError
    from .errors import UsageError as UsageError
    from .errors import W8A8SCError as W8A8SCError
    from .errors import WorkError as WorkError
    from .jobs.compress import compress as compress
    from .jobs.compress import plan as plan
    from .jobs.generate import generate as generate
    from .jobs.inspect import inspect as inspect
    from .jobs.reshard import reshard as reshard
    from .jobs.reshard import to_checkpoint as to_checkpoint
    from .jobs.serving import fit as fit
    from .synthesis.synthesize import synthesize as synthesize

__all__ = ["VERSION", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
