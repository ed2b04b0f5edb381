"""Whole conversions against the limits of the machine: its disk, and the codec on its cores."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from w8a8sc_tool import inspect
from w8a8sc_tool.codec import encode_matrix
from w8a8sc_tool.io import hashing
from w8a8sc_tool.synthesis.synthesize import synthesize

from . import measure, weights

BLOCK = 8 << 20


def run(rounds: int, json: str | None, folder: str, layers: list[int], sizes: list[int], processes: list[int]) -> None:
    """A table row per conversion: layers, TP size, -j; every round also times the plain copy."""
    rows = [
        ["layers", "TP", "-j", "job s", "with read-back s", "disk s", "codec and hash s", "job / limit", "peak MiB"]
    ]
    results = []
    place = Path(folder)
    rates = _rates(rounds)
    for count in layers:
        model = place / f"Bench{count}-w8a8s"
        if not model.exists():
            synthesize(model, "qwen3-8b", layers=count)
        for tp in sizes:
            for number in processes:
                found = one(model, place / "out", tp, number, rounds, rates)
                results.append({"layers": count, "tp": tp, "processes": number, **found})
                limit = max(statistics.median(found["disk"]), found["codec"])
                rows.append(
                    [str(count), str(tp), str(number)]
                    + [
                        measure.told_seconds(found["job"]),
                        f"{found['verified']:.1f}",
                        measure.told_seconds(found["disk"]),
                        f"{found['codec']:.1f}",
                    ]
                    + [f"{statistics.median(found['job']) / limit:.2f}", f"{found['peak'] / 2**20:.0f}"]
                )
                print("|", " | ".join(rows[-1]), "|", file=sys.stderr, flush=True)
    measure.table(rows)
    measure.save(json, "job", {"rates": rates, "jobs": results})


def one(model: Path, out: Path, tp: int, processes: int, rounds: int, rates: dict[str, float]) -> dict[str, Any]:
    """Seconds of a conversion and of a copy of as many bytes, in turns."""
    command = [str(Path(sys.executable).parent / "w8a8sc"), "compress", str(model), "--tp", str(tp), "-q"]
    command += ["-j", str(processes), "-o", str(out)]
    found: dict[str, Any] = {"job": [], "disk": [], "peak": 0}
    read = sum(path.stat().st_size for path in model.iterdir())
    for number in range(rounds + 1):
        shutil.rmtree(out, ignore_errors=True)
        os.sync()
        warm(model)
        last = number == rounds
        run = measure.Peak(command if last else [*command, "--no-verify"])
        if last:
            found["verified"] = run.seconds
            break
        found["job"].append(run.seconds)
        found["peak"] = max(found["peak"], run.bytes)
        written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        shutil.rmtree(out)
        os.sync()
        warm(model)
        found["disk"].append(_copy(model, out.with_name("copy"), written))
    shutil.rmtree(out, ignore_errors=True)
    compressed = sum(row.bytes for row in inspect(model).modules if row.linear and row.quantization == "W8A8S")
    cores = min(processes, len(os.sched_getaffinity(0)))
    found["codec"] = (compressed / rates["encode"] + (read + written) / rates["hash"]) / cores
    return found | {"read": read, "written": written}


def _rates(rounds: int) -> dict[str, float]:
    """Bytes per second of one thread."""
    weight = weights.recipe(2048, "qwen3-8b")
    times = measure.in_turns(
        rounds + 2,
        encode=lambda: encode_matrix(weight),
        hash=lambda: hashing.of_bytes(memoryview(weight.reshape(-1).view(np.uint8))),
    )
    return {name: weight.nbytes / statistics.median(seconds) for name, seconds in times.items()}


def warm(model: Path) -> None:
    """Have the source in the page cache."""
    block = bytearray(BLOCK)
    for path in model.glob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.readinto(block):
                pass


def _copy(model: Path, target: Path, written: int) -> float:
    """Seconds to read every byte of the source and to write `written` of them, in 8 MiB blocks, with fsync."""
    sources = sorted(model.glob("*.safetensors"))
    share = written / sum(path.stat().st_size for path in sources)
    block = bytearray(BLOCK)
    started = time.perf_counter()
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
    seconds = time.perf_counter() - started
    target.unlink()
    return seconds
