"""Power cuts: a run's file operations are recorded, and from every prefix that a crash could leave, a run goes on."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

from .disk import Disk, Operation, read_log
from .stage import Part, Stage, digests


def run(stage: Stage, rounds: int, seconds: float | None, seed: int) -> Part:
    """rounds: how many crash states to try; they are drawn from all of them, in the order of the seed."""
    part = Part("crashes")
    started = time.monotonic()
    states = [(scenario, cut, kind) for scenario in _SCENARIOS for cut, kind in _states(stage, part, scenario)]
    random.Random(seed).shuffle(states)
    part.count("states there are", len(states))
    for scenario, cut, kind in states:
        if part.tried >= rounds if seconds is None else time.monotonic() - started >= seconds:
            break
        _SCENARIOS[scenario](stage, part, _recorded(stage, scenario)[:cut], cut, kind, seed)
        part.tried += 1
        part.count(f"{scenario}, {_KINDS[kind]} left")
    return part


_KINDS = ("synced bytes", "everything", "parts")
_logs: dict[str, list[Operation]] = {}


def _states(stage: Stage, part: Part, scenario: str) -> list[tuple[int, int]]:
    operations = _recorded(stage, scenario)
    part.count(f"operations in {scenario}", len(operations))
    return [(cut, kind) for cut in range(len(operations) + 1) for kind in range(len(_KINDS))]


def _recorded(stage: Stage, scenario: str) -> list[Operation]:
    """The operations of a scenario's run, which starts from what _before makes."""
    if scenario not in _logs:
        _before(stage, scenario)
        log = stage.folder / f"{scenario.replace(' ', '-')}.log"
        ran = stage.run(stage.compress("crash", *_options(scenario)), {"record": str(log), "sync": 0.02})
        if ran.code != 0:
            raise SystemExit(f"recording failed: {ran.stderr}")
        shutil.rmtree(stage.folder / "crash")
        _logs[scenario] = read_log(log)
    return _logs[scenario]


def _options(scenario: str) -> list[str]:
    return ["--overwrite"] if scenario == "replacing" else []


def _before(stage: Stage, scenario: str) -> None:
    """What is there before the run: nothing, or other directories in the way."""
    (stage.folder / "crash").mkdir()
    if scenario == "replacing":
        older = stage.folder / "older"
        if not older.exists():
            ran = stage.run(stage.compress("older", "--keep", "model.layers.0.*"))
            if ran.code != 0:
                raise SystemExit(f"preparing failed: {ran.stderr}")
        shutil.rmtree(stage.folder / "crash")
        shutil.copytree(older, stage.folder / "crash")


def _image(stage: Stage, scenario: str, operations: list[Operation], kind: int, seed: int) -> None:
    """Put what a crash after these operations leaves in the place of the output."""
    _before(stage, scenario)
    disk = Disk(stage.folder / "crash")
    for operation in operations:
        disk.apply(operation)
    shutil.rmtree(stage.folder / "crash")
    list(disk.images(seed))[kind][1](stage.folder / "crash")


def _new(stage: Stage, part: Part, operations: list[Operation], cut: int, kind: int, seed: int) -> None:
    case = f"crash before operation {cut} of a new conversion, {_KINDS[kind]} left"
    _image(stage, "new", operations, kind, seed + cut)
    stage.nothing_half_done(part, case, "crash")
    stage.finish(part, case, "crash")


def _replacing(stage: Stage, part: Part, operations: list[Operation], cut: int, kind: int, seed: int) -> None:
    case = f"crash before operation {cut} of a replacement, {_KINDS[kind]} left"
    _image(stage, "replacing", operations, kind, seed + cut)
    for tp, expected in stage.references.items():
        target = stage.target("crash", tp)
        older = digests(stage.target("older", tp))
        directories = [path for path in (target, Path(f"{target}.replaced")) if path.is_dir()]
        if not any(digests(path) in (older, expected) for path in directories):
            part.finding(f"{case}: neither the old nor the new directory of TP {tp} is there whole")
        if target.is_dir() and digests(target) not in (older, expected):
            part.finding(f"{case}: TP {tp} is at its place and not complete")
    stage.finish(part, case, "crash", "--overwrite")


_SCENARIOS = {"new": _new, "replacing": _replacing}
