"""What a file system says against an operation, as the errors of the project: the path, and what to do about it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from ..errors import AccessError, WorkError

_REMEDIES: Final = {
    errno.ENOSPC: "make room on the disk and run the same command again: it goes on where it stopped",
    errno.EDQUOT: "the quota is used up: make room and run the same command again",
    errno.EFBIG: "raise the file size limit (ulimit -f), or choose a file system that holds files of this size",
    errno.EMFILE: "raise the number of open files (ulimit -n) and run the same command again",
    errno.EROFS: "the file system is read-only: choose another output",
    errno.EACCES: "check permissions and run the same command again",
    errno.EPERM: "check permissions and run the same command again",
    errno.EIO: "check the disk or the network share and run the same command again",
    errno.ESTALE: "the network share has changed: run the same command again",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "mend the link: it leads to itself",
    errno.EXDEV: "this file system cannot rename it: choose another output",
    errno.EEXIST: "something has appeared there meanwhile: look at it, and run the same command again",
    errno.ENOTEMPTY: "something has appeared there meanwhile: look at it, and run the same command again",
}


def work_failure(action: str, error: OSError, path: Path | str) -> WorkError:
    """The error for a file operation that failed in the middle of the work."""
    return WorkError(f"{action} failed ({error.strerror or error})", str(path), _remedy(error, path))


def access_failure(problem: str, error: OSError | ValueError, path: Path | str) -> AccessError:
    """The error for a question that a file system does not answer; `problem` as in "cannot be opened".

    A ValueError is what Python raises for a path that no file system has: one with a null character, or with half of a
    surrogate pair.
    """
    if isinstance(error, ValueError):
        return AccessError(f"{problem} (no file can have this name)", str(path))
    return AccessError(f"{problem} ({error.strerror or error})", str(path), _remedy(error, path))


def _remedy(error: OSError, path: Path | str) -> str:
    if error.errno == errno.EACCES and (closed := _closed_folder(Path(path))):
        return f"let this user enter {closed}, or run as one who may"
    return _REMEDIES.get(error.errno or 0, "mend it and run the same command again")


def _closed_folder(path: Path) -> Path | None:
    """The first folder on the way to a path that this user may not enter."""
    return next((folder for folder in reversed(path.parents) if _is_closed(folder)), None)


def _is_closed(folder: Path) -> bool:
    try:
        return folder.is_dir() and not os.access(folder, os.X_OK)
    except OSError:
        return False
