"""The encoder: tiles of a row-major matrix to payloads and index entries."""

# A tile is dealt out to the four engines' shares, counted, its bytes are ranked, and its shares are coded. Two coders
# of each mode give the same bytes: one that takes many bytes at a time (encode_vectors, encode_high_vectors) and a
# plain one for tiles with too many bytes far from 0 for that, or too many long runs (encode_low, encode_high).

from __future__ import annotations

import numpy as np

from . import encode_high, encode_high_vectors, encode_low, encode_vectors
from .dictionary import count_bytes, rank_bytes, sum_counts
from .encode_high import code_high_plainly
from .encode_high_vectors import code_runs, find_runs
from .encode_low import code_low_plainly
from .encode_vectors import code_symbols, find_symbols
from .jit import kernel, part
from .streams import CODES, SHARE_STRIDE, store_raw
from .symbols import count_symbols, is_near
from .tiling import deal_tile

__all__ = [
    "CODES",
    "SCRATCH_BYTES",
    "SHARE_STRIDE",
    "TARGET_SLACK",
    "count_tiles",
    "encode_tiles",
    "rank_counts",
]

TARGET_SLACK = encode_vectors.TARGET_SLACK  # by how many bytes a payload may grow past the tile until bypass is due
# Scratch memory begins with the four shares; what lies behind is only one coder's at a time.
SCRATCH_BYTES = max(coder.SCRATCH_BYTES for coder in (encode_low, encode_high, encode_vectors, encode_high_vectors))


@part
def _find(scratch, length, high, common):
    """Step 1 of the fast coder of a mode: whether a tile suits it, if `common` is its common byte."""
    return find_runs(scratch, length, common) if high else find_symbols(scratch, length, common)


@part
def _code(scratch, length, high, symbols, dictionary, codes, units, payload, ahead, stride, rows):
    """Code a tile whose symbols `_find` has found, or else plainly; returns the payload's bytes, 0 for bypass."""
    if high:
        if symbols:
            return code_runs(scratch, length, dictionary, codes, units, payload)
        return code_high_plainly(scratch, length, dictionary, codes, units, payload)
    if symbols:
        return code_symbols(scratch, length, dictionary, codes, units, payload, ahead, stride, rows)
    return code_low_plainly(scratch, length, dictionary, codes, units, payload)


@part
def _count_shares(scratch, length, counts, totals):
    """How often each byte occurs in the four shares, into totals (int64 [256]); counts: int32 [8, 256]."""
    counts[:] = 0
    for engine in range(4):
        count_bytes(scratch + engine * SHARE_STRIDE, length, counts)
    sum_counts(counts, totals)


@part
def _rank_tile(scratch, length, high, plain, dictionary, counts, totals):
    """Rank the bytes of a tile; returns whether its symbols are in scratch memory, for the fast coder.

    dictionary: that of the tile before, whose common byte is the first guess, becomes this tile's; plain: whether the
    tile before did not suit the fast coder. Then it is likely that this one does not, and counting plainly tells.
    """
    size = 34 if high else 36
    guess = np.int64(dictionary[0])
    if not plain and _find(scratch, length, high, guess):
        count_symbols(scratch, length, guess, totals)
        rank_bytes(totals, size, dictionary)
        return np.int64(dictionary[0]) == guess or _find(scratch, length, high, np.int64(dictionary[0]))
    _count_shares(scratch, length, counts, totals)
    rank_bytes(totals, size, dictionary)
    common = np.int64(dictionary[0])
    return plain and is_near(totals, common, length) and _find(scratch, length, high, common)


@kernel("int64(int64, int64, int64, int64, int64, int64, int64, int64, uint8[:,::1], int64, uint64[::1], int64)")
def encode_tiles(source, stride, first_row, n, k, first_tile, last_tile, high, dictionaries, target, index, scratch):
    """Encode n-tiles first_tile to last_tile - 1 of a matrix [n, k]; returns the bytes of their payloads.

    source: address of matrix row `first_row`, rows `stride` bytes apart; target: address that receives the payloads,
    with room for the tiles' bytes and TARGET_SLACK more; index: one uint64 per tile of these n-tiles, written without
    offsets; dictionaries: none (uint8 [0, 36]) for one per tile, else one row for full k-tiles and one for the narrower
    last one; scratch: address of SCRATCH_BYTES. Integers are int64.
    """
    n_fractals = (n + 15) // 16
    k_fractals = (k + 31) // 32
    rows_of_tile = min(8, n_fractals)
    codes = np.empty(CODES, np.uint64)
    units = np.empty(CODES, np.uint8)
    counts = np.empty((8, 256), np.int32)
    totals = np.empty(256, np.int64)
    dictionary = np.zeros(36, np.uint8)
    given = dictionaries.shape[0] > 0
    symbols = True
    tile = 0
    used = 0
    for n_tile in range(first_tile, last_tile):
        top = 16 * min(8 * n_tile, n_fractals - rows_of_tile)
        for left in range(0, k_fractals, 8):
            width = min(8, k_fractals - left)
            length = rows_of_tile * width * 128
            corner = source + (top - first_row) * stride + left * 32
            deal_tile(corner, stride, n - top, k - left * 32, rows_of_tile, width, scratch, SHARE_STRIDE)
            if given:
                dictionary[:] = dictionaries[0 if width == 8 else 1]
                symbols = _find(scratch, length, high, np.int64(dictionary[0]))
            else:
                symbols = _rank_tile(scratch, length, high, not symbols, dictionary, counts, totals)
            rows = min(128, n - top) if left + 8 < k_fractals else 0
            payload = target + used
            coded = _code(scratch, length, high, symbols, dictionary, codes, units, payload, corner + 256, stride, rows)
            entry = np.uint64(1 << 15)
            if coded == 0:
                coded = store_raw(scratch, length, payload)
                entry = np.uint64(0)
            index[tile] = entry | np.uint64(coded // 128)
            tile += 1
            used += coded
    return used


@kernel("void(int64, int64, int64, int64, int32[:,:,::1], int64)")
def count_tiles(source, stride, n, k, counts, scratch):
    """Count the bytes of all tiles of a matrix [n, k] as they are passed, overlap and padding included.

    counts: int32 [2, 8, 256], zeroed by the caller; [0] for full k-tiles, [1] for the narrower last one. Counts stay
    below 2**31: a matrix has to have fewer bytes than that. scratch: address of SCRATCH_BYTES.
    """
    n_fractals = (n + 15) // 16
    k_fractals = (k + 31) // 32
    rows_of_tile = min(8, n_fractals)
    for n_tile in range((n_fractals + 7) // 8):
        top = 16 * min(8 * n_tile, n_fractals - rows_of_tile)
        for left in range(0, k_fractals, 8):
            width = min(8, k_fractals - left)
            length = rows_of_tile * width * 128
            corner = source + top * stride + left * 32
            deal_tile(corner, stride, n - top, k - left * 32, rows_of_tile, width, scratch, SHARE_STRIDE)
            for engine in range(4):
                count_bytes(scratch + engine * SHARE_STRIDE, length, counts[0 if width == 8 else 1])


@kernel("void(int32[:,::1], int64, uint8[::1])")
def rank_counts(counts, size, dictionary):
    """The `size` most frequent bytes of counts (int32 [8, 256]) in the vendor's order, into dictionary (uint8 [36])."""
    totals = np.empty(256, np.int64)
    sum_counts(counts, totals)
    rank_bytes(totals, size, dictionary)
