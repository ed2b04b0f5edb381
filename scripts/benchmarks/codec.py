"""The codec against what else could be done with the same bytes: speed on one thread, and size."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import lz4.frame
import numpy as np
import zstandard

from tests.codec.plain_kernel import encode_plainly
from w8a8sc_tool.backends.msmodelslim.installed import executor_path, installed_executor
from w8a8sc_tool.codec import decode_matrix, encode_matrix
from w8a8sc_tool.codec.format import FRACTAL_COLUMNS, FRACTAL_ROWS
from w8a8sc_tool.codec.kernel_cache import CACHE_VARIABLE

from . import measure, weights

SHAPE = (2048, 4096)
EXECUTOR = "msmodelslim's executor"
OTHER = {"W8A8SC": "W8A8SC, other version", "W16A16SC coding": "W16A16SC coding, other version"}


def run(rounds: int, json: str | None, executor: Path | None, against: Path | None) -> None:
    """Print tables of ratios of speeds, of speeds and of sizes.

    executor: what msmodelslim would start per tensor; against: a checkout of another version of this project.
    """
    if executor is None and installed_executor() == "vendor":
        executor = executor_path()
    version = None if against is None else codec_of(against)
    ratios = [["weights", "coding", "encode / plain coder", "/ zstd -1", "/ lz4", "decode / zstd -1", "/ lz4"]]
    versions = [["weights", "coding", "encode / other version", "decode / other version"]]
    speed = [["weights", "W8A8SC", "W16A16SC coding", "zstd -1", "lz4", "memcpy", "plain coder"]]
    size = [["weights", "W8A8SC", "W16A16SC coding", "order-0 entropy", "zstd -1", "zstd -3", "lz4"]]
    results: dict[str, Any] = {}
    for name, weight in weights.distributions(SHAPE):
        encoding, decoding, sizes = one(weight, rounds, version)
        if executor is not None:
            encoding[EXECUTOR] = executor_seconds(executor, weight, rounds)
        results[name] = {"encode seconds": encoding, "decode seconds": decoding, "size": sizes}
        for coding in OTHER:
            others = [measure.ratio(encoding[coding], encoding[other]) for other in ("zstd -1", "lz4")]
            others += [measure.ratio(decoding[coding], decoding[other]) for other in ("zstd -1", "lz4")]
            plain = f"{measure.ratio(encoding[coding], encoding['plain coder']):.2f}" if coding == "W8A8SC" else ""
            ratios.append([name, coding, plain, *(f"{value:.2f}" for value in others)])
            if version is not None:
                faster = [measure.ratio(seconds[coding], seconds[OTHER[coding]]) for seconds in (encoding, decoding)]
                versions.append([name, coding, *(f"{value:.2f}" for value in faster)])
        rates = [measure.speeds(weight.nbytes, encoding[task_name]) for task_name in speed[0][1:]]
        speed.append([name, *(f"{rate[1]:.0f}" for rate in rates)])
        size.append([name, *(f"{sizes[key]:.3f}" for key in ("low", "high", "entropy", "zstd -1", "zstd -3", "lz4"))])
        if executor is not None:
            print(f"{name}: {measure.ratio(encoding['W8A8SC'], encoding[EXECUTOR]):.1f} times msmodelslim's executor\n")
    measure.table(ratios)
    if version is not None:
        measure.table(versions)
    print("Encoding, MB/s:\n")
    measure.table(speed)
    measure.table(size)
    measure.save(json, "codec", results)


def codec_of(checkout: Path) -> ModuleType:
    """The codec of another version, beside this one's under another name, with kernels of its own.

    Kernels know the module they are part of, so these must not get into that version's own folder.
    """
    encode_matrix(np.zeros((1, 1), np.int8))  # this version has chosen its folder now
    os.environ[CACHE_VARIABLE] = str(Path(tempfile.gettempdir()) / "w8a8sc-bench")
    folder = checkout / "w8a8sc_tool" / "codec"
    spec = importlib.util.spec_from_file_location(
        "other_codec", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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


Seconds = dict[str, list[float]]


def one(weight: weights.Int8, rounds: int, version: ModuleType | None) -> tuple[Seconds, Seconds, dict[str, float]]:
    """Seconds of encoding and of decoding in each round, and sizes relative to the input.

    version: another codec, of which is asked the same.
    """
    data = weight.tobytes()
    low, high = encode_matrix(weight), encode_matrix(weight, sparsity="high")
    out = np.empty_like(weight)
    compressors = {f"zstd -{level}": zstandard.ZstdCompressor(level=level) for level in (1, 3)}
    packed = {name: compressor.compress(data) for name, compressor in compressors.items()}
    packed["lz4"] = lz4.frame.compress(data)
    unzstd = zstandard.ZstdDecompressor()
    encoders: dict[str, Any] = {
        "W8A8SC": lambda: encode_matrix(weight),
        "plain coder": lambda: encode_plainly(weight),
        "W16A16SC coding": lambda: encode_matrix(weight, sparsity="high"),
        "memcpy": lambda: np.copyto(out, weight),
        **{name: lambda c=compressor: c.compress(data) for name, compressor in compressors.items()},
        "lz4": lambda: lz4.frame.compress(data),
    }
    decoders: dict[str, Any] = {
        "W8A8SC": lambda: decode_matrix(low.weight, low.index, low.info, out=out),
        "W16A16SC coding": lambda: decode_matrix(high.weight, high.index, high.info, out=out),
        **{name: lambda p=packed[name]: unzstd.decompress(p, max_output_size=len(data)) for name in compressors},
        "lz4": lambda: lz4.frame.decompress(packed["lz4"]),
    }
    if version is not None:
        for coding, sparsity, encoded in (("W8A8SC", "low", low), ("W16A16SC coding", "high", high)):
            tensors = encoded.weight, encoded.index, encoded.info
            encoders[OTHER[coding]] = lambda sparsity=sparsity: version.encode_matrix(weight, sparsity=sparsity)
            decoders[OTHER[coding]] = lambda tensors=tensors: version.decode_matrix(*tensors, out=out)
    encoding = measure.in_turns(rounds, clock=time.thread_time, **encoders)
    decoding = measure.in_turns(rounds, clock=time.thread_time, **decoders)
    sizes = {name: len(value) / len(data) for name, value in packed.items()}
    sizes |= {"low": low.nbytes / len(data), "high": high.nbytes / len(data), "entropy": weights.tile_entropy(weight)}
    return encoding, decoding, sizes
