"""How a matrix is cut into tiles (docs/format.md, sections 3 and 4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .format import FRACTAL_BYTES, FRACTAL_COLUMNS, FRACTAL_ROWS, INDEX_ENTRY_BYTES, TILE_FRACTALS, TILE_ROWS


@dataclass(frozen=True)
class Tiling:
    """The tiles of an int8 matrix [n, k]: n output features, k input features (for fp16 matrices: bytes of them)."""

    n: int
    k: int

    @property
    def n_fractals(self) -> int:
        """N1, rows of fractals."""
        return -(-self.n // FRACTAL_ROWS)

    @property
    def k_fractals(self) -> int:
        """K1, columns of fractals."""
        return -(-self.k // FRACTAL_COLUMNS)

    @property
    def n_tiles(self) -> int:
        return -(-self.n_fractals // TILE_FRACTALS)

    @property
    def k_tiles(self) -> int:
        return -(-self.k_fractals // TILE_FRACTALS)

    @property
    def tiles(self) -> int:
        return self.n_tiles * self.k_tiles

    @property
    def tile_n_fractals(self) -> int:
        """Rows of fractals in every tile: 8, or all there are. The last n-tile is full because it overlaps."""
        return min(TILE_FRACTALS, self.n_fractals)

    def first_n_fractal(self, n_tile: int) -> int:
        """Where an n-tile starts; the last one ends with the matrix and so may overlap its neighbour."""
        return min(n_tile * TILE_FRACTALS, self.n_fractals - self.tile_n_fractals)

    def repeated_n_fractals(self, n_tile: int) -> int:
        """How many leading rows of fractals of an n-tile belong to its neighbour and are not to be read."""
        return n_tile * TILE_FRACTALS - self.first_n_fractal(n_tile)

    def tile_k_fractals(self, k_tile: int) -> int:
        return min(TILE_FRACTALS, self.k_fractals - k_tile * TILE_FRACTALS)

    @property
    def index_bytes(self) -> int:
        return INDEX_ENTRY_BYTES * self.tiles

    @property
    def coded_bytes(self) -> int:
        """Bytes of all tiles as they are coded, overlap and padding included."""
        return self.n_tiles * self.tile_n_fractals * self.k_fractals * FRACTAL_BYTES

    @property
    def largest_weight(self) -> int:
        """The most bytes a compressed weight may have: what its consumers allocate for it."""
        return FRACTAL_BYTES * self.n_fractals * self.k_fractals

    def row_range(self, first_tile: int, last_tile: int) -> tuple[int, int]:
        """The matrix rows [a, b) that n-tiles first_tile to last_tile - 1 are made of, overlap included."""
        ends = FRACTAL_ROWS * min(last_tile * TILE_FRACTALS, self.n_fractals)
        return FRACTAL_ROWS * self.first_n_fractal(first_tile), min(self.n, ends)

    def n_tile_ranges(self, block_bytes: int) -> Iterator[tuple[int, int]]:
        """All n-tiles in order, as ranges [a, b) of about `block_bytes` of matrix rows."""
        step = max(1, block_bytes // (TILE_ROWS * self.k))
        for first in range(0, self.n_tiles, step):
            yield first, min(first + step, self.n_tiles)

    def info(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The info tensor: tileK, tileN, K, N and 1 for tiles ordered n outer, k inner."""
        return np.array([TILE_FRACTALS, TILE_FRACTALS, self.k, self.n, 1], dtype=np.int64)
