"""How the work scales with processes: measured up to the cores there are, computed for more from what is serial.

The model. A job's time on N cores is

    start + max(work / N, N forks, longest unit, parent, busiest file) + end

start: until the first worker works, and what is left of a job once its workers have done all; in seconds, because the
parent imports and reads while the process that workers come from loads the kernels; of a job that converts next to
nothing, and what planning the large one takes. The rest is measured in one process, in processor time, with the output
in memory; a disk is not part of it. work: all that workers do; forks: workers start one after the other while others
work; longest unit: the largest module, which one worker makes, with threads that read, hash and write if it is not
compressed: the busiest of these; parent: the parent's time for all units; busiest file: the writing into one of the
rank files, which Linux lets one process at a time do. Where a part of a model stands for the whole, its files are as
much smaller, so that a rank is spread over as many.
"""

from __future__ import annotations

import os
import shutil
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from tests.jobs.test_reshard import InProcess
from w8a8sc_tool.conversion.parts import DEFAULT_FILE_BYTES
from w8a8sc_tool.io import files
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.sharded_state import RankFileEntry
from w8a8sc_tool.synthesis.models import MODELS
from w8a8sc_tool.synthesis.synthesize import synthesize

from . import measure
from .job import warm
from .start import timed

CORES = (2, 16, 64, 192)
FORK_SECONDS = 0.0007  # of one more fork of a process with the kernels, 90 MiB of memory
MANY = 64  # processes, as many as read ahead


