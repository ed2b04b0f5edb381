"""`compile`: the codec's kernels, compiled before they are needed."""

from __future__ import annotations

from pathlib import Path

from ..codec import ensure_compiled
from ..codec.kernel_cache import CACHE_VARIABLE, cache_folder, kept_in
from ..errors import MissingError


def compile_kernels() -> Path:
    """Compile the kernels unless that is done; returns the folder they are kept in.

    Raises MissingError where no such folder can be written: every process compiles its own then.
    """
    remedy = f"set {CACHE_VARIABLE} to a folder of your own, which nobody else may write to"
    intended = cache_folder()
    if intended is None:
        raise MissingError("no folder for compiled kernels can be written", remedy=remedy)
    ensure_compiled()
    folder = kept_in()
    if folder is None:
        raise MissingError("compiled kernels cannot be written to this folder", str(intended), remedy)
    return folder
