"""How long commands take before they work: processor time and wall time."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from . import measure


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
    measure.table(rows)
    measure.save(json, "start", results)


def _once(arguments: list[str]) -> tuple[float, float]:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([str(Path(sys.executable).parent / "w8a8sc"), *arguments], check=False, capture_output=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall
