"""How long commands and workers take before they work: processor time and wall time."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from w8a8sc_tool.synthesis.synthesize import synthesize

from . import measure

_MORE_WORKERS = 16
_WORKERS = f"""
import time
from w8a8sc_tool.workers.pool import Pool

def start(count):
    started = time.perf_counter()
    with Pool(count, "w8a8sc_tool.conversion.worker:Converter", [], 0.0, preload=True) as pool:
        for number in pool.idle():
            pool.call(number, "nothing", "hash_sources", [])
        while pool.busy:
            pool.wait()
        return time.perf_counter() - started

print(start(1), start({_MORE_WORKERS}) / {_MORE_WORKERS})
"""
# The command line, which says on standard error when a worker has first and last answered. Nothing is imported sooner
# by that.
_COMMAND = """
import atexit, sys, time
from importlib.machinery import PathFinder

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "w8a8sc_tool.workers.pool":
            return None
        spec = PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            wait = module.Pool.wait
            def timed_wait(*arguments):
                answers = wait(*arguments)
                if answers:
                    times[:] = [*times[:1], time.clock_gettime(time.CLOCK_MONOTONIC)]
                return answers
            module.Pool.wait = timed_wait
        spec.loader.exec_module = exec_module
        return spec

times = []
atexit.register(lambda: print("answered", times[0], times[-1], file=sys.stderr))
sys.meta_path.insert(0, Finder())
from w8a8sc_tool.cli.main import main
main()
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
    with tempfile.TemporaryDirectory() as folder:
        tiny = synthesize(Path(folder) / "Tiny-w8a8s", "tiny")
        jobs = [_compress(tiny) for _ in range(rounds + 1)][1:]
    results["tiny compress"] = jobs
    processor, wall, first = (statistics.median(values) for values in zip(*jobs))
    rows.append(["a tiny compress, -j 1", f"{processor:.2f}", f"{wall:.2f}"])
    rows.append(["its first worker has answered", "", f"{first:.3f}"])
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


def _compress(model: Path) -> tuple[float, float, float]:
    """Processor seconds, seconds, and seconds until a worker has answered, of a small job from its command's start."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall, first, _ = timed(["compress", str(model), "-o", str(model.parent), "--overwrite", "-j", "1", "-q"])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall, first


def timed(arguments: list[str]) -> tuple[float, float, float]:
    """Seconds of a command that has workers: all of it, until one has first answered, and until the last answer."""
    started = time.clock_gettime(time.CLOCK_MONOTONIC)
    ran = subprocess.run([sys.executable, "-c", _COMMAND, *arguments], check=True, capture_output=True, text=True)
    wall = time.clock_gettime(time.CLOCK_MONOTONIC) - started
    (answered,) = (line.split()[1:] for line in ran.stderr.splitlines() if line.startswith("answered"))
    first, last = (float(value) - started for value in answered)
    return wall, first, last


def _start_workers() -> tuple[float, float]:
    """Seconds until the first worker of a process answers, and for each of many that come later."""
    ran = subprocess.run([sys.executable, "-c", _WORKERS], check=True, capture_output=True, text=True)
    first, further = map(float, ran.stdout.split())
    return first, further
