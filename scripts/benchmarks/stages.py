"""Every stage that a byte of a checkpoint goes through, alone, on one thread, from and to memory or the page cache."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from w8a8sc_tool.checkpoint import FileTensor
from w8a8sc_tool.checkpoint.reader import SourceReader
from w8a8sc_tool.checkpoint.values import to_float16
from w8a8sc_tool.codec import decode_matrix, encode_matrix
from w8a8sc_tool.io import hashing

from . import measure, steps, weights

ROWS = 2048
BLOCK = 8 << 20


def run(rounds: int, json: str | None, folder: str) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        tasks = _tasks(Path(scratch))
        times = measure.in_turns(rounds, clock=time.thread_time, **{name: task for name, (task, _) in tasks.items()})
        speeds = {name: measure.speeds(tasks[name][1], seconds) for name, seconds in times.items()}
    rows = [["stage", "MB/s of its input", "of encoding"]]
    rows += [[name, measure.as_text(value), f"{value[1] / speeds['encode'][1]:.1f}"] for name, value in speeds.items()]
    measure.table(rows)
    measure.save(json, "stages", {"stages": speeds, "steps": steps.run(rounds)})


def _tasks(folder: Path) -> dict[str, tuple[Callable[[], Any], int]]:
    weight = weights.recipe(ROWS, "qwen3-8b")
    encoded = encode_matrix(weight)
    incompressible = np.random.default_rng(0).integers(-128, 128, weight.shape).astype(np.int8)
    path = folder / "source"
    path.write_bytes(weight.tobytes())
    source = FileTensor("weight", str(path), weight.nbytes, "I8", weight.shape, 0, weight.nbytes)
    bits = np.random.default_rng(0).normal(size=weight.nbytes // 2).astype(np.float32).view(np.uint32) >> 16
    bfloat16 = bits.astype(np.uint16)
    halves = np.empty_like(weight[:, : weight.shape[1] // 2])
    fd = os.open(folder / "target", os.O_RDWR | os.O_CREAT)
    out = np.empty_like(weight)

    def read() -> None:
        reader = SourceReader()
        reader.read_rows(source, 0, len(weight))
        reader.close()

    def write() -> None:
        for begin in range(0, weight.nbytes, BLOCK):
            os.pwrite(fd, weight.reshape(-1)[begin : begin + BLOCK].data, begin)

    return {
        "read from the page cache and hash": (read, weight.nbytes),
        "hash": (lambda: hashing.of_bytes(weight.reshape(-1).view(np.uint8).data), weight.nbytes),
        "cut columns (one of two ranks)": (lambda: np.copyto(halves, weight[:, : weight.shape[1] // 2]), halves.nbytes),
        "bfloat16 to float16": (lambda: to_float16(bfloat16, "BF16", source), bfloat16.nbytes),
        "rows to tiles, stored raw (bypass)": (lambda: encode_matrix(incompressible), weight.nbytes),
        "encode": (lambda: encode_matrix(weight), weight.nbytes),
        "decode": (lambda: decode_matrix(encoded.weight, encoded.index, encoded.info, out=out), weight.nbytes),
        "write to the page cache": (write, weight.nbytes),
    }
