"""Which worker does what next. Whoever iterates over a schedule is told what happens, in events."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from .messages import Hashes, Offsets, Unit, UnitResult

# Compressed weights that wait for their offsets, all workers together; one more per worker is in the making.
BYTES_IN_FLIGHT: Final = 384 << 20
_WORKERS_PER_PLAIN: Final = 4


class Workers(Protocol):
    """What a schedule needs of a pool of workers."""

    @property
    def busy(self) -> bool: ...

    def idle(self) -> list[int]: ...

    def call(self, number: int, task: str, method: str, *arguments: object) -> None: ...

    def wait(self) -> list[tuple[int, Any]]: ...


@dataclass(frozen=True)
class Made:
    """A unit is made: all of it that is not compressed has been written."""

    unit: Unit
    result: UnitResult


@dataclass(frozen=True)
class Turn:
    """The compressed weight of a unit is next in the files: answer with `Schedule.write`."""

    unit: Unit
    result: UnitResult


@dataclass(frozen=True)
class Written:
    """The compressed weight of a unit has been written."""

    unit: Unit
    hashes: Hashes


Event = Made | Turn | Written


class Schedule:
    """Units to workers, until all are made and written.

    A unit gives Made; one with a compressed weight then Turn, in the order of the plan whoever is faster, so that files
    do not depend on timing, and last Written. Layers that are not compressed keep a disk busy and a processor idle, so
    one of four workers does those, the largest first: on many cores, they would be what ends last. At most
    BYTES_IN_FLIGHT of compressed weights wait for their offsets.
    """

    def __init__(self, units: Sequence[Unit], pool: Workers) -> None:
        self._pool = pool
        self._plain = deque(sorted((unit for unit in units if not unit.compress), key=lambda unit: -unit.source_bytes))
        self._pending = deque(unit for unit in units if unit.compress)
        self._turns = deque(self._pending)
        self._waiting: dict[str, tuple[int, UnitResult]] = {}  # made, before their turn: the worker that holds each
        self._holder: dict[str, tuple[int, int]] = {}  # their turn has come: worker, bytes
        self._to_write: dict[int, deque[tuple[Unit, Offsets]]] = {}  # per worker, what it has not been given yet
        self._making: dict[int, Unit] = {}
        self._writing: dict[int, Unit] = {}
        self._held = 0

    def __iter__(self) -> Iterator[Event]:
        while self._plain or self._pending or self._pool.busy or any(self._to_write.values()):
            for number in self._pool.idle():
                self._give(number)
            for number, result in self._pool.wait():
                yield from self._received(number, result)

    @property
    def only_writes(self) -> bool:
        """Whether everything is made, and some of it not written yet."""
        return not (self._making or self._pending or self._plain) and bool(
            self._writing or any(self._to_write.values())
        )

    def write(self, unit: Unit, offsets: Offsets) -> None:
        """Have the weight of a Turn written at these offsets, by the worker that holds it."""
        number, _ = self._holder[unit.name]
        self._to_write.setdefault(number, deque()).append((unit, offsets))

    def _give(self, number: int) -> None:
        """Something to do for an idle worker, if there is anything."""
        if self._to_write.get(number):
            unit, offsets = self._to_write[number].popleft()
            self._writing[number] = unit
            self._pool.call(number, unit.name, "write", unit.name, offsets)
            return
        plain_at_work = sum(not unit.compress for unit in self._making.values())
        workers = len(self._pool.idle()) + len(self._making) + len(self._writing)
        if self._plain and (plain_at_work < max(1, workers // _WORKERS_PER_PLAIN) or not self._pending):
            unit = self._plain.popleft()
        elif self._pending and (self._held < BYTES_IN_FLIGHT or not self._pool.busy):
            unit = self._pending.popleft()
        else:
            return
        self._making[number] = unit
        self._pool.call(number, unit.name, "make", unit)

    def _received(self, number: int, result: Any) -> Iterator[Event]:
        if number in self._writing:
            unit = self._writing.pop(number)
            self._held -= self._holder.pop(unit.name)[1]
            yield Written(unit, result)
            return
        unit = self._making.pop(number)
        yield Made(unit, result)
        if not unit.compress:
            return
        self._held += result.held_bytes
        self._waiting[unit.name] = (number, result)
        while self._turns and self._turns[0].name in self._waiting:
            following = self._turns.popleft()
            holder, waiting = self._waiting.pop(following.name)
            self._holder[following.name] = (holder, waiting.held_bytes)
            yield Turn(following, waiting)