class Clock:
    """Processor seconds of the parts of a job that runs in this process."""

    def __init__(self) -> None:
        self.units: defaultdict[str, float] = defaultdict(float)  # the working thread's
        self.threads: defaultdict[str, defaultdict[int, float]] = defaultdict(lambda: defaultdict(float))  # others'
        self.files: defaultdict[str, float] = defaultdict(float)
        self.first = self.last = 0.0  # when units were first and last at work
        self.task = ""  # the unit at work

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time what runs meanwhile, with its workers in this process."""
        write = files.write_at

        def timed_write(fd: int, path: Path, data: Any, offset: int) -> None:
            started = time.thread_time()
            write(fd, path, data, offset)
            self.files[path.name] += time.thread_time() - started

        with (
            mock.patch("w8a8sc_tool.conversion.conversion.Pool", partial(_TimedWorker, self)),
            mock.patch("w8a8sc_tool.checkpoint.reader.ThreadPoolExecutor", partial(_TimedThreads, self)),
            mock.patch("w8a8sc_tool.conversion.write_behind.ThreadPoolExecutor", partial(_TimedThreads, self)),
            mock.patch.object(files, "write_at", timed_write),
        ):
            yield


class _TimedWorker(InProcess):
    """The only worker of a pool: its thread's time, by unit."""

    def __init__(self, clock: Clock, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._clock = clock

    def call(self, number: int, task: str, method: str, *arguments: Any) -> None:
        clock, started = self._clock, time.thread_time()
        clock.first = clock.first or started
        clock.task = task
        super().call(number, task, method, *arguments)
        clock.last = time.thread_time()
        clock.units[task] += clock.last - started


class _TimedThreads(ThreadPoolExecutor):
    """Threads that work beside it: the time of each, by unit."""

    def __init__(self, clock: Clock, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._clock = clock

    def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
        threads = self._clock.threads[self._clock.task]

        def timed() -> Any:
            started = time.thread_time()
            try:
                return function(*arguments, **keywords)
            finally:
                threads[threading.get_ident()] += time.thread_time() - started

        return super().submit(timed)


def run(rounds: int, json: str | None, folder: str, memory: str, preset: str, times: int) -> None:
    """Times of jobs with one process, two, ... in turns; then the parts, and what the model makes of them.

    times: how many times as many layers and tokens the whole model has as the one measured.
    """
    whole = MODELS[preset]
    model = Path(folder) / f"{preset}-{times}-w8a8s"
    if not model.exists():
        synthesize(model, preset, layers=whole.layers // times, vocabulary=whole.vocabulary // times)
    out = Path(memory) / f"w8a8sc-scaling-{os.getpid()}"
    counts = range(1, len(os.sched_getaffinity(0)) + 1)
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    try:
        for _ in range(rounds):
            for count in counts:
                seconds[count].append(_once(model, out, count)[0])
        parts = {tp: _parts(model, out, tp, times) for tp in (1, 4)}
    finally:
        shutil.rmtree(out, ignore_errors=True)
    rows = [["-j", "job s", "of -j 1"]]
    for count, each in seconds.items():
        rows.append([str(count), measure.seconds_text(each), f"{measure.ratio(each, seconds[1]):.2f}"])
    measure.table(rows)
    measure.table([["TP", *parts[1]]] + [[str(tp), *(f"{v:.2f}" for v in part.values())] for tp, part in parts.items()])
    speedups = {
        tp: {cores: model_seconds(part, 1) / model_seconds(part, cores) for cores in CORES}
        for tp, part in parts.items()
    }
    rows = [["TP", *(f"{cores} cores" for cores in CORES), "what limits 64"]]
    rows += [[str(tp), *(f"{v:.1f}" for v in each.values()), limit(parts[tp], 64)] for tp, each in speedups.items()]
    measure.table(rows)
    measure.save(json, "scaling", {"seconds": seconds, "parts": parts, "speedups": speedups})


def model_seconds(parts: dict[str, float], cores: int) -> float:
    """The model's seconds of a job on so many cores."""
    return parts["start"] + parts["end"] + max(_terms(parts, cores).values())


def limit(parts: dict[str, float], cores: int) -> str:
    """The largest term of the model."""
    terms = _terms(parts, cores) | {"start": parts["start"] + parts["end"]}
    return max(terms, key=lambda name: terms[name])


def _terms(parts: dict[str, float], cores: int) -> dict[str, float]:
    shared = {"work": parts["work"] / cores, "forks": FORK_SECONDS * cores}
    return shared | {name: parts[name] for name in ("longest unit", "parent", "busiest file")}


def _parts(model: Path, out: Path, tp: int, times: int) -> dict[str, float]:
    """What a job consists of; what grows with the model's bytes times `times`."""
    clock = Clock()
    shutil.rmtree(out, ignore_errors=True)
    warm(model)
    started = time.thread_time()
    with clock.running():
        (result,) = compress(model, out, tp=tp, verify=False, processes=MANY, max_file_size=DEFAULT_FILE_BYTES // times)
    ended = time.thread_time()
    working = sum(clock.units.values())
    longest = max(
        max(seconds, *clock.threads[name].values(), 0) * (times if "layers" not in name else 1)
        for name, seconds in clock.units.items()
    )
    return {
        "start": _start(model, out) + clock.first - started,
        "work": (working + sum(sum(each.values()) for each in clock.threads.values())) * times,
        "longest unit": longest,
        "parent": (clock.last - clock.first - working) * times,
        "busiest file": max(clock.files[file.file] * _grows(file, times) for file in result.manifest.rank_files),
        "end": ended - clock.last,
    }


def _grows(file: RankFileEntry, times: int) -> float:
    """How many times as large a file of the whole model is: a layer alone in one would have others beside it there."""
    only_layers = all(".layers." in tensor.name for tensor in file.tensors)
    return min(times, DEFAULT_FILE_BYTES / file.size) if only_layers else times


def _start(model: Path, out: Path) -> float:
    """Seconds of a small job without its workers' work: interpreters, imports, kernels loaded, one worker, its end."""
    tiny = model.with_name("Tiny-w8a8s")
    if not tiny.exists():
        synthesize(tiny, "tiny")
    times = [_once(tiny, out, 1) for _ in range(10)]
    return statistics.median(wall - (last - first) for wall, first, last in times)


def _once(model: Path, out: Path, processes: int) -> tuple[float, float, float]:
    """As `start.timed`."""
    shutil.rmtree(out, ignore_errors=True)
    warm(model)
    return timed(["compress", str(model), "--no-verify", "-q", "-j", str(processes), "-o", str(out)])
