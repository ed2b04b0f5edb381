"""Time left: near the truth once there is something to go by, and it does not jump, however uneven the work is."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from w8a8sc_tool.cli.time_left import TimeLeft
from w8a8sc_tool.conversion.messages import ModuleResult, Unit, UnitResult
from w8a8sc_tool.conversion.schedule import Made, Schedule, Turn
from w8a8sc_tool.io.safetensors import TensorInfo

from ..conversion.test_schedule import unit

START = 25.0  # seconds: processes start, kernels are compiled


class Clocked:
    """Workers that take as long as such work takes, by a clock of their own: 45 MB/s each, copies twelve times that."""

    def __init__(self, count: int, stall: float | None = None) -> None:
        """stall: when the disk is not there for ten seconds."""
        self.now = 0.0
        self._count = count
        self._stall = stall
        self._tasks: dict[int, tuple[float, str, Any]] = {}

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    def idle(self) -> list[int]:
        return [number for number in range(self._count) if number not in self._tasks]

    def call(self, number: int, task: str, method: str, *arguments: Any) -> None:
        begin = max(self.now, START)
        if method == "write":
            end = begin + 0.3
        else:
            end = begin + arguments[0].source_bytes / (45e6 if arguments[0].compress else 540e6)
        if self._stall is not None and begin <= self._stall < end:
            end += 10
        self._tasks[number] = (end, method, arguments[0])

    def wait(self) -> list[tuple[int, Any]]:
        number = min(self._tasks, key=lambda number: self._tasks[number][0])
        self.now, method, argument = self._tasks.pop(number)
        if method == "write":
            return [(number, {})]
        held = int(argument.source_bytes * 0.6) if argument.compress else 0
        variable = ((TensorInfo(argument.name, "I8", (held,), 0, held),),)
        return [(number, UnitResult({0: ModuleResult({}, {}, variable if held else ())}, {}))]


def model(layers: int) -> list[Unit]:
    """The modules of Qwen3-14B, whose embeddings are not compressed."""
    units = [unit("embed", 1_556_000_000, compress=False), unit("lm_head", 1_556_000_000, compress=False)]
    for layer in range(layers):
        sizes = {"qkv": 36_700_000, "o": 26_200_000, "gate_up": 178_000_000, "down": 89_000_000}
        units += [unit(f"{layer}.{name}", size) for name, size in sizes.items()]
        units.append(unit(f"{layer}.norm", 10_240, compress=False))
    return units


def followed(workers: Clocked, units: list[Unit]) -> list[tuple[float, float | None]]:
    """What is shown, with the time, at every event."""
    total = sum(item.source_bytes for item in units)
    left = TimeLeft(total, sum(item.source_bytes for item in units if not item.compress))
    schedule = Schedule(units, workers)
    shown = []
    for event in schedule:
        if isinstance(event, Made):
            left.advance(event.unit.source_bytes, workers.now, copied=not event.unit.compress)
            shown.append((workers.now, left.seconds))
        elif isinstance(event, Turn):
            schedule.write(event.unit, {})
    return shown


@pytest.mark.parametrize("stall", [None, 0.5])
@pytest.mark.parametrize(("count", "layers"), [(1, 40), (2, 40), (8, 40), (32, 40), (2, 4)])
def test_it_does_not_jump_and_comes_true(count: int, layers: int, stall: float | None) -> None:
    end = followed(Clocked(count), model(layers))[-1][0]
    shown = followed(Clocked(count, None if stall is None else START + stall * (end - START)), model(layers))
    end = shown[-1][0]
    known = [(now, seconds) for now, seconds in shown if seconds is not None]
    assert known and known[0][0] < START + max(30, 0.25 * (end - START)), "nothing is shown for long"
    for (before, first), (now, second) in itertools.pairwise(known):
        jump = abs(second - (first - (now - before)))
        assert jump <= max(2.0, 0.12 * first) * max(1.0, now - before), (before, first, now, second)
    late = [(end - now, seconds) for now, seconds in known if now > START + 0.3 * (end - START)]
    assert all(abs(seconds - truth) < 5 + 0.3 * truth for truth, seconds in late), late


def test_it_says_nothing_before_it_knows() -> None:
    left = TimeLeft(1000)
    assert left.seconds is None and left.rate == 0
    left.advance(10, 30.0)  # how long the first piece took is no rate
    left.advance(10, 31.0)
    assert left.seconds is None and left.rate == 10
    for second in range(32, 40):
        left.advance(10, float(second))
    assert left.seconds == pytest.approx(90)
    left.skip(450)
    left.advance(10, 40.0)
    assert left.rate == pytest.approx(10)  # what needs no work has no rate
    left.skip(440)
    assert left.seconds is None  # there is none left


def test_pieces_that_come_at_the_same_moment() -> None:
    left = TimeLeft(100)
    for _ in range(5):
        left.advance(10, 1.0)
    assert left.seconds is None and left.rate == 0
