"""Compiling the kernels: once per installed version, kept on disk, and in memory where nothing can be written."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numba.core.config

from . import cache

F = TypeVar("F", bound=Callable[..., Any])

# numba's own annotations differ between the versions admitted here.
_njit: Any = numba.njit
_config: Any = numba.core.config


def _announce() -> None:
    """One line for whoever wonders why the first start takes long; nobody may be there to read it."""
    if _FOLDER is None:
        line = "compiling kernels (no folder to keep them can be written) ..."
    elif not cache.is_complete(_FOLDER):
        line = f"compiling kernels, once for this version, into {_FOLDER} ..."
    else:
        return
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr, flush=True)


_FOLDER = cache.cache_folder()
_announce()
_not_kept: list[str] = []  # kernels that were compiled in memory after all
_OPTIONS = {"nogil": True, "boundscheck": False, "error_model": "numpy"}


def kernel(signature: Any) -> Callable[[F], F]:
    """Compile a function for exactly one signature, now, or take it from the cache."""

    def compile_now(function: F) -> F:
        if _FOLDER is not None:
            previous = _config.CACHE_DIR
            _config.CACHE_DIR = str(_FOLDER)
            try:
                return _njit(signature, cache=True, **_OPTIONS)(function)  # type: ignore[no-any-return]
            except (OSError, RuntimeError):  # the folder went away or is full: numba cannot use it
                _not_kept.append(function.__name__)
            finally:
                _config.CACHE_DIR = previous
        return _njit(signature, **_OPTIONS)(function)  # type: ignore[no-any-return]

    return compile_now


def part(function: F) -> F:
    """A function that kernels call: compiled as a part of each of them, never on its own."""
    return _njit(**_OPTIONS)(function)  # type: ignore[no-any-return]


def copied_part(function: F) -> F:
    """A part that is copied into its only caller before anything is compiled: for one that calls large parts, which
    would all be optimized once more with it."""
    return _njit(inline="always", **_OPTIONS)(function)  # type: ignore[no-any-return]


def all_compiled() -> None:
    """Told by the module that loads the last kernel: processes started from now on find all of them."""
    if _FOLDER is not None and not _not_kept:
        cache.mark_complete(_FOLDER)
