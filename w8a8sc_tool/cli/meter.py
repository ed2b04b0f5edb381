"""What a command has done so far, in numbers: bytes, rate, ratio, time left, and seconds per stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from ..io.amounts import size
from .time_left import TimeLeft

PREPARING: Final = "preparing"  # before a job, and between two
FINISHING: Final = "finishing"  # after it: results are put together


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_of_hour = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_of_hour:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


class Meter:
    """Told what a job does, it knows how far it is. Stages add up over all jobs of a command."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.started = self._entered = clock()
        self.stage = PREPARING
        self.begun = False  # any job, ever
        self.total = self.done = self._original = self._compressed = 0
        self._left = TimeLeft(0)
        self._compresses = False
        self._seconds: dict[str, float] = {}

    def begin(self, label: str, total_bytes: int, copied_bytes: int) -> None:
        self.begun = True
        self.total = total_bytes
        self.done = self._original = self._compressed = 0
        self._left = TimeLeft(total_bytes, copied_bytes)
        self._compresses = copied_bytes > 0
        self.enter(label)

    def enter(self, stage: str) -> None:
        now = self._clock()
        self._seconds[self.stage] = self._seconds.get(self.stage, 0.0) + now - self._entered
        self.stage, self._entered = stage, now

    def advance(self, bytes_done: int, original: int = 0, compressed: int = 0) -> None:
        self.done += bytes_done
        self._original += original
        self._compressed += compressed
        self._left.advance(bytes_done, self._clock(), copied=self._compresses and not original)

    def skip(self, bytes_done: int) -> None:
        self.done += bytes_done
        self._left.skip(bytes_done)

    @property
    def share(self) -> float:
        """Of the work, that is done."""
        return min(1.0, self.done / self.total) if self.total else 1.0

    @property
    def rate(self) -> float:
        """Bytes per second, lately; 0 while it is not known."""
        return self._left.rate

    @property
    def ratio(self) -> float | None:
        """Of the weights that were compressed in this job, their size to what it was."""
        return self._compressed / self._original if self._original else None

    @property
    def seconds_left(self) -> float | None:
        """Until the work is done; None while it is not known, and when there is none left."""
        return self._left.seconds

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._clock() - self.started

    def times(self) -> dict[str, float]:
        """Seconds of every stage so far, in the order of their first beginning."""
        self.enter(self.stage)
        return dict(self._seconds)

    # --------------------------------------------------------------------------------------------------- for people

    def texts(self) -> dict[str, str]:
        """Rate, ratio and time left as they are shown; what is not known is left out."""
        texts = {}
        if self.rate:
            texts["rate"] = f"{self.rate / 1e6:.0f} MB/s"
        if self.ratio is not None:
            texts["ratio"] = f"ratio {self.ratio:.3f}"
        if self.seconds_left is not None:
            texts["left"] = f"{_rounded(self.seconds_left)} left"
        return texts

    def line(self) -> str:
        """Where the job is."""
        return ", ".join([f"{self.stage}: {self.share:.0%} of {size(self.total)}", *self.texts().values()])

    def summary(self) -> str:
        """Times per stage, in one line."""
        times = [f"{stage} {duration(seconds)}" for stage, seconds in self.times().items() if seconds >= 0.05]
        return f"{', '.join(times)}; {duration(self.seconds)} in all" if times else f"{duration(self.seconds)} in all"


def _rounded(seconds: float) -> str:
    """A time to come, which nobody knows to the tenth of a second."""
    return f"{seconds:.0f} s" if seconds < 59.5 else duration(seconds)
