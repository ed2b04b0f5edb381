"""How a matrix is cut into tiles, and tiles into the four engines' shares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .jit import part
from .memory import load8, load64, store8, store64
from .tables import (
    ENGINES,
    FRACTAL_BYTES,
    FRACTAL_COLUMNS,
    FRACTAL_ROWS,
    INDEX_ENTRY_BYTES,
    PAYLOAD_UNIT,
    STREAM_UNIT,
    TILE_FRACTALS,
    TILE_ROWS,
)
from .vectors import U64x8, lane, load, lower_half, upper_half


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


# A tile's bytes run k-fractal outer, n-fractal inner, row by row: 32-byte pieces of one row. Dealt out in 64-byte
# blocks, an engine gets two consecutive rows out of every eight. With `rows` a multiple of 16, the piece of row r in
# column of fractals f lies at (f * rows / 8 + r / 8) * 64 + r % 2 * 32 in the share of engine r / 2 % 4.


@part
def copy32(source, target):
    """Copy 32 bytes. All loads come first, so that they can become one vector instruction."""
    a = load64(source)
    b = load64(source + 8)
    c = load64(source + 16)
    d = load64(source + 24)
    store64(target, a)
    store64(target + 8, b)
    store64(target + 16, c)
    store64(target + 24, d)


@part
def xor_bytes(address, length):
    """XOR of the bytes at odd positions (low byte of the result) and of those at even ones; length: multiple of 128."""
    a, b = load(U64x8, address), load(U64x8, address + 64)
    for position in range(address + 128, address + length, 128):
        a ^= load(U64x8, position)
        b ^= load(U64x8, position + 64)
    a ^= b
    half = lower_half(a) ^ upper_half(a)
    mixed = lane(half, 0) ^ lane(half, 1) ^ lane(half, 2) ^ lane(half, 3)
    mixed ^= mixed >> np.uint64(32)
    mixed ^= mixed >> np.uint64(16)
    return (mixed >> np.uint64(8) & np.uint64(255)) | (mixed & np.uint64(255)) << np.uint64(8)


@part
def deal_tile(source, stride, rows, columns, n_fractals, k_fractals, shares, share_stride):
    """Copy a tile from a row-major matrix into the four engines' shares, padded with zeros to whole fractals.

    source: address of the tile's first byte; stride: bytes from row to row; rows, columns: how much of the tile lies
    inside the matrix; shares: address of engine 0's share, the next one `share_stride` bytes further.
    """
    full = min(columns // 32, k_fractals)
    for row in range(16 * n_fractals):
        target = shares + (row // 2 % 4) * share_stride + (row // 8) * 64 + (row % 2) * 32
        step = n_fractals * 128
        whole = full if row < rows else 0
        line = source + row * stride
        for fractal in range(whole):
            piece = line + fractal * 32
            place = target + fractal * step
            copy32(piece, place)
        for fractal in range(whole, k_fractals):
            for column in range(32):
                inside = row < rows and fractal * 32 + column < columns
                byte = load8(line + fractal * 32 + column) if inside else 0
                store8(target + fractal * step + column, byte)


@part
def collect_tile(shares, share_stride, place):
    """Copy a tile from the four engines' shares to its place in a row-major matrix.

    shares: address of engine 0's share, the next one `share_stride` bytes further; place: a named tuple with the
    address of the tile's `corner` in the matrix, the `stride` from row to row, the `first_row` that does not repeat the
    neighbour, how many `rows` and `columns` there are from the corner to the matrix's end, and the tile's `height` and
    `width` in fractals. Returns whether all bytes outside of the matrix are zero; rows before first_row are not looked
    at.
    """
    full = min(place.columns // FRACTAL_COLUMNS, place.width)
    step = place.height * (FRACTAL_BYTES // ENGINES)
    clean = True
    for row in range(place.first_row, FRACTAL_ROWS * place.height):
        share = shares + (row // 2 % 4) * share_stride + (row // 8) * 64 + (row % 2) * 32
        whole = full if row < place.rows else 0
        line = place.corner + row * place.stride
        for fractal in range(whole):
            copy32(share + fractal * step, line + fractal * FRACTAL_COLUMNS)
        for fractal in range(whole, place.width):
            for column in range(FRACTAL_COLUMNS):
                byte = load8(share + fractal * step + column)
                if row < place.rows and fractal * FRACTAL_COLUMNS + column < place.columns:
                    store8(line + fractal * FRACTAL_COLUMNS + column, byte)
                elif byte != 0:
                    clean = False
    return clean


@part
def payload_address(payload, engine, position):
    """Address of byte `position` (a multiple of 8) of an engine's stream in a payload woven in 32-byte chunks."""
    return payload + position // STREAM_UNIT * PAYLOAD_UNIT + engine * STREAM_UNIT + position % STREAM_UNIT


assert PAYLOAD_UNIT == ENGINES * STREAM_UNIT
