"""Which worker does what next, and what is durable already."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, Protocol

from ..workers.pool import Pool
from .messages import Answer, Key, Unit

# Compressed weights that wait for their place in the file, all workers together; one more per worker is in the making.
BYTES_IN_FLIGHT: Final = 384 << 20

# How much work a crash may cost: what has been made is synced and recorded after so many bytes or seconds.
SYNC_BYTES = 1 << 30
SYNC_SECONDS = 10.0


class Owner(Protocol):
    """What a schedule works for: a conversion."""

    def offsets(self, unit: Unit) -> dict[Key, int]:
        """Places of the tensors whose size is known."""

    def place(self, unit: Unit, answer: Answer) -> dict[Key, int]:
        """Places for the tensors of a compressed weight, next in every file."""

    def take(self, unit: Unit, answer: Answer) -> None:
        """A worker has made a unit."""

    def placed(self, unit: Unit, hashes: dict[Key, str]) -> None:
        """A worker has written a compressed weight."""

    def complete(self) -> int:
        """Bytes that are complete and not durable yet."""

    def start_sync(self) -> Any:
        """Take note of what is complete now."""

    def sync(self, batch: Any) -> None:
        """Make it durable; called from a thread."""

    def record(self, batch: Any) -> None:
        """It is durable."""


class Schedule:
    """Units to workers: a unit is made, a compressed weight is placed when its turn in the plan comes, then written.

    Layers that are not compressed keep a disk busy and a processor idle, so one worker at a time does those.
    """

    def __init__(self, units: Sequence[Unit], pool: Pool, owner: Owner) -> None:
        self._pool = pool
        self._owner = owner
        self._plain = deque(sorted((u for u in units if not u.compress), key=lambda u: -u.source_bytes))
        self._pending = deque(unit for unit in units if unit.compress)
        self._to_place = deque(self._pending)
        self._ready: dict[str, tuple[int, Answer]] = {}  # made, waiting for their turn: worker and result
        # Per worker, places that it has not been told yet.
        self._placing: dict[int, deque[tuple[Unit, Answer, dict[Key, int]]]] = {}
        self._doing: dict[int, tuple[Unit, Answer | None]] = {}
        self._held = 0
        self._syncing: tuple[object, Future[None]] | None = None
        self._synced = time.monotonic()

    def run(self) -> None:
        with ThreadPoolExecutor(1) as thread:  # it does nothing but wait for the disk
            while self._plain or self._pending or self._pool.busy or any(self._placing.values()):
                for number in self._pool.idle():
                    self._give(number)
                self._sync(thread)
                for number, result in self._pool.wait(0.5 if self._syncing else None):
                    self._receive(number, result)
            while self._syncing:
                self._sync(thread, wait=True)

    def _give(self, number: int) -> None:
        placing = self._placing.get(number)
        if placing:
            unit, answer, offsets = placing.popleft()
            self._doing[number] = (unit, answer)
            self._pool.call(number, unit.name, "place", unit.name, offsets)
            return
        writing = any(not unit.compress for unit, _ in self._doing.values())
        may_compress = self._pending and (self._held < BYTES_IN_FLIGHT or not self._pool.busy)
        if self._plain and (not writing or not self._pending):
            unit = self._plain.popleft()
        elif may_compress:
            unit = self._pending.popleft()
        else:
            return
        self._doing[number] = (unit, None)
        self._pool.call(number, unit.name, "make", unit, self._owner.offsets(unit))

    def _receive(self, number: int, result: object) -> None:
        unit, answer = self._doing.pop(number)
        if answer is not None:
            self._held -= answer.held_bytes
            self._owner.placed(unit, result)  # type: ignore[arg-type]
            return
        assert isinstance(result, Answer)
        self._owner.take(unit, result)
        if not unit.compress:
            return
        self._held += result.held_bytes
        self._ready[unit.name] = (number, result)
        while self._to_place and self._to_place[0].name in self._ready:
            following = self._to_place.popleft()
            worker, waiting = self._ready.pop(following.name)
            # Now, so that files do not depend on who is faster.
            place = (following, waiting, self._owner.place(following, waiting))
            self._placing.setdefault(worker, deque()).append(place)

    def _sync(self, thread: ThreadPoolExecutor, *, wait: bool = False) -> None:
        """Have the thread sync what is complete, if it is time, and record what it has synced."""
        if self._syncing is not None:
            batch, future = self._syncing
            if not wait and not future.done():
                return
            future.result()
            self._owner.record(batch)
            self._syncing = None
            return
        due = self._owner.complete() >= SYNC_BYTES or time.monotonic() - self._synced >= SYNC_SECONDS
        if due and self._owner.complete():
            batch = self._owner.start_sync()
            self._syncing = (batch, thread.submit(self._owner.sync, batch))
            self._synced = time.monotonic()
