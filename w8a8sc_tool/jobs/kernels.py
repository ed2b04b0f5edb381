"""`compile`: the codec's kernels, compiled before they are needed."""

from __future__ import annotations

from pathlib import Path

from ..codec import ensure_compiled
from ..codec.kernel_cache import CACHE_VARIABLE, cache_folder
from ..errors import MissingError


def compile_kernels() -> Path:
    """Compile the kernels unless that is done; returns the folder they are kept in.

    Raises MissingError where no such folder can be written: every process compiles its own then.
    """
    folder = cache_folder()
    if folder is None:
        raise MissingError("no folder for compiled kernels can be written", remedy=f"set {CACHE_VARIABLE} to one")
    ensure_compiled()
    return folder
