"""Compiling the kernels: once per installed version, kept on disk, and in memory where nothing can be written.

numba keys its cache by the file of each function alone, so a kernel would go stale when a file it calls changes. The
folder used here is therefore named after the content of all of the codec's sources.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numba.core.config

F = TypeVar("F", bound=Callable[..., Any])

# numba's own annotations differ between the versions admitted here.
_njit: Any = numba.njit
_config: Any = numba.core.config

CACHE_VARIABLE = "W8A8SC_CACHE_DIR"


def _sources_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _candidates() -> list[Path]:
    """Where compiled kernels may be kept, best first."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return [Path(chosen)]
    places = [Path(__file__).parent / "__pycache__"]
    if home := os.environ.get("XDG_CACHE_HOME"):
        places.append(Path(home) / "w8a8sc")
    with contextlib.suppress(RuntimeError):  # no home: a container with an unknown user
        places.append(Path.home() / ".cache" / "w8a8sc")
    return places


def cache_folder() -> Path | None:
    """The folder that compiled kernels are read from and written to; None: they are compiled in memory."""
    name = f"kernels-{_sources_digest()}"
    for place in _candidates():
        folder = place / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError:
            continue
        return folder
    return None


_FOLDER = cache_folder()
_OPTIONS = {"nogil": True, "boundscheck": False, "error_model": "numpy"}


def kernel(signature: str) -> Callable[[F], F]:
    """Compile a function for exactly one signature, now, or take it from the cache."""

    def compile_now(function: F) -> F:
        if _FOLDER is not None:
            previous = _config.CACHE_DIR
            _config.CACHE_DIR = str(_FOLDER)
            try:
                return _njit(signature, cache=True, **_OPTIONS)(function)  # type: ignore[no-any-return]
            except (OSError, RuntimeError):  # the folder went away or is full: numba cannot use it
                pass
            finally:
                _config.CACHE_DIR = previous
        return _njit(signature, **_OPTIONS)(function)  # type: ignore[no-any-return]

    return compile_now


def part(function: F) -> F:
    """A function that kernels call: compiled as a part of each of them, never on its own."""
    return _njit(**_OPTIONS)(function)  # type: ignore[no-any-return]
