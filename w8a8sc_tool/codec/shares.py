"""What each of the four engines gets of a tile, its share: dealt out of a matrix, collected into one."""

from __future__ import annotations

import numpy as np

from .format import ENGINES, FRACTAL_BYTES, FRACTAL_COLUMNS, FRACTAL_ROWS, TILE_BYTES
from .intrinsics import load8, load64, store8, store64
from .jit import part
from .vectors import U64x8, lane, load, lower_half, upper_half

# Scratch memory: the four engines' shares, then whatever the encoder of a mode needs. The caller provides it, because
# numba frees an array of which a kernel uses nothing but the address.
SLACK = 64  # loads and stores of up to 64 bytes may run over the end
SHARE_BYTES = TILE_BYTES // 4  # the most that an engine gets of a tile
SHARE_STRIDE = SHARE_BYTES + SLACK

# A tile's bytes run k-fractal outer, n-fractal inner, row by row: 32-byte pieces of one row. Dealt out in 64-byte
# blocks, an engine gets two consecutive rows out of every eight. With `rows` a multiple of 16, the piece of row r in
# column of fractals f lies at (f * rows / 8 + r / 8) * 64 + r % 2 * 32 in the share of engine r / 2 % 4.


@part
def _in_share(row, share_stride):
    """Where a row's piece in the first column of fractals lies, from the first share on."""
    return (row // 2 % ENGINES) * share_stride + (row // 8) * 64 + (row % 2) * FRACTAL_COLUMNS


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
    full = min(columns // FRACTAL_COLUMNS, k_fractals)
    step = n_fractals * (FRACTAL_BYTES // ENGINES)
    for row in range(FRACTAL_ROWS * n_fractals):
        target = shares + _in_share(row, share_stride)
        whole = full if row < rows else 0
        line = source + row * stride
        for fractal in range(whole):
            copy32(line + fractal * FRACTAL_COLUMNS, target + fractal * step)
        for fractal in range(whole, k_fractals):
            for column in range(FRACTAL_COLUMNS):
                inside = row < rows and fractal * FRACTAL_COLUMNS + column < columns
                byte = load8(line + fractal * FRACTAL_COLUMNS + column) if inside else 0
                store8(target + fractal * step + column, byte)


@part
def collect_tile(shares, share_stride, tile):
    """Copy a tile from the four engines' shares to where it belongs in a row-major matrix.

    shares: address of engine 0's share, the next one `share_stride` bytes further; tile: a named tuple with the
    address of the tile's `corner` in the matrix, the `stride` from row to row, the `first_row` that does not repeat the
    neighbour, how many `rows` and `columns` there are from the corner to the matrix's end, and the tile's `height` and
    `width` in fractals. Returns whether all bytes outside of the matrix are zero; rows before first_row are not looked
    at.
    """
    full = min(tile.columns // FRACTAL_COLUMNS, tile.width)
    step = tile.height * (FRACTAL_BYTES // ENGINES)
    clean = True
    for row in range(tile.first_row, FRACTAL_ROWS * tile.height):
        share = shares + _in_share(row, share_stride)
        whole = full if row < tile.rows else 0
        line = tile.corner + row * tile.stride
        for fractal in range(whole):
            copy32(share + fractal * step, line + fractal * FRACTAL_COLUMNS)
        for fractal in range(whole, tile.width):
            for column in range(FRACTAL_COLUMNS):
                byte = load8(share + fractal * step + column)
                if row < tile.rows and fractal * FRACTAL_COLUMNS + column < tile.columns:
                    store8(line + fractal * FRACTAL_COLUMNS + column, byte)
                elif byte != 0:
                    clean = False
    return clean
