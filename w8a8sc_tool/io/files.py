"""Every change the project makes to a file system, one function each.

All writing goes through here, in the parent and in the workers, so that there is one place where errors become
messages, and one place to watch what would be lost at any moment. docs/reliability.md states the promise that follows
from the order in which these are called.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import WorkError

T = TypeVar("T")

watcher: Callable[[str, Path, tuple[Any, ...]], None] | None = None
"""Told of every operation before it is done: its name, its path and what else it takes. For tests, which record
operations to replay what a crash leaves, or raise OSError in their place."""

_REMEDIES = {
    errno.ENOSPC: "make room on the disk and run the same command again: it goes on where it stopped",
    errno.EDQUOT: "the quota is used up: make room and run the same command again",
    errno.EFBIG: "raise the file size limit (ulimit -f) and run the same command again",
    errno.EMFILE: "raise the number of open files (ulimit -n) and run the same command again",
    errno.EROFS: "the file system is read-only: choose another output",
    errno.EACCES: "check permissions and run the same command again",
    errno.EPERM: "check permissions and run the same command again",
}


def failure(what: str, error: OSError, path: Path | str) -> WorkError:
    """The message for a failed file operation."""
    remedy = _REMEDIES.get(error.errno or 0, "mend it and run the same command again")
    return WorkError(f"{what} failed ({error.strerror or error})", str(path), remedy)


def _perform(what: str, path: Path, operation: Callable[[], T], *details: Any) -> T:
    try:
        if watcher is not None:
            watcher(what, path, details)
        return operation()
    except OSError as error:
        raise failure(what, error, path) from None


def make_folder(path: Path) -> None:
    """Create a folder whose parent exists."""
    _perform("creating the folder", path, path.mkdir)


def make_parents(path: Path) -> None:
    """Create a folder and all above it; their names are durable afterwards."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        _perform("creating the folder", folder, partial(folder.mkdir, exist_ok=True))
        sync_folder(folder.parent)


def create(path: Path) -> int:
    """A new file, open for writing: its descriptor."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return _perform("creating the file", path, lambda: os.open(path, flags, 0o666))


def open_existing(path: Path) -> int:
    """An existing file, open for writing: its descriptor."""
    return _perform("opening", path, lambda: os.open(path, os.O_RDWR | os.O_CLOEXEC))


def write_at(fd: int, path: Path, data: Any, offset: int) -> None:
    """Write all of a buffer of bytes at an offset."""
    view = memoryview(data)
    while view:
        count = _perform("writing", path, partial(os.pwrite, fd, view, offset), view, offset)
        view = view[count:]
        offset += count


def cut(fd: int, path: Path, size: int) -> None:
    """Make a file end at `size`."""
    _perform("cutting off the end", path, lambda: os.ftruncate(fd, size), size)


def sync(fd: int, path: Path) -> None:
    """Make a file's bytes durable."""
    _perform("syncing", path, lambda: os.fsync(fd))


def settle(fd: int, path: Path) -> None:
    """Make a large file's bytes durable and let the page cache forget them.

    Whatever reads them next reads what is on the disk; the source stays cached meanwhile; and writing into memory that
    was in use a moment ago is much faster than into memory that the system has to find (docs/performance.md).
    """
    sync(fd, path)
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # advice
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""

    def operation() -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    _perform("syncing the folder", folder, operation)


def rename(source: Path, target: Path) -> None:
    _perform("renaming", source, lambda: source.rename(target), target)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder."""
    _perform("removing", path, path.unlink if path.is_symlink() or not path.is_dir() else lambda: shutil.rmtree(path))


def write_file(path: Path, data: bytes) -> None:
    """A new, small, durable file."""
    fd = create(path)
    try:
        write_at(fd, path, data, 0)
        sync(fd, path)
    finally:
        os.close(fd)


def lock(folder: Path) -> int | None:
    """Lock a folder until the descriptor that is returned is closed, or its owner dies; None: somebody else has it."""
    fd = _perform("opening the folder", folder, lambda: os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:  # a file system without locks
        return fd
    return fd


def as_bytes(values: npt.NDArray[Any]) -> memoryview:
    """The bytes of a C-contiguous array."""
    return memoryview(values.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
