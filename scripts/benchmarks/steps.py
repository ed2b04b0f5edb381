"""The steps of the low-sparse encoder, each timed as what it adds to the ones before it."""

from __future__ import annotations

import statistics

import numba
import numpy as np

from w8a8sc_tool.codec import dictionary as ranks
from w8a8sc_tool.codec import encode as encoder
from w8a8sc_tool.codec.memory import address_of
from w8a8sc_tool.codec.tables import TILE_BYTES, TILE_COLUMNS, TILE_ROWS
from w8a8sc_tool.codec.tiling import deal_tile, xor_bytes

from . import measure, weights

STEPS = ("deal to engines (ND to NZ)", "count", "rank", "fill tables", "string of codes", "cut packets", "header")
ROWS = 2048

_SHARE = TILE_BYTES // 4


@numba.njit(nogil=True, boundscheck=False, error_model="numpy")  # type: ignore[misc]
def _encode(steps, source, stride, n, k, target, scratch):  # type: ignore[no-untyped-def]
    """The first so many steps for every tile of a matrix [n, k] of whole tiles; as `encode_tiles` does them."""
    counts = np.empty((8, 256), np.int32)
    dictionary = np.arange(36).astype(np.uint8)
    codes = np.empty(encoder.CODES, np.uint64)
    units = np.empty(encoder.CODES, np.uint8)
    string = scratch + 4 * encoder.SHARE_STRIDE
    starts = string + encoder._STRING_BYTES
    done = 0
    for top in range(0, n, TILE_ROWS):
        for left in range(0, k, TILE_COLUMNS):
            corner = source + top * stride + left
            deal_tile(corner, stride, n - top, k - left, 8, 8, scratch, encoder.SHARE_STRIDE)
            if steps > 1:
                counts[:] = 0
                for engine in range(4):
                    ranks.count_bytes(scratch + engine * encoder.SHARE_STRIDE, _SHARE, counts)
            if steps > 2:
                ranks.rank_bytes(counts, 36, dictionary)
            if steps > 3:
                encoder._fill_tables(dictionary, 36, encoder._LOW_CODES, encoder._LOW_UNITS, 1, codes, units)
            for engine in range(4):
                share = scratch + engine * encoder.SHARE_STRIDE
                if steps > 4:
                    common = np.int64(dictionary[0])
                    total = encoder._string_of_codes(share, _SHARE, common, codes, units, string, starts)
                    done += total
                if steps > 5:
                    done += encoder._cut_packets(string, starts, total, _SHARE, target, engine)
                if steps > 6:
                    encoder._write_header(target, engine, _SHARE, False, dictionary, xor_bytes(share, _SHARE))
    return done


def run(rounds: int) -> dict[str, float]:
    """Nanoseconds per byte that each step adds, medians; prints them as a table."""
    weight = weights.recipe(ROWS)
    target = np.empty(TILE_BYTES + encoder.TARGET_SLACK, np.uint8)
    scratch = np.empty(encoder.SCRATCH_BYTES, np.uint8)
    place = (address_of(weight), weight.strides[0], *weight.shape, address_of(target), address_of(scratch))
    tasks = {name: lambda steps=number + 1: _encode(steps, *place) for number, name in enumerate(STEPS)}
    times = measure.in_turns(rounds, **tasks)
    upto = [statistics.median(times[name]) / weight.nbytes * 1e9 for name in STEPS]
    added = {name: after - before for name, before, after in zip(STEPS, [0.0, *upto], upto)}
    measure.table(
        [["step of encoding", "ns per byte", "of all"]]
        + [[name, f"{max(value, 0):.2f}", f"{100 * max(value, 0) / upto[-1]:.0f} %"] for name, value in added.items()]
    )
    return added
