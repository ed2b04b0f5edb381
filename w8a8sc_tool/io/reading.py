"""Every question the project asks a file system, one function each.

pathlib's own predicates raise PermissionError for a folder that may not be entered, and differ between Python versions
in what else they raise. Here nothing at a path is an answer, and everything else that a file system says against a
question is an AccessError, which names the path and what to do. tests/test_imports.py holds that nobody asks elsewhere.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from ..errors import InputError, WorkError
from .descriptors import spared
from .failures import access_failure, work_failure

T = TypeVar("T")

PIECE_BYTES: Final = 1 << 20
"""Files are worked through in pieces that stay in a core's second-level cache between reading, hashing and writing."""

_ABSENT: Final = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


def _ask(problem: str, path: Path, question: Callable[[], T]) -> T:
    try:
        return question()
    except (OSError, ValueError) as error:
        raise access_failure(problem, error, path) from None


def status(path: Path) -> os.stat_result | None:
    """What is at a path, links followed; None if nothing is."""
    return _status(path, path.stat)


def link_status(path: Path) -> os.stat_result | None:
    """What is at a path, a link itself if it is one; None if nothing is."""
    return _status(path, path.lstat)


def _status(path: Path, question: Callable[[], os.stat_result]) -> os.stat_result | None:
    def answer() -> os.stat_result | None:
        try:
            return question()
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise

    return _ask("cannot be looked at", path, answer)


def exists(path: Path) -> bool:
    """Whether anything is at a path, links followed."""
    return status(path) is not None


def is_folder(path: Path) -> bool:
    """Whether a path is a folder, links followed."""
    return (answer := status(path)) is not None and stat.S_ISDIR(answer.st_mode)


def is_file(path: Path) -> bool:
    """Whether a path is a regular file, links followed."""
    return (answer := status(path)) is not None and stat.S_ISREG(answer.st_mode)


def is_link(path: Path) -> bool:
    """Whether a path is a symbolic link."""
    return (answer := link_status(path)) is not None and stat.S_ISLNK(answer.st_mode)


def is_same(first: Path, second: Path) -> bool:
    """Whether two paths lead to the same file or folder; not if one may not be looked at."""
    try:
        return first.samefile(second)
    except (OSError, ValueError):
        return False


def link_target(link: Path) -> Path:
    """Where a symbolic link leads, one step, as a path from the folder that it is in."""
    return link.parent / _ask("cannot be followed", link, link.readlink)


def check_folder(path: Path, remedy: str = "") -> None:
    """Raises InputError unless a path is a folder whose content may be listed and opened."""
    if not is_folder(path):
        raise InputError("not a folder" if exists(path) else "no such folder", str(path), remedy)
    entries(path)
    if not _may(path, os.X_OK):
        raise access_failure("cannot be entered", _error(errno.EACCES), path)


def entries(folder: Path) -> list[Path]:
    """What is in a folder, by name."""
    return sorted(_ask("cannot be listed", folder, lambda: list(folder.iterdir())))


def matching(folder: Path, pattern: str) -> list[Path]:
    """What is in a folder under names that fit a pattern as in a shell, by name; nothing if there is no folder."""
    if not is_folder(folder):
        return []
    return [path for path in entries(folder) if fnmatch.fnmatchcase(path.name, pattern)]


def real_path(path: Path) -> Path:
    """The absolute path without links; of what is not there, as far as it is."""
    return _ask("cannot be looked at", path, path.resolve)


def absolute(path: Path) -> Path:
    """The absolute path, links kept."""
    return _ask("the folder that this relative path starts from is gone", path, path.absolute)


def existing_part(path: Path) -> Path:
    """A path, made absolute, or the nearest folder above it that is there."""
    path = absolute(path)
    return path if exists(path) or path == path.parent else existing_part(path.parent)


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write to the file system of a folder."""
    return _ask("its disk cannot be looked at", folder, lambda: shutil.disk_usage(folder)).free


def is_program(path: Path) -> bool:
    """Whether a path is a file that this user may run."""
    return is_file(path) and _may(path, os.X_OK)


def check_writable(folder: Path) -> None:
    """Raises InputError unless this user may list, enter and change a folder that exists."""
    _check_may(folder, os.R_OK | os.W_OK | os.X_OK)


def check_can_create(path: Path) -> None:
    """Raises InputError unless this user may create a path, and the folders above it that are not there yet."""
    _check_may(existing_part(absolute(path).parent), os.W_OK | os.X_OK)


def _check_may(folder: Path, mode: int) -> None:
    if not is_folder(folder):
        raise InputError("not a folder", str(folder), "choose another output")
    if _may(folder, mode):
        return
    read_only = _ask("its disk cannot be looked at", folder, lambda: os.statvfs(folder)).f_flag & os.ST_RDONLY
    raise access_failure("cannot be written to", _error(errno.EROFS if read_only else errno.EACCES), folder)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def open_file(path: Path) -> int:
    """A regular file, open for reading: its descriptor.

    Raises InputError for anything else, of which nothing is opened: a device may act on it, a pipe would wait.
    """
    if not is_file(path):
        raise InputError("not a regular file" if exists(path) else "no such file", str(path))
    return spared(_ask("cannot be opened", path, lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC)))


def size_of(fd: int, path: Path) -> int:
    """The size of an open file in bytes."""
    return _ask("cannot be looked at", path, lambda: os.fstat(fd)).st_size


def read_at(fd: int, path: Path, view: Any, offset: int, subject: str = "") -> None:
    """Fill a writable buffer of bytes with a file's bytes from `offset` on.

    subject: what is read, for messages. Raises WorkError if reading fails or the file ends before.
    """
    action = f"reading {subject}" if subject else "reading"
    rest = memoryview(view)
    while rest:
        try:
            count = os.preadv(fd, [rest[:_MOST_AT_A_TIME]], offset)
        except OSError as error:
            raise work_failure(f"{action} at byte {offset}", error, path) from None
        if count == 0:
            raise WorkError(
                f"{subject or 'the file'} is not where it was: the file ends at byte {offset}",
                str(path),
                "it was changed during the work; run the command again",
            )
        rest, offset = rest[count:], offset + count


_MOST_AT_A_TIME: Final = 64 << 20  # bytes that one call asks for


def pieces(path: Path, size: int) -> Iterator[bytes]:
    """The bytes of a regular file, so many at a time."""
    with open(open_file(path), "rb", buffering=0) as file:
        while piece := _ask("cannot be read", path, partial(file.read, size)):
            yield piece


def whole(path: Path, largest: int) -> bytes:
    """A regular file of at most `largest` bytes; raises InputError for all others."""
    with open(open_file(path), "rb") as file:
        data = _ask("cannot be read", path, partial(file.read, largest + 1))
    if len(data) > largest:
        raise InputError(f"larger than the {largest} bytes such a file may have", str(path))
    return data


def tail(path: Path, size: int) -> bytes:
    """The last bytes of a regular file."""
    with open(open_file(path), "rb") as file:
        file.seek(max(0, size_of(file.fileno(), path) - size))
        return _ask("cannot be read", path, partial(file.read, size))


def home_expanded(path: Path) -> Path:
    """A path whose ~ or ~user is replaced."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise InputError(f"nobody knows the home folder that {path.parts[0]} stands for", str(path)) from None
