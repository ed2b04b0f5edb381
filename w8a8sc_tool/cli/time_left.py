"""How fast a job is, and how long it will take: estimates that follow a change without jumping."""

from __future__ import annotations

import math
from typing import Final

# A byte that is only read, checked or copied, against one that is compressed: it takes about a tenth of the time.
# Embeddings are a fifth of many checkpoints and are read first; counted like the others they would promise too much.
_COPIED: Final = 0.1
# What the estimate goes by is the last quarter of the job, or so many seconds: pieces of work differ much in size, and
# a disk that is slow for a while says little about the rest. The rate that is shown is that of the last seconds.
_WINDOW_SHARE: Final = 0.25
_WINDOW_SECONDS: Final = 60.0
_RATE_SECONDS: Final = 15.0
# What is shown goes over to a new estimate within a tenth of itself, in at least so many seconds, however long nothing
# was shown.
_SHOWN_SHARE: Final = 0.1
_SHOWN_SECONDS: Final = 4.0
_LONGEST_STEP: Final = 2.0
_FIRST_SECONDS: Final = 3.0  # nothing is estimated of less


class _Lately:
    """A rate of which the past counts for less and less."""

    def __init__(self) -> None:
        self._amount = self._seconds = 0.0

    @property
    def per_second(self) -> float:
        return self._amount / self._seconds if self._seconds else 0.0

    def add(self, amount: float, seconds: float, window: float) -> None:
        """So much in so many seconds; what was a window of seconds ago counts for 1/e."""
        kept = math.exp(-seconds / window)
        self._amount = self._amount * kept + amount
        self._seconds = self._seconds * kept + seconds


class TimeLeft:
    """Told of every piece of work that is done, with the time in seconds of a clock that does not go back."""

    def __init__(self, total_bytes: int, copied_bytes: int = 0) -> None:
        """copied_bytes: of the total, what is only read, checked or copied in a job that compresses the rest."""
        self._copied = min(copied_bytes, total_bytes)
        self._other = total_bytes - self._copied
        self._rate = _Lately()  # of bytes
        self._pace = _Lately()  # of work: bytes, the copied ones by their weight
        self._first = self._last = -1.0
        self._shown: float | None = None

    @property
    def rate(self) -> float:
        """Bytes per second, lately; 0 while it is not known."""
        return self._rate.per_second

    @property
    def seconds(self) -> float | None:
        """Until the work is done, as of the last piece; None while it is not known, and when there is none left."""
        return self._shown if self._copied + self._other > 0 else None

    def skip(self, nbytes: int) -> None:
        """So many bytes less are to be done, of those that would only be copied if there are as many."""
        copied = min(nbytes, self._copied)
        self._copied -= copied
        self._other = max(0, self._other - (nbytes - copied))

    def advance(self, nbytes: int, now: float, *, copied: bool = False) -> None:
        """So many bytes are done."""
        if copied:
            self.skip(nbytes)
        else:
            self._other = max(0, self._other - nbytes)
        if self._first < 0:  # what came before, processes that start and kernels that are compiled, is no rate
            self._first = self._last = now
            return
        elapsed, self._last = now - self._last, now
        self._rate.add(nbytes, elapsed, _RATE_SECONDS)
        window = max(_WINDOW_SECONDS, (now - self._first) * _WINDOW_SHARE)
        self._pace.add(nbytes * (_COPIED if copied else 1), elapsed, window)
        if self._pace.per_second and now - self._first >= _FIRST_SECONDS:
            self._show((self._other + self._copied * _COPIED) / self._pace.per_second, elapsed)

    def _show(self, estimate: float, elapsed: float) -> None:
        if self._shown is None:
            self._shown = estimate
            return
        expected = max(0.0, self._shown - elapsed)
        within = max(_SHOWN_SECONDS, min(self._shown, estimate) * _SHOWN_SHARE)
        self._shown = expected + (estimate - expected) * (1 - math.exp(-min(elapsed, _LONGEST_STEP) / within))
