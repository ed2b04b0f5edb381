"""The encoder: tiles of a row-major matrix to payloads and index entries."""

# A tile is dealt out to the four engines' shares, counted, its bytes are ranked, and its shares are coded. Two coders
# of each mode give the same bytes: one that takes many bytes at a time (encode_low_vectors, encode_high_vectors) and a
# plain one for tiles with too many bytes far from 0 for that, or too many long runs.

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from . import encode_high_plain, encode_high_vectors, encode_low_plain, encode_low_vectors
from .dictionary import count_bytes, count_others, is_sparse, rank_bytes, sum_counts
from .encode_high_plain import code_high_plainly
from .encode_high_vectors import code_runs, find_runs
from .encode_low_plain import code_low_plainly
from .encode_low_vectors import TARGET_SLACK, code_symbols, find_symbols
from .format import (
    COMPRESSED,
    ENGINES,
    FRACTAL_BYTES,
    FRACTAL_COLUMNS,
    FRACTAL_ROWS,
    HIGH,
    LOW,
    PAYLOAD_UNIT,
    TILE_COLUMNS,
    TILE_FRACTALS,
    TILE_ROWS,
)
from .intrinsics import array_at, load8, stack_array, store64
from .jit import copied_part, kernel, part
from .shares import SHARE_STRIDE, deal_tile
from .streams import CODES, store_raw
from .symbols import count_symbols, is_near

__all__ = ["CODES", "SCRATCH_BYTES", "SHARE_STRIDE", "TARGET_SLACK", "count_tiles", "encode_tiles", "rank_counts"]

# Scratch memory begins with the four shares; what lies behind is only one coder's at a time.
SCRATCH_BYTES = max(
    coder.SCRATCH_BYTES for coder in (encode_low_plain, encode_high_plain, encode_low_vectors, encode_high_vectors)
)
_LOW_RANKS, _HIGH_RANKS = LOW.dictionary_size, HIGH.dictionary_size
_SIZES = {"scratch_bytes": SCRATCH_BYTES, "target_slack": TARGET_SLACK}

# int32 [8, 256], as of `count_bytes`; int64 [256], their sums; uint8 [36]; uint64 and uint8 [CODES].
_stack_counts, _counts_at = stack_array(types.int32, 8, 256), array_at(types.int32, 8, 256)
_COUNTS_BYTES = 8 * 256 * 4
_stack_totals = stack_array(types.int64, 256)
_stack_dictionary, _dictionary_at = stack_array(types.uint8, _LOW_RANKS), array_at(types.uint8, _LOW_RANKS)
_stack_codes, _stack_units = stack_array(types.uint64, CODES), stack_array(types.uint8, CODES)


class _Matrix(NamedTuple):
    """A matrix [n, k], of which row `first_row` lies at address `source`, rows `stride` bytes apart."""

    source: int
    stride: int
    first_row: int
    n: int
    k: int


class _Buffers(NamedTuple):
    """Memory that every tile uses anew.

    scratch: address of SCRATCH_BYTES; codes (uint64 [CODES]), units (uint8 [CODES]): of a coder; counts: int32
    [8, 256]; totals: int64 [256]; dictionary: uint8 [36], where the tile's takes the place of the one before.
    """

    scratch: int
    codes: np.ndarray
    units: np.ndarray
    counts: np.ndarray
    totals: np.ndarray
    dictionary: np.ndarray


@part
def _tile_rows(matrix, n_tile):
    """The first row of an n-tile, and its height in fractals."""
    n_fractals = (matrix.n + FRACTAL_ROWS - 1) // FRACTAL_ROWS
    height = min(TILE_FRACTALS, n_fractals)
    return FRACTAL_ROWS * min(TILE_FRACTALS * n_tile, n_fractals - height), height


