"""Compiling the kernels: once per installed version, kept on disk, and in memory where nothing can be written.

numba keys its cache by the file of each function alone, so a kernel would go stale when a file it calls changes. The
folder used here is therefore named after the content of all of the codec's sources.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import sys
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
    places.append(Path(tempfile.gettempdir()) / f"w8a8sc-{os.getuid()}")
    return places


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can have put compiled code into a folder: loading it is running it."""
    found = folder.stat()
    return found.st_uid in (0, os.getuid()) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def cache_folder() -> Path | None:
    """The folder that compiled kernels are read from and written to; None: they are compiled in memory.

    numba insists on writing to it. Kernels that an image build left in a folder that is read-only now are copied.
    """
    name = f"kernels-{_sources_digest()}"
    compiled: Path | None = None
    for place in _candidates():
        folder = place / name
        try:
            if folder.is_dir() and _is_ours(folder) and any(folder.rglob("*.nbc")):
                compiled = compiled or folder
            place.mkdir(mode=0o755, parents=True, exist_ok=True)
            folder.mkdir(mode=0o755, exist_ok=True)
            if not _is_ours(place) or not _is_ours(folder):
                continue
            with tempfile.TemporaryFile(dir=folder):
                pass
            if compiled not in (None, folder) and not any(folder.rglob("*.nbc")):
                shutil.copytree(compiled, folder, dirs_exist_ok=True)
        except OSError:
            continue
        return folder
    return None


def _announce() -> None:
    """One line for whoever wonders why the first start takes long."""
    if _FOLDER is None:
        print("compiling kernels (no folder to keep them can be written) ...", file=sys.stderr, flush=True)
    elif not any(_FOLDER.rglob("*.nbc")):
        print(f"compiling kernels, once for this version, into {_FOLDER} ...", file=sys.stderr, flush=True)


_FOLDER = cache_folder()
_announce()
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
