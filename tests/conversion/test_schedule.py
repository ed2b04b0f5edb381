"""The schedule alone, with workers that are a list: order of turns, what waits, who writes what he made."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

from w8a8sc_tool.conversion import schedule as schedule_module
from w8a8sc_tool.conversion.messages import ModuleResult, Unit, UnitResult
from w8a8sc_tool.conversion.schedule import Made, Schedule, Turn, Written
from w8a8sc_tool.io.safetensors import TensorInfo
from w8a8sc_tool.planning import PlannedModule


class Planned:
    """As much of a planned module as a schedule looks at."""

    def __init__(self, source_bytes: int, compress: bool) -> None:
        self.source_bytes = source_bytes
        self.compress = compress


def unit(name: str, source_bytes: int = 100, *, compress: bool = True) -> Unit:
    return Unit(name, {0: cast(PlannedModule, Planned(source_bytes, compress))}, {0: 0}, {})


class Workers:
    """Workers that answer in an order that a seed decides, and remember what they were given."""

    def __init__(self, count: int, seed: int, held: int = 10) -> None:
        self.calls: list[tuple[int, str, str]] = []
        self.most_held = 0
        self._held = held
        self._holding: dict[str, int] = {}
        self._tasks: dict[int, tuple[str, Any]] = {}
        self._count = count
        self._random = random.Random(seed)

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    def idle(self) -> list[int]:
        return [number for number in range(self._count) if number not in self._tasks]

    def call(self, number: int, task: str, method: str, *arguments: object) -> None:
        assert number not in self._tasks
        self.calls.append((number, method, task))
        self._tasks[number] = (method, arguments[0])

    def wait(self) -> list[tuple[int, Any]]:
        number = self._random.choice(sorted(self._tasks))
        method, argument = self._tasks.pop(number)
        if method == "write":
            assert self._holding.pop(argument) == number, "another worker holds it"
            return [(number, {0: {(0, argument): "hash"}})]
        made = cast(Unit, argument)
        if not made.compress:
            return [(number, UnitResult({0: ModuleResult({}, {})}, {}))]
        self._holding[made.name] = number
        self.most_held = max(self.most_held, len(self._holding))
        variable = ((TensorInfo(made.name, "I8", (self._held,), 0, self._held),),)
        return [(number, UnitResult({0: ModuleResult({}, {}, variable, (0.5,))}, {}))]


def run(units: list[Unit], workers: Workers) -> list[tuple[str, str]]:
    schedule = Schedule(units, workers)
    events = []
    for event in schedule:
        events.append((type(event).__name__, event.unit.name))
        if isinstance(event, Turn):
            schedule.write(event.unit, {0: {(0, event.unit.name): 0}})
        assert isinstance(event, Made | Turn | Written)
    return events


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [1, 2, 5])
def test_turns_come_in_the_order_of_the_plan_whoever_is_faster(seed: int, count: int) -> None:
    units = [unit(f"unit {number}", compress=number % 3 > 0) for number in range(17)]
    events = run(units, Workers(count, seed))
    compressed = [one.name for one in units if one.compress]
    assert [name for kind, name in events if kind == "Turn"] == compressed
    assert sorted(name for kind, name in events if kind == "Made") == sorted(one.name for one in units)
    assert sorted(name for kind, name in events if kind == "Written") == sorted(compressed)
    for name in compressed:
        assert events.index(("Made", name)) < events.index(("Turn", name)) < events.index(("Written", name))


@pytest.mark.parametrize("seed", range(10))
def test_what_waits_is_bounded(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule_module, "BYTES_IN_FLIGHT", 25)
    workers = Workers(4, seed, held=10)
    run([unit(f"unit {number}") for number in range(40)], workers)
    assert workers.most_held <= 3 + 4  # until 25 bytes are exceeded, and one more per worker in the making


def test_many_workers_begin_with_several_that_are_not_compressed() -> None:
    units = [unit(f"plain {number}", number, compress=False) for number in range(5)]
    workers = Workers(12, 0)
    run(units + [unit(f"unit {number}") for number in range(30)], workers)
    first = [name for _, _, name in workers.calls[:12]]
    assert first == ["plain 4", "plain 3", "plain 2", *(f"unit {number}" for number in range(9))]


@pytest.mark.parametrize("seed", range(10))
def test_one_of_few_workers_does_what_is_not_compressed(seed: int) -> None:
    """As long as there is anything to compress; the largest first."""
    units = [unit(f"plain {number}", number, compress=False) for number in range(5)]
    units += [unit(f"unit {number}") for number in range(30)]
    workers = Workers(3, seed)
    run(units, workers)
    made = [name for _, method, name in workers.calls if method == "make"]
    assert [name for name in made if name.startswith("plain")] == [f"plain {number}" for number in (4, 3, 2, 1, 0)]
    assert made[1].startswith("unit")


def test_nothing_to_do() -> None:
    assert run([], Workers(2, 0)) == []


def test_what_is_left_at_the_end_is_writing() -> None:
    """Once all is made, and not before, workers do nothing but write."""
    units = [unit(f"unit {number}", compress=number % 4 > 0) for number in range(12)]
    workers = Workers(3, seed=1)
    schedule = Schedule(units, workers)
    made, only_writes = 0, []
    for event in schedule:
        made += isinstance(event, Made)
        if isinstance(event, Turn):
            schedule.write(event.unit, {0: {(0, event.unit.name): 0}})
        only_writes.append(schedule.only_writes)
        assert not schedule.only_writes or made == len(units)
    assert True in only_writes and only_writes[-1] is False
