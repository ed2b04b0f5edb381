"""Where compiled kernels are kept, and whether all of them are there. Nothing of numba is loaded to find out.

numba keys its cache by the file of each function alone, so a kernel would go stale when a file it calls changes. The
folder used here is therefore named after the content of all of the codec's sources.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import shutil
import stat
import tempfile
from pathlib import Path

CACHE_VARIABLE = "W8A8SC_CACHE_DIR"

# What /proc/cpuinfo says of a processor that decides which code it can run, on x86 and on Arm.
_PROCESSOR = {"vendor_id", "cpu family", "model", "model name", "stepping", "flags"} | {
    "CPU implementer",
    "CPU architecture",
    "CPU variant",
    "CPU part",
    "Features",
}


def _sources_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _candidates() -> list[Path]:
    """Where compiled kernels may be kept, best first."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return [Path(chosen)]
    folders = [Path(__file__).parent / "__pycache__"]
    if home := os.environ.get("XDG_CACHE_HOME"):
        folders.append(Path(home) / "w8a8sc")
    with contextlib.suppress(RuntimeError):  # no home: a container with an unknown user
        folders.append(Path.home() / ".cache" / "w8a8sc")
    with contextlib.suppress(OSError):  # no folder for temporary files
        folders.append(Path(tempfile.gettempdir()) / f"w8a8sc-{os.getuid()}")
    return folders


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can have put compiled code into a folder: loading it is running it."""
    status = folder.stat()
    return status.st_uid in (0, os.getuid()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def cache_folder() -> Path | None:
    """The folder that compiled kernels are read from and written to; None: they are compiled in memory.

    numba insists on writing to it. Kernels that an image build left in a folder that is read-only now are copied.
    """
    name = f"kernels-{_sources_digest()}"
    compiled: Path | None = None
    for parent in _candidates():
        folder = parent / name
        try:
            if folder.is_dir() and _is_ours(folder) and any(folder.rglob("*.nbc")):
                compiled = compiled or folder
            parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            folder.mkdir(mode=0o755, exist_ok=True)
            if not _is_ours(parent) or not _is_ours(folder):
                continue
            with tempfile.TemporaryFile(dir=folder):
                pass
            if compiled not in (None, folder) and not any(folder.rglob("*.nbc")):
                shutil.copytree(compiled, folder, dirs_exist_ok=True)
        except OSError:
            continue
        return folder
    return None


def _mark(folder: Path) -> Path:
    """The file that says that a folder has every kernel for this Python, this numba and this processor.

    A folder may be shared by unlike machines, or come with an image that was built on another: numba looks for code for
    the processor it runs on, and compiles if there is none.
    """
    facts = [platform.python_version(), platform.machine()]
    facts += [os.environ.get(name, "") for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")]
    for package in ("numba", "llvmlite"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            facts.append(importlib.metadata.version(package))
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as file:
        for line in file:
            if not line.strip():
                break  # the other cores are alike
            if line.partition(":")[0].strip() in _PROCESSOR:
                facts.append(line.strip())
    return folder / f"complete-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"


def is_complete(folder: Path) -> bool:
    """Whether a folder has every kernel for this machine."""
    return _mark(folder).exists()


def mark_complete(folder: Path) -> None:
    """Say that a folder has every kernel for this machine; not said where it cannot be written."""
    with contextlib.suppress(OSError):
        _mark(folder).touch()


def forget(folder: Path, function: str) -> None:
    """Remove a kernel's files, which are damaged."""
    with contextlib.suppress(OSError):
        for path in folder.rglob(f"*.{function}-*.nb*"):
            path.unlink(missing_ok=True)
