"""Whole conversions in turns with a plain copy of as many bytes, and with another version of this project."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from w8a8sc_tool.synthesis.synthesize import synthesize

from . import measure

BLOCK = 8 << 20
ROOT = Path(__file__).resolve().parents[2]
HEADINGS = ["TP", "-j", "version", "processor s", "with read-back", "wall / copy's", "read-back / without", "peak MiB"]


def run(
    rounds: int,
    json: str | None,
    folder: str,
    layers: int,
    vocabulary: int,
    sizes: list[int],
    processes: list[int],
    against: Path | None,
) -> None:
    """Rows per TP size and -j, one per version; every round also times the plain copy."""
    work = Path(folder).resolve()
    model = work / f"Bench{layers}-{vocabulary}-w8a8s"
    if not model.exists():
        synthesize(model, "qwen3-8b", layers=layers, vocabulary=vocabulary)
    versions = {"this": ROOT} | ({"other": against} if against is not None else {})
    for root in versions.values():  # no job is to compile kernels
        subprocess.run(
            [sys.executable, "-m", "w8a8sc_tool", "compile"], check=True, cwd=root, stdout=subprocess.DEVNULL
        )
    rows, results = [HEADINGS], []
    for tp in sizes:
        for number in processes:
            runs = one(model, work / "out", tp, number, rounds, versions)
            results.append({"tp": tp, "processes": number, **runs})
            for version in versions:
                rows.append([str(tp), str(number), version, *_figures(runs, version)])
                print("|", " | ".join(rows[-1]), "|", file=sys.stderr, flush=True)
    measure.table(rows)
    for runs in results if against is not None else []:
        ratio = measure.ratio(_column(runs, "other with read-back", 0), _column(runs, "this with read-back", 0))
        print(f"TP {runs['tp']}, -j {runs['processes']}: {ratio:.2f} of the other version's processor time\n")
    measure.save(json, "job", {"layers": layers, "vocabulary": vocabulary, "jobs": results})


def _column(runs: dict[str, Any], name: str, column: int) -> list[float]:
    """Processor seconds (0) or seconds (1) of the rounds."""
    return [each[column] for each in runs[name]]


def _figures(runs: dict[str, Any], version: str) -> list[str]:
    plain, checked = version, f"{version} with read-back"
    walls = {name: _column(runs, name, 1) for name in (plain, checked, "copy")}
    return [
        measure.seconds_text(_column(runs, plain, 0)),
        measure.seconds_text(_column(runs, checked, 0)),
        f"{measure.ratio(walls['copy'], walls[plain]):.2f}",
        f"{measure.ratio(walls[plain], walls[checked]):.2f}",
        f"{max(_column(runs, checked, 2)) / 2**20:.0f}",
    ]


def one(model: Path, out: Path, tp: int, processes: int, rounds: int, versions: dict[str, Path]) -> dict[str, Any]:
    """By name of what takes turns, for each round: processor seconds, seconds, peak bytes of memory."""
    command = [sys.executable, "-m", "w8a8sc_tool", "compress", str(model), "--tp", str(tp), "-q"]
    command += ["-j", str(processes), "-o", str(out)]
    runs: dict[str, Any] = {"copy": []}
    written = 0
    for _ in range(rounds):
        for version, root in versions.items():
            for suffix, options in ((" with read-back", []), ("", ["--no-verify"])):
                _clear(out, model)
                before = children_seconds()
                peak = measure.Peak([*command, *options], root)
                figures = (children_seconds() - before, peak.seconds, peak.bytes)
                runs.setdefault(version + suffix, []).append(figures)
                written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        _clear(out, model)
        runs["copy"].append(_copy(model, out.with_name("copy"), written))
    shutil.rmtree(out, ignore_errors=True)
    return runs | {"read": sum(path.stat().st_size for path in model.iterdir()), "written": written}


def _clear(out: Path, model: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    warm(model)


def children_seconds() -> float:
    """Processor seconds of all processes that have been waited for, theirs included."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def warm(model: Path) -> None:
    """Have the source in the page cache."""
    block = bytearray(BLOCK)
    for path in model.glob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.readinto(block):
                pass


def _copy(model: Path, target: Path, written: int) -> tuple[float, float, int]:
    """Read every byte of the source and write `written` of them, in 8 MiB blocks, with fsync: as `one`'s figures."""
    sources = sorted(model.glob("*.safetensors"))
    share = written / sum(path.stat().st_size for path in sources)
    block = bytearray(BLOCK)
    started, processor = time.perf_counter(), time.process_time()
    done = seen = 0
    with target.open("wb", buffering=0) as output:
        for path in sources:
            with path.open("rb", buffering=0) as file:
                while count := file.readinto(block):
                    seen += count
                    size = min(count, int(seen * share) - done)
                    output.write(memoryview(block)[:size])
                    done += size
        os.fsync(output.fileno())
    figures = (time.process_time() - processor, time.perf_counter() - started, BLOCK)
    target.unlink()
    return figures
