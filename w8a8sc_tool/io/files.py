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
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from . import limits, reading
from .descriptors import spared
from .failures import work_failure

T = TypeVar("T")

watcher: Callable[[str, Path, tuple[Any, ...]], None] | None = None
"""Told of every operation before it is done: its name, its path and what else it takes. For tests, which record
operations to replay what a crash leaves, or raise OSError in their place."""


def _perform(action: str, path: Path, operation: Callable[[], T], *details: Any) -> T:
    def watched() -> T:
        if watcher is not None:
            watcher(action, path, details)
        return operation()

    return _attempt(action, path, watched)


def _perform_if_offered(
    action: str, path: Path, operation: Callable[[], None], refusals: frozenset[int], limit: str, *details: Any
) -> bool:
    """Perform what not every file system offers; False, with a note, where the refusal says that this one does not."""
    refused: list[OSError] = []

    def watched() -> None:
        try:
            if watcher is not None:
                watcher(action, path, details)
            operation()
        except OSError as error:
            if error.errno not in refusals:
                raise
            refused.append(error)

    _attempt(action, path, watched)
    for error in refused:
        limits.left_out(limit, path, error)
    return not refused


def _attempt(action: str, path: Path | str, operation: Callable[[], T]) -> T:
    try:
        return operation()
    except OSError as error:
        raise work_failure(action, error, path) from None


def make_folder(path: Path) -> None:
    """Create a folder whose parent exists."""
    _perform("creating the folder", path, path.mkdir)


def make_parents(path: Path) -> None:
    """Create a folder and all above it; their names are durable afterwards."""
    missing = [folder for folder in (path, *path.parents) if not reading.exists(folder)]
    for folder in reversed(missing):
        _perform("creating the folder", folder, partial(folder.mkdir, exist_ok=True))
        sync_folder(folder.parent)


def create(path: Path) -> int:
    """A new file, open for writing: its descriptor."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return spared(_perform("creating the file", path, lambda: os.open(path, flags, 0o666)))


def open_existing(path: Path) -> int:
    """An existing file, open for writing: its descriptor."""
    return spared(_perform("opening", path, lambda: os.open(path, os.O_RDWR | os.O_CLOEXEC)))


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
    """Make a file's bytes durable, where the file system can."""
    _perform_if_offered("syncing", path, lambda: os.fsync(fd), limits.NO_FILE_SYNC, limits.FILE_SYNC)


def without_read_ahead(fd: int) -> None:
    """Of an open file that others are still writing, have reads bring nothing else into the page cache.

    The system would go on behind what is asked for, and fill what is not written yet with zeros, page by page.
    """
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # advice
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)


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
    """Make the names in a folder durable, where the file system can."""

    def operation() -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    _perform_if_offered("syncing the folder", folder, operation, limits.NO_FOLDER_SYNC, limits.FOLDER_SYNC)


def rename(source: Path, target: Path) -> None:
    _perform("renaming", source, lambda: source.rename(target), target)


def move_aside(folder: Path, aside: Path) -> None:
    """Rename a folder that is about to be replaced; where the file system cannot, it is removed, with a note."""

    def operation() -> None:
        folder.rename(aside)

    if not _perform_if_offered("renaming", folder, operation, limits.NO_MOVE, limits.MOVE, aside):
        remove(folder)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder."""
    folder = reading.is_folder(path) and not reading.is_link(path)
    _perform("removing", path, (lambda: shutil.rmtree(path)) if folder else path.unlink)


def write_file(path: Path, data: bytes) -> None:
    """A new, small, durable file."""
    fd = create(path)
    try:
        write_at(fd, path, data, 0)
        sync(fd, path)
    finally:
        os.close(fd)


def put(path: Path, data: bytes) -> None:
    """A small, durable file that appears whole, in place of one that may be there.

    It grows beside it, as `.partial`; a folder of that name is nobody's leftover and stays, which is a WorkError.
    """
    partial = path.with_name(f"{path.name}.partial")
    if reading.link_status(partial) is not None and (reading.is_link(partial) or not reading.is_folder(partial)):
        remove(partial)
    write_file(partial, data)
    rename(partial, path)
    sync_folder(path.parent)


def lock(folder: Path, *, surely: bool = False) -> int | None:
    """Lock a folder until the descriptor that is returned is closed, or its owner dies; None: somebody else has it.

    Where the file system has no locks, the descriptor is returned without one, and a note tells; surely: None then.
    """
    fd = _perform("opening the folder", folder, lambda: os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if surely or error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(fd)
            return None
        limits.left_out(limits.LOCK, folder, error)
    return fd


def as_bytes(values: npt.NDArray[Any]) -> memoryview:
    """The bytes of a C-contiguous array."""
    return memoryview(values.reshape(-1).view(np.uint8))  # type: ignore[arg-type]


# ------------------------------------------------------------------------- files that need not survive a crash


def write_plain(path: Path, data: Any) -> None:
    """A small file, new or written over, that is not made durable."""
    _attempt("writing", path, lambda: path.write_bytes(data))


def set_mode(path: Path, mode: int) -> None:
    """Who may do what with a file, as chmod takes it."""
    _attempt("changing the permissions", path, lambda: path.chmod(mode))


def new_file(path: Path) -> BinaryIO:
    """A new file to write to from its start, not made durable."""
    return open(create(path), "wb")


def append_to(path: Path) -> int:
    """A file for this user alone, open for appending: its descriptor."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO may have no reader
    return _attempt("opening", path, lambda: os.open(path, flags, 0o600))


def append(fd: int, path: Path, data: bytes) -> int:
    """Write as much of the data as can be written at once, at the end of a file that is open for that; its bytes."""
    return _attempt("writing", path, lambda: os.write(fd, data))


def write_program(path: Path, data: bytes) -> None:
    """A file that everybody may run, put in place whole, with its folder if that is missing."""

    def operation() -> None:
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(path.name + ".new")
        temporary.write_bytes(data)
        temporary.chmod(0o755)
        temporary.replace(path)

    _attempt("writing", path, operation)


def temporary_root() -> Path:
    """Where temporary files go."""
    return Path(_attempt("finding a folder for temporary files", "TMPDIR", tempfile.gettempdir))


def new_temporary_folder(prefix: str, root: Path) -> Path:
    """A new folder for this user alone."""
    return Path(_attempt("creating a temporary folder", root, lambda: tempfile.mkdtemp(prefix=prefix, dir=root)))


def discard(folder: Path) -> None:
    """Remove a temporary folder, as far as that can be done."""
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for this user alone, removed at the end."""
    folder = new_temporary_folder("w8a8sc-", temporary_root())
    try:
        yield folder
    finally:
        discard(folder)