@part
def _deal(matrix, n_tile, left, scratch):
    """Deal the tile whose columns begin with `left` out to the engines; returns its bytes for each, and its corner's
    address."""
    top, height = _tile_rows(matrix, n_tile)
    width = min(TILE_FRACTALS, (matrix.k - left + FRACTAL_COLUMNS - 1) // FRACTAL_COLUMNS)
    corner = matrix.source + (top - matrix.first_row) * matrix.stride + left
    deal_tile(corner, matrix.stride, matrix.n - top, matrix.k - left, height, width, scratch, SHARE_STRIDE)
    return height * width * (FRACTAL_BYTES // ENGINES), corner


@part
def _is_full(matrix, left):
    """Whether the tile whose columns begin with `left` has all of its fractals, of which the last may be padded."""
    return matrix.k - left > TILE_COLUMNS - FRACTAL_COLUMNS


@part
def _find(scratch, length, high, common):
    """Step 1 of the fast coder of a mode: whether a tile suits it, if `common` is its common byte."""
    return find_runs(scratch, length, common) if high else find_symbols(scratch, length, common)


@part
def _count_shares(scratch, length, counts, totals):
    """How often each byte occurs in the four shares, into totals (int64 [256]); counts: int32 [8, 256]."""
    counts[:] = 0
    for engine in range(ENGINES):
        count_bytes(scratch + engine * SHARE_STRIDE, length, counts)
    sum_counts(counts, totals)


@part
def _count_sparse(scratch, length, common, totals):
    """As `_count_shares` for a sparse tile behind another one, whose totals these are; returns whether it is that."""
    if not is_sparse(totals, common, length):
        return False
    totals[:] = 0
    for engine in range(ENGINES):
        if not count_others(scratch + engine * SHARE_STRIDE, length, common, totals):
            return False
    return True


@copied_part
def _rank_tile(length, high, plain, buffers):
    """Rank the bytes of a tile; returns whether its symbols are in scratch memory, for the fast coder.

    The common byte of the tile before is the first guess; plain: whether that tile did not suit the fast coder. Then it
    is likely that this one does not, and counting plainly tells. A tile in which nearly all bytes are common is coded
    plainly in high-sparse mode, and only its other bytes are counted.
    """
    scratch, _, _, counts, totals, dictionary = buffers
    size = _HIGH_RANKS if high else _LOW_RANKS
    guess = np.int64(dictionary[0])
    if not plain and _find(scratch, length, high, guess):
        count_symbols(scratch, length, guess, totals)
        rank_bytes(totals, size, dictionary)
        return np.int64(dictionary[0]) == guess or _find(scratch, length, high, np.int64(dictionary[0]))
    if plain and high and _count_sparse(scratch, length, guess, totals):
        rank_bytes(totals, size, dictionary)
        return False
    _count_shares(scratch, length, counts, totals)
    rank_bytes(totals, size, dictionary)
    common = np.int64(dictionary[0])
    return plain and is_near(totals, common, length) and _find(scratch, length, high, common)


@copied_part
def _code(length, high, symbols, buffers, payload, ahead):
    """Code a tile whose symbols `_find` has found, or else plainly; returns the payload's bytes, 0 for bypass.

    ahead: as of `code_symbols`.
    """
    scratch, codes, units, _, _, dictionary = buffers
    if high:
        if symbols:
            return code_runs(scratch, length, dictionary, codes, units, payload)
        return code_high_plainly(scratch, length, dictionary, codes, units, payload)
    if symbols:
        return code_symbols(scratch, length, dictionary, codes, units, payload, ahead)
    return code_low_plainly(scratch, length, dictionary, codes, units, payload)


@kernel(_SIZES)
def encode_tiles(source, stride, first_row, n, k, first_tile, last_tile, high, dictionaries, target, index, scratch):
    """Encode n-tiles first_tile to last_tile - 1 of a matrix [n, k]; returns the bytes of their payloads.

    source: address of matrix row `first_row`, rows `stride` bytes apart; target: address that receives the payloads,
    with room for the tiles' bytes and TARGET_SLACK more; index: address that receives one uint64 per tile of these
    n-tiles, without offsets; dictionaries: 0 for one per tile, else the address of two, uint8 [2, 36]: of full k-tiles
    and of the narrower last one; scratch: address of SCRATCH_BYTES.
    """
    matrix = _Matrix(source, stride, first_row, n, k)
    dictionary = _stack_dictionary()
    dictionary[:] = 0
    buffers = _Buffers(scratch, _stack_codes(), _stack_units(), _stack_counts(), _stack_totals(), dictionary)
    symbols = True
    tile = used = 0
    for n_tile in range(first_tile, last_tile):
        for left in range(0, k, TILE_COLUMNS):
            length, corner = _deal(matrix, n_tile, left, scratch)
            if dictionaries:
                own = dictionaries + (0 if _is_full(matrix, left) else _LOW_RANKS)
                for rank in range(_LOW_RANKS):
                    dictionary[rank] = load8(own + rank)
                symbols = _find(scratch, length, high, np.int64(dictionary[0]))
            else:
                symbols = _rank_tile(length, high, not symbols, buffers)
            rows = min(TILE_ROWS, n - _tile_rows(matrix, n_tile)[0]) if left + TILE_COLUMNS < k else 0
            payload = target + used
            coded = _code(length, high, symbols, buffers, payload, (corner + TILE_COLUMNS, stride, rows))
            entry = np.uint64(COMPRESSED)
            if coded == 0:
                coded = store_raw(scratch, length, payload)
                entry = np.uint64(0)
            store64(index + 8 * tile, entry | np.uint64(coded // PAYLOAD_UNIT))
            tile += 1
            used += coded
    return used


@kernel(_SIZES)
def count_tiles(source, stride, n, k, counts, scratch):
    """Count the bytes of all tiles of a matrix [n, k] as they are passed, overlap and padding included.

    counts: address of int32 [2, 8, 256], zeroed by the caller; [0] for full k-tiles, [1] for the narrower last one.
    Counts stay below 2**31: a matrix has to have fewer bytes than that. scratch: address of SCRATCH_BYTES. Returns 0.
    """
    matrix = _Matrix(source, stride, 0, n, k)
    for n_tile in range((n + TILE_ROWS - 1) // TILE_ROWS):
        for left in range(0, k, TILE_COLUMNS):
            length, _ = _deal(matrix, n_tile, left, scratch)
            own = _counts_at(counts + (0 if _is_full(matrix, left) else _COUNTS_BYTES))
            for engine in range(ENGINES):
                count_bytes(scratch + engine * SHARE_STRIDE, length, own)
    return 0


@kernel(_SIZES)
def rank_counts(counts, size, dictionary):
    """The `size` most frequent bytes of counts (address of int32 [8, 256]) in the vendor's order, into dictionary
    (address of uint8 [36]). Returns 0."""
    totals = _stack_totals()
    sum_counts(_counts_at(counts), totals)
    rank_bytes(totals, size, _dictionary_at(dictionary))
    return 0
