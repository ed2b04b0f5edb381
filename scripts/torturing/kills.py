"""Kills at random moments: the parent or a worker, by the signals that people and kernels send."""

from __future__ import annotations

import os
import random
import signal
import time

from .stage import Part, Stage

# What is killed, by what, and the exit codes that may follow: 0 if it had finished before.
WAYS = (
    ("parent", signal.SIGKILL, {-signal.SIGKILL, 0}),
    ("parent", signal.SIGTERM, {143, -signal.SIGTERM, 0}),
    ("parent", signal.SIGINT, {130, -signal.SIGINT, 0}),
    ("worker", signal.SIGKILL, {1, 0}),
)
_LONGEST_PERIOD = 8.0
_STARTED = 0.5  # seconds


def run(stage: Stage, rounds: int, seconds: float | None, seed: int) -> Part:
    """Kill the same command again and again until it gets through; compare; start afresh."""
    part = Part("kills")
    chance = random.Random(seed)
    started = time.monotonic()
    ran = stage.run(stage.compress("out"), {"sync": 0.02})
    whole = min(_LONGEST_PERIOD, time.monotonic() - started)
    if ran.code:
        part.finding(f"an undisturbed run fails: {ran.stderr[-300:]}")
    stage.check_result(part, "undisturbed", "out")
    in_a_row = 0
    while part.tried < rounds if seconds is None else time.monotonic() - started < seconds:
        target, number, codes = chance.choice(WAYS)
        if in_a_row == 0:
            stage.finish(part, f"kill {part.tried}", "out")
        in_a_row = (in_a_row + 1) % chance.choice((2, 3, 5))
        _kill(stage, part, target, number, codes, chance.uniform(0, whole))
    stage.finish(part, "the last kill", "out")
    return part


def _kill(stage: Stage, part: Part, target: str, number: int, codes: set[int], after: float) -> None:
    case = f"{signal.Signals(number).name} to the {target} after {after:.3f} s"
    process = stage.start(stage.compress("out"), {"sync": 0.02})
    time.sleep(after)
    victim = process.pid
    if target == "worker":
        others = [pid for pid in stage.processes() if pid != process.pid]
        victim = others[part.tried % len(others)] if others else process.pid
        codes = codes if others else codes | {-number}
    try:
        os.kill(victim, number)
    except ProcessLookupError:
        part.count("too late")
    _, stderr = process.communicate(timeout=60)
    part.tried += 1
    part.count(f"{target} {signal.Signals(number).name}")
    # While the interpreter itself is still starting, it says what it likes.
    starting = after < _STARTED or "the site module" in stderr
    if not starting and (process.returncode not in codes or "Traceback" in stderr):
        part.finding(f"{case}: exit code {process.returncode}: {stderr[-300:]}")
    for _ in range(50):
        if not stage.processes():
            break
        time.sleep(0.05)
    else:
        part.finding(f"{case}: workers outlive their parent")
    stage.nothing_half_done(part, case, "out")
