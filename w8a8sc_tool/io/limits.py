"""What a file system does not offer: guarantees that are left out where they cannot be had, with one note each.

Shares and FUSE file systems take files well and yet cannot sync a folder, lock one, or rename one of a lower layer.
docs/reliability.md says what still holds then.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# What fsync(2) says of what it cannot sync, and what systems in use say in its place. Only for a folder that includes
# EIO: FUSE says it for a missing operation, and a disk that fails says it of the files, too. EACCES: a folder that may
# be written to and not listed cannot be opened to be synced.
NO_FOLDER_SYNC: Final = frozenset(
    {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EISDIR}
    | {errno.EIO, errno.EACCES, errno.EPERM}
)
NO_FILE_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
NO_MOVE: Final = frozenset({errno.EXDEV})  # overlayfs: a folder of a lower layer

FOLDER_SYNC: Final = (
    "its file system cannot sync folders: a power failure within seconds after the end may take new files away again; "
    "verify afterwards"
)
FILE_SYNC: Final = (
    "its file system cannot sync files: a power failure within seconds after the end may leave damaged ones; "
    "verify afterwards"
)
LOCK: Final = "its file system cannot lock folders: see to it that no other run works on the same output"
MOVE: Final = "its file system cannot move the old directory aside: it was removed before the new one took its place"

_listener: Callable[[str], None] | None = None
_noted: set[str] = set()


@contextmanager
def noting(note: Callable[[str], None]) -> Iterator[None]:
    """Have `note` told of every guarantee that is left out meanwhile, once each."""
    global _listener, _noted
    before = (_listener, _noted)
    _listener, _noted = note, set()
    try:
        yield
    finally:
        _listener, _noted = before


def left_out(limit: str, path: Path, error: OSError) -> None:
    """Say that a guarantee does not hold at a path."""
    if _listener is not None and limit not in _noted:
        _noted.add(limit)
        _listener(f"{path}: {limit} ({error.strerror or error})")
