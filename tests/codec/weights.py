"""Weights to test the codec on: distributions that reach its different paths."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

SHAPES = st.tuples(st.integers(1, 300), st.integers(1, 600))


def sparse(shape: tuple[int, int], seed: int, zeros: float, sigma: float, outliers: float) -> np.ndarray:
    """Bell-shaped integers with a share of zeros and of bytes from everywhere."""
    random = np.random.default_rng(seed)
    values = np.rint(random.normal(0, sigma, shape))
    values = np.where(random.random(shape) < zeros, 0, values)
    values = np.where(random.random(shape) < outliers, random.integers(-128, 128, shape), values)
    return np.clip(values, -128, 127).astype(np.int8)


def runs(shape: tuple[int, int], seed: int, mean: int) -> np.ndarray:
    """Runs of equal bytes of random lengths: reaches every run code and every boundary of a packet's window."""
    random = np.random.default_rng(seed)
    count = shape[0] * shape[1]
    lengths = random.geometric(1 / mean, count)
    values = np.where(random.random(count) < 0.6, 0, random.integers(-128, 128, count))
    return np.repeat(values, lengths)[:count].reshape(shape).astype(np.int8)


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """int8 matrices of all kinds of shapes and contents."""
    shape = draw(SHAPES)
    seed = draw(st.integers(0, 2**32))
    if draw(st.booleans()):
        return runs(shape, seed, draw(st.sampled_from([1, 2, 3, 10, 70])))
    zeros = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    return sparse(
        shape, seed, zeros, draw(st.sampled_from([0.7, 3.0, 12.0, 60.0])), draw(st.sampled_from([0, 0.01, 0.3]))
    )


def formula(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column numbers of a matrix [n, k], for weights given by a formula."""
    rows, columns = np.meshgrid(np.arange(n), np.arange(k), indexing="ij")
    return rows, columns


def lcg(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.int64) * 1103515245 + 12345) % 2**31
