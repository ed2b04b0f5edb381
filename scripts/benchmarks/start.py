"""How long commands and workers take before they work: processor time and wall time."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from . import measure

_MORE_WORKERS = 16
_WORKERS = f"""
import time
from w8a8sc_tool.workers.pool import Pool

def start(count):
    started = time.perf_counter()
    with Pool(count, "w8a8sc_tool.conversion.worker:Converter", [], 0.0) as pool:
        for number in pool.idle():
            pool.call(number, "nothing", "hash_sources", [])
        while pool.busy:
            pool.wait()
        return time.perf_counter() - started

print(start(1), start({_MORE_WORKERS}) / {_MORE_WORKERS})
"""


def run(rounds: int, json: str | None, model: str | None) -> None:
    commands = {"--help": ["--help"], "inspect of a missing path": ["inspect", "/nonexistent"]}
    if model:
        commands[f"inspect {Path(model).name}"] = ["inspect", model]
    rows = [["command", "processor s", "wall s"]]
    results: dict[str, Any] = {}
    for name, arguments in commands.items():
        times = [_once(arguments) for _ in range(rounds + 1)][1:]
        results[name] = times
        rows.append([name, *(f"{statistics.median(values):.2f}" for values in zip(*times))])
    workers = [_start_workers() for _ in range(rounds + 1)][1:]
    results["workers"] = workers
    for name, seconds in zip(("first worker of a process", "every further worker"), zip(*workers)):
        rows.append([name, "", f"{statistics.median(seconds):.3f}"])
    measure.table(rows)
    measure.save(json, "start", results)


def _once(arguments: list[str]) -> tuple[float, float]:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([str(Path(sys.executable).parent / "w8a8sc"), *arguments], check=False, capture_output=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def _start_workers() -> tuple[float, float]:
    """Seconds until the first worker of a process answers, and for each of many that come later."""
    ran = subprocess.run([sys.executable, "-c", _WORKERS], check=True, capture_output=True, text=True)
    first, further = map(float, ran.stdout.split())
    return first, further
