"""How the work scales with processes while no disk is in the way: source in the page cache, output in memory."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from w8a8sc_tool.synthesis.synthesize import synthesize

from . import measure
from .job import warm


def run(rounds: int, json: str | None, folder: str, memory: str, layers: int) -> None:
    """A row per number of processes, in turns. No FLOAT layers and a small vocabulary: those are for the disk."""
    model = Path(folder) / f"Scaling{layers}-w8a8s"
    if not model.exists():
        synthesize(model, "qwen3-8b", layers=layers, vocabulary=4096, types=[])
    out = Path(memory) / f"w8a8sc-scaling-{os.getpid()}"
    counts = range(1, len(os.sched_getaffinity(0)) + 1)
    times: dict[int, list[float]] = {count: [] for count in counts}
    try:
        for _ in range(rounds):
            for count in counts:
                times[count].append(_once(model, out, count))
    finally:
        shutil.rmtree(out, ignore_errors=True)
    rows = [["-j", "job s", "of -j 1"]]
    for count, seconds in times.items():
        ratio = statistics.median(times[1]) / statistics.median(seconds)
        rows.append([str(count), measure.told_seconds(seconds), f"{ratio:.2f}"])
    measure.table(rows)
    measure.save(json, "scaling", {"layers": layers, "seconds": times})


def _once(model: Path, out: Path, processes: int) -> float:
    shutil.rmtree(out, ignore_errors=True)
    warm(model)
    command = [str(Path(sys.executable).parent / "w8a8sc"), "compress", str(model), "--no-verify", "-q"]
    started = time.perf_counter()
    subprocess.run([*command, "-j", str(processes), "-o", str(out)], check=True)
    return time.perf_counter() - started
