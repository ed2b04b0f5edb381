"""The codec against what else could be done with the same bytes: speed on one thread, and size."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import zstandard

from tests.codec import reference
from w8a8sc_tool.backends.msmodelslim.installed import executor_path, installed_executor
from w8a8sc_tool.codec import decode_matrix, encode_matrix
from w8a8sc_tool.codec.tables import FRACTAL_COLUMNS, FRACTAL_ROWS

from . import measure, weights

SHAPE = (2048, 4096)


def run(rounds: int, json: str | None, executor: Path | None) -> None:
    """Print one table of speeds and one of sizes; executor: a program that msmodelslim would start for each tensor."""
    if executor is None and installed_executor() == "vendor":
        executor = executor_path()
    speed = [["weights", "what", "encode MB/s", "decode MB/s", "of zstd -1"]]
    size = [["weights", "W8A8SC", "W16A16SC coding", "order-0 entropy", "zstd -1", "zstd -3", "lz4"]]
    results: dict[str, Any] = {}
    for name, weight in weights.distributions(SHAPE):
        speeds, sizes = one(weight, rounds)
        if executor is not None:
            seconds = executor_seconds(executor, weight, rounds)
            speeds["msmodelslim's executor"] = (measure.speeds(weight.nbytes, seconds), None)
        results[name] = {"MB/s": speeds, "size": sizes}
        zstd = speeds["zstd -1"]
        for what, (encoding, decoding) in speeds.items():
            ratio = f"{encoding[1] / zstd[0][1]:.2f}, {decoding[1] / zstd[1][1]:.2f}" if decoding else ""
            speed.append([name, what, measure.told(encoding), measure.told(decoding) if decoding else "", ratio])
        size.append([name, *(f"{sizes[key]:.3f}" for key in ("low", "high", "entropy", "zstd -1", "zstd -3", "lz4"))])
    measure.table(speed)
    measure.table(size)
    measure.save(json, "codec", results)


def executor_seconds(executor: Path, weight: weights.Int8, rounds: int) -> list[float]:
    """Seconds to have a program compress a weight as msmodelslim would: a process and files for each tensor."""
    n, k = weight.shape
    n1, k1 = n // FRACTAL_ROWS, k // FRACTAL_COLUMNS
    with tempfile.TemporaryDirectory() as folder:
        source, *results = (Path(folder) / name for name in ("in", "out", "index", "info"))
        fractals = weight.reshape(n1, FRACTAL_ROWS, k1, FRACTAL_COLUMNS).transpose(2, 0, 1, 3)
        command = [str(executor), str(k1), str(n1), *"11100", *map(str, (source, *results))]

        def compress() -> None:
            source.write_bytes(fractals.tobytes())
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
            for path in results:
                path.read_bytes()

        return measure.in_turns(rounds, executor=compress)["executor"]


def one(weight: weights.Int8, rounds: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Speeds of encoding and decoding as (lowest, median, highest), and sizes relative to the input."""
    data = weight.tobytes()
    low, high = encode_matrix(weight), encode_matrix(weight, sparsity="high")
    out = np.empty_like(weight)
    compressors = {f"zstd -{level}": zstandard.ZstdCompressor(level=level) for level in (1, 3)}
    packed = {name: compressor.compress(data) for name, compressor in compressors.items()}
    packed["lz4"] = lz4.frame.compress(data)
    unzstd = zstandard.ZstdDecompressor()
    encoders: dict[str, Any] = {
        "low": lambda: encode_matrix(weight),
        "high": lambda: encode_matrix(weight, sparsity="high"),
        "memcpy": lambda: np.copyto(out, weight),
        **{name: lambda c=compressor: c.compress(data) for name, compressor in compressors.items()},
        "lz4": lambda: lz4.frame.compress(data),
    }
    decoders: dict[str, Any] = {
        "low": lambda: decode_matrix(low.weight, low.index, low.info, out=out),
        "high": lambda: decode_matrix(high.weight, high.index, high.info, out=out),
        **{name: lambda p=packed[name]: unzstd.decompress(p, max_output_size=len(data)) for name in compressors},
        "lz4": lambda: lz4.frame.decompress(packed["lz4"]),
    }
    encoding = measure.in_turns(rounds, **encoders)
    decoding = measure.in_turns(rounds, **decoders)
    names = {"low": "W8A8SC", "high": "W16A16SC coding"}
    found: dict[str, Any] = {
        names.get(key, key): (
            measure.speeds(len(data), encoding[key]),
            measure.speeds(len(data), decoding[key]) if key in decoding else None,
        )
        for key in encoding
    }
    sample = weight[:128, :256]  # the plain encoder takes a second for a few tiles
    plain = measure.in_turns(1, plain=lambda: reference.encode(sample))["plain"]
    found["plain encoder"] = (measure.speeds(sample.size, plain), None)
    sizes = {name: len(value) / len(data) for name, value in packed.items()}
    sizes |= {"low": low.nbytes / len(data), "high": high.nbytes / len(data), "entropy": weights.tile_entropy(weight)}
    return found, sizes
