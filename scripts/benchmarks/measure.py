"""Timing things side by side: in turns, several rounds, so that a busy machine disturbs all of them alike."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def in_turns(
    rounds: int, *, clock: Callable[[], float] = time.perf_counter, **tasks: Callable[[], Any]
) -> dict[str, list[float]]:
    """Seconds of each task in each round; every task runs once before, unmeasured.

    clock: `time.thread_time` for what one thread computes, so that other processes do not count.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            started = clock()
            task()
            if number:
                times[name].append(clock() - started)
    return times


def ratio(faster: Sequence[float], slower: Sequence[float]) -> float:
    """How many times as fast, from the seconds of two tasks in the same rounds: the median of the rounds' ratios."""
    return statistics.median(b / a for a, b in zip(faster, slower))


def speeds(nbytes: int, seconds: Sequence[float]) -> tuple[float, float, float]:
    """MB/s: lowest, median, highest."""
    rates = sorted(nbytes / 1e6 / value for value in seconds)
    return rates[0], statistics.median(rates), rates[-1]


def as_text(values: tuple[float, float, float]) -> str:
    """Median, with lowest and highest behind it."""
    return f"{values[1]:.0f} ({values[0]:.0f}-{values[2]:.0f})"


def seconds_text(seconds: Sequence[float]) -> str:
    """Median, with lowest and highest behind it."""
    return f"{statistics.median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f})"


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows, the first of which are headings, as Markdown."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |", flush=True)
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print(flush=True)


def machine() -> dict[str, Any]:
    """What figures depend on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"processor": model, "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}


def save(path: str | None, name: str, results: Any) -> None:
    """Write results for a later comparison, if a file was asked for."""
    if path:
        document = {"benchmark": name, "machine": machine(), "results": results}
        Path(path).write_text(json.dumps(document, indent=1) + "\n")


class Peak:
    """Runs a command and watches the memory of its process tree: the sum of Pss_Anon and Pss_Shmem, at 25 Hz."""

    def __init__(self, command: Sequence[str], folder: Path | None = None) -> None:
        """folder: the one to run it in; `python -m` takes packages from there before all others."""
        self.bytes = 0
        started = time.perf_counter()
        streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=folder, **streams)
        errors: list[str] = []
        reader = threading.Thread(target=lambda: errors.append(process.stderr.read() if process.stderr else ""))
        reader.start()
        while process.poll() is None:
            self.bytes = max(self.bytes, sum(map(_memory, _tree(process.pid))))
            time.sleep(0.04)
        self.seconds = time.perf_counter() - started
        reader.join()
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{errors[0]}")


def _tree(pid: int) -> list[int]:
    pids = [pid]
    for process in pids:
        try:
            for task in Path(f"/proc/{process}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # it ended meanwhile
    return pids


def _memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
