"""The low-sparse encoder that goes byte by byte for every tile: what the fast one is compared with."""

from __future__ import annotations

import numba
import numpy as np

from w8a8sc_tool.codec.dictionary import count_bytes, rank_bytes, sum_counts
from w8a8sc_tool.codec.encode import SCRATCH_BYTES, TARGET_SLACK
from w8a8sc_tool.codec.encode_low_plain import code_low_plainly
from w8a8sc_tool.codec.kernels import address_of
from w8a8sc_tool.codec.shares import SHARE_STRIDE, deal_tile
from w8a8sc_tool.codec.streams import CODES, store_raw
from w8a8sc_tool.codec.tiling import Tiling


@numba.njit(nogil=True, boundscheck=False, error_model="numpy")
def _encode(source, stride, n, k, target, index, scratch):  # type: ignore[no-untyped-def]
    n_fractals = (n + 15) // 16
    k_fractals = (k + 31) // 32
    rows_of_tile = min(8, n_fractals)
    codes = np.empty(CODES, np.uint64)
    units = np.empty(CODES, np.uint8)
    counts = np.empty((8, 256), np.int32)
    totals = np.empty(256, np.int64)
    dictionary = np.empty(36, np.uint8)
    tile = 0
    used = 0
    for n_tile in range((n_fractals + 7) // 8):
        top = 16 * min(8 * n_tile, n_fractals - rows_of_tile)
        for left in range(0, k_fractals, 8):
            width = min(8, k_fractals - left)
            length = rows_of_tile * width * 128
            corner = source + top * stride + left * 32
            deal_tile(corner, stride, n - top, k - left * 32, rows_of_tile, width, scratch, SHARE_STRIDE)
            counts[:] = 0
            for engine in range(4):
                count_bytes(scratch + engine * SHARE_STRIDE, length, counts)
            sum_counts(counts, totals)
            rank_bytes(totals, 36, dictionary)
            coded = code_low_plainly(scratch, length, dictionary, codes, units, target + used)
            entry = np.uint64(1 << 15)
            if coded == 0:
                coded = store_raw(scratch, length, target + used)
                entry = np.uint64(0)
            index[tile] = entry | np.uint64(coded // 128)
            tile += 1
            used += coded
    return used


def encode_plainly(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The payloads (int8) and index entries (uint64, without offsets) of an int8 matrix [n, k], C-contiguous."""
    tiling = Tiling(*weight.shape)
    target = np.empty(tiling.coded_bytes + TARGET_SLACK, np.int8)
    index = np.zeros(tiling.tiles, np.uint64)
    scratch = np.empty(SCRATCH_BYTES, np.uint8)
    n, k = weight.shape
    used = _encode(address_of(weight), weight.strides[0], n, k, address_of(target), index, address_of(scratch))
    return target[:used], index
