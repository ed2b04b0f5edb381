"""Compiling the kernels: when first called, once per installed version, kept on disk or else in memory."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import numba
import numba.core.config

from . import kernel_cache

F = TypeVar("F", bound=Callable[..., Any])

# numba's own annotations differ between the versions admitted here.
_njit: Any = numba.njit
_config: Any = numba.core.config

_OPTIONS = {"nogil": True, "boundscheck": False, "error_model": "numpy"}
# Without what lets Python or C call a part, which takes time to compile.
_PART_OPTIONS = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_LOG: Final = logging.getLogger(__name__)
_LOCK = threading.RLock()
_folder = functools.cache(kernel_cache.cache_folder)


class Kernel:
    """A function that is compiled for exactly one signature when it is first called, or taken from the cache."""

    def __init__(self, function: Callable[..., Any], signature: Any) -> None:
        self._function = function
        self._signature = signature
        self._compiled: Any = None
        self.is_kept = False  # on disk

    def __call__(self, *arguments: Any) -> Any:
        return (self._compiled or self.compiled())(*arguments)

    @property
    def is_compiled(self) -> bool:
        return self._compiled is not None

    def compiled(self) -> Any:
        """The numba function."""
        with _LOCK:
            if self._compiled is None:
                self._compiled = self._from_cache() or _njit(self._signature, **_OPTIONS)(self._function)
        return self._compiled

    def _from_cache(self) -> Any:
        """The compiled function, from the folder of compiled kernels or written to it; None if that cannot be."""
        folder = _folder()
        if folder is None:
            return None
        previous = _config.CACHE_DIR
        _config.CACHE_DIR = str(folder)
        try:
            for _ in range(2):
                try:
                    compiled = _njit(self._signature, cache=True, **_OPTIONS)(self._function)
                    self.is_kept = True
                    return compiled
                except (OSError, RuntimeError):  # the folder went away or is full: numba cannot use it
                    return None
                except Exception:  # files that numba cannot read; an error in the function comes once more in memory
                    kernel_cache.forget(folder, self._function.__name__)
        finally:
            _config.CACHE_DIR = previous
        return None


def kernel(signature: Any) -> Callable[[Callable[..., Any]], Kernel]:
    """Make a function a kernel with this signature."""
    return lambda function: Kernel(function, signature)


def compile_all(kernels: Sequence[Kernel]) -> None:
    """Compile all kernels there are, or take them from the cache; says so, as that takes half a minute.

    Processes that are started afterwards find all of them.
    """
    if all(each.is_compiled for each in kernels):
        return
    with _LOCK:
        folder = _folder()
        complete = folder is not None and kernel_cache.is_complete(folder)
        if not complete:
            _announce(folder)
        for each in kernels:
            each.compiled()
        if folder is not None and not complete and all(each.is_kept for each in kernels):
            kernel_cache.mark_complete(folder)


def _announce(folder: Path | None) -> None:
    """One line for whoever wonders why the first start takes long; who uses the codec decides where it goes.

    A warning, which Python prints on standard error where nobody has set up logging.
    """
    if folder is None:
        _LOG.warning("compiling kernels (no folder to keep them can be written) ...")
    else:
        _LOG.warning("compiling kernels, once for this version, into %s ...", folder)


def part(function: F) -> F:
    """A function that kernels call: compiled as a part of each of them, never on its own."""
    return _njit(**_PART_OPTIONS)(function)  # type: ignore[no-any-return]


def copied_part(function: F) -> F:
    """A part that is copied into its only caller before anything is compiled: for one that calls large parts, which
    would all be optimized once more with it."""
    return _njit(inline="always", **_PART_OPTIONS)(function)  # type: ignore[no-any-return]
