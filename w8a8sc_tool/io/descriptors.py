"""How many files may be open: a directory may have more than the usual limit, which a process may raise for itself."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Final

_SPARE: Final = 128  # for standard streams, pipes to workers, what libraries open
_NO_LIMIT: Final = 1 << 20


def spared(fd: int) -> int:
    """A descriptor that was just opened. Where few more can be, the limit is raised, as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and fd >= soft - _SPARE and soft != hard:
        more = 2 * soft if hard == resource.RLIM_INFINITY else min(2 * soft, hard)
        with suppress(OSError, ValueError):  # some systems have a limit beside the hard one
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
    return fd


def most_open_files() -> int:
    """How many files this process may have open by itself at a time, once its limit is raised."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return (_NO_LIMIT if hard == resource.RLIM_INFINITY else hard) - _SPARE
