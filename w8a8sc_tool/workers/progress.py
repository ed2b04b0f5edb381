"""How jobs tell what they are doing, to whoever wants to know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Receives what a job does: subclass it and override what is of interest, the rest does nothing.

    The command line shows it; the API is silent unless given one.
    """

    def begin(self, label: str, total_bytes: int, copied_bytes: int = 0) -> None:
        """A job begins that will work through so many bytes, in all its stages; the first is called `label`.

        copied_bytes: of them, in a job that compresses the others, those that are only read, checked or copied.
        """

    def stage(self, name: str) -> None:
        """What is done from now on, such as "reading back" or "waiting for the disk"."""

    def advance(self, bytes_done: int, original: int = 0, compressed: int = 0) -> None:
        """So many more bytes are done; of them so many of weights that were compressed to so many."""

    def skip(self, bytes_done: int) -> None:
        """So many bytes count as done without work: an earlier run did it, or there is less to do than was planned.

        They are among the copied ones, if there are as many.
        """

    def end(self) -> None:
        """The job is over, well or not."""

    def note(self, message: str) -> None:
        """Something a person should know."""


@contextmanager
def working(progress: Progress, label: str, total_bytes: int, copied_bytes: int = 0) -> Iterator[Progress]:
    """What a job does, from its beginning to its end, whatever ends it."""
    progress.begin(label, total_bytes, copied_bytes)
    try:
        yield progress
    finally:
        progress.end()


class Part(Progress):
    """Part of a job that has begun: what begins in it is a stage, and counts for no more bytes than were planned.

    Leaving it skips what is left of them.
    """

    def __init__(self, progress: Progress, planned_bytes: int, stage: str | None = None) -> None:
        """stage: what all of it is called, in place of the names in it."""
        self._progress = progress
        self._left = max(0, planned_bytes)
        self._stage = stage
        # Of what has begun in it: bytes there are, bytes they count for, bytes done.
        self._total = self._planned = self._done = 0

    def __enter__(self) -> Part:
        if self._stage is not None:
            self._progress.stage(self._stage)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._left:
            self._progress.skip(self._left)

    def begin(self, label: str, total_bytes: int, copied_bytes: int = 0) -> None:
        self._total, self._planned, self._done = total_bytes, min(total_bytes, self._left), 0
        self.stage(label)

    def stage(self, name: str) -> None:
        if self._stage is None:
            self._progress.stage(name)

    def advance(self, bytes_done: int, original: int = 0, compressed: int = 0) -> None:
        self._progress.advance(self._counted(bytes_done), original, compressed)

    def skip(self, bytes_done: int) -> None:
        self._progress.skip(self._counted(bytes_done))

    def note(self, message: str) -> None:
        self._progress.note(message)

    def _counted(self, bytes_done: int) -> int:
        before = self._counts_for(self._done)
        self._done += bytes_done
        counted = min(self._counts_for(self._done) - before, self._left)
        self._left -= counted
        return counted

    def _counts_for(self, bytes_done: int) -> int:
        return bytes_done * self._planned // self._total if self._total else bytes_done
