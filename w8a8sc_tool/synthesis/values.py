"""Where the values come from: distributions as tables of 65536 values, and a stream of random indices per tensor."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..io.safetensors import DTYPES

BLOCK_ELEMENTS: Final = 4 << 20
_LARGEST_VALUE: Final = 20  # of the int8 weights


@lru_cache(maxsize=2)
def weight_table(sigma: float) -> npt.NDArray[np.int8]:
    """int8 [65536]: a rounded normal distribution, every value as often as it is frequent."""
    values = np.arange(-_LARGEST_VALUE, _LARGEST_VALUE + 1)
    below = np.array([0.5 * (1 + math.erf((value + 0.5) / sigma / math.sqrt(2))) for value in values[:-1]])
    ends = np.rint(np.append(below, 1.0) * 65536).astype(np.int64)
    return np.repeat(values, np.diff(ends, prepend=0)).astype(np.int8)


@lru_cache(maxsize=1)
def normal_table() -> npt.NDArray[np.float32]:
    """float32 [65536]: quantiles of the standard normal distribution, by linear interpolation of its distribution."""
    grid = np.linspace(-5, 5, 20001)
    distribution = np.array([0.5 * (1 + math.erf(x / math.sqrt(2))) for x in grid])
    return np.interp((np.arange(65536) + 0.5) / 65536, distribution, grid).astype(np.float32)


def _to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Rounded to nearest even, as bits."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def encode(values: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """Values as a safetensors dtype; bfloat16 as its bits."""
    return _to_bfloat16(values.astype(np.float32)) if dtype == "BF16" else values.astype(DTYPES[dtype])


class Random:
    """Indices into tables, uint16: a stream for every tensor, which depends on nothing but the seed and its name."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def all(self, name: str, count: int) -> npt.NDArray[np.uint16]:
        """uint16 [count], at once."""
        return next(self.blocks(name, count, count))

    def blocks(self, name: str, count: int, block: int) -> Iterator[npt.NDArray[np.uint16]]:
        """In pieces of `block`; the same values for every block size that four divides."""
        generator = np.random.SFC64(np.random.SeedSequence([self._seed, zlib.crc32(name.encode())]))
        for first in range(0, count, block):
            size = min(block, count - first)
            yield generator.random_raw(-(-size // 4)).view(np.uint16)[:size]
