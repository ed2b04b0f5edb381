"""The steps of the low-sparse encoder, each timed as what it adds to the ones before it."""

from __future__ import annotations

import statistics
import time

import numba
import numpy as np

from w8a8sc_tool.codec import encode_low_vectors as coder
from w8a8sc_tool.codec.dictionary import rank_bytes
from w8a8sc_tool.codec.encode import SCRATCH_BYTES, TARGET_SLACK
from w8a8sc_tool.codec.encode_low_plain import LOW_CODES, LOW_UNITS
from w8a8sc_tool.codec.format import TILE_BYTES, TILE_COLUMNS, TILE_ROWS
from w8a8sc_tool.codec.kernels import address_of
from w8a8sc_tool.codec.shares import SHARE_BYTES, SHARE_STRIDE, deal_tile
from w8a8sc_tool.codec.streams import CODES, fill_tables
from w8a8sc_tool.codec.symbols import (
    CODES_AT,
    NEXT_FAR_AT,
    SEGMENTS_AT,
    count_symbols,
    fill_symbol_tables,
    look_up,
    put_far,
)
from w8a8sc_tool.codec.vectors import U64x4, lane, load, splat, store

from . import measure, weights

STEPS = (
    "deal to engines (ND to NZ)",
    "symbols",
    "count",
    "rank",
    "tables",
    "look up",
    "far bytes",
    "merge and cut",
    "headers and ends",
)
ROWS = 1024


@numba.njit(nogil=True, boundscheck=False, error_model="numpy")
def _encode(steps, source, stride, n, k, target, scratch):  # type: ignore[no-untyped-def]
    """The first so many steps for every tile of a matrix [n, k] of whole tiles; as `encode_tiles` does them, but that
    nothing is fetched ahead."""
    dictionary = np.zeros(36, np.uint8)
    totals = np.empty(256, np.int64)
    codes = np.empty(CODES, np.uint64)
    units = np.empty(CODES, np.uint8)
    done = np.int64(0)
    for top in range(0, n, TILE_ROWS):
        for left in range(0, k, TILE_COLUMNS):
            corner = source + top * stride + left
            deal_tile(corner, stride, n - top, k - left, 8, 8, scratch, SHARE_STRIDE)
            common = np.int64(dictionary[0])
            if steps > 1 and not coder.find_symbols(scratch, SHARE_BYTES, common):
                return np.int64(-1)
            if steps > 2:
                count_symbols(scratch, SHARE_BYTES, common, totals)
            if steps > 3:
                rank_bytes(totals, 36, dictionary)
            if steps > 8:
                done += coder.code_symbols(scratch, SHARE_BYTES, dictionary, codes, units, target, (0, 0, 0))
            elif steps > 4:
                fill_tables(dictionary, 36, LOW_CODES, LOW_UNITS, 0, codes, units)
                fill_symbol_tables(scratch, 0, codes, units)
                done += _code_chunks(steps, scratch, target)
    return done


@numba.njit(nogil=True, boundscheck=False, error_model="numpy")
def _code_chunks(steps, scratch, target):  # type: ignore[no-untyped-def]
    """The steps that go chunk by chunk, as `code_symbols` does them."""
    packet = used = splat(U64x4, 0)
    places = splat(U64x4, 40)
    store(scratch + NEXT_FAR_AT, load(U64x4, scratch + SEGMENTS_AT))
    for begin in range(0, SHARE_BYTES, coder.CHUNK):
        for engine in range(4):
            if steps > 5:
                look_up(scratch, engine, begin, coder.CHUNK, scratch + CODES_AT + 8 * engine, 32)
            if steps > 6:
                put_far(scratch, engine, begin, begin + coder.CHUNK, scratch + CODES_AT + 8 * engine, 32)
        if steps > 7:
            packet, used, places = coder.merge_and_cut(scratch, coder.CHUNK, packet, used, places, target)
    return np.int64(lane(places, 0))


def run(rounds: int) -> dict[str, float]:
    """Nanoseconds per byte that each step adds, medians; prints them as a table."""
    weight = weights.recipe(ROWS, "qwen3-8b")
    target = np.empty(TILE_BYTES + TARGET_SLACK, np.uint8)
    scratch = np.empty(SCRATCH_BYTES, np.uint8)
    addresses = (address_of(weight), weight.strides[0], *weight.shape, address_of(target), address_of(scratch))
    tasks = {name: lambda steps=number + 1: _encode(steps, *addresses) for number, name in enumerate(STEPS)}
    times = measure.in_turns(rounds, clock=time.thread_time, **tasks)
    upto = [statistics.median(times[name]) / weight.nbytes * 1e9 for name in STEPS]
    added = {name: after - before for name, before, after in zip(STEPS, [0.0, *upto], upto)}
    measure.table(
        [["step of encoding", "ns per byte", "of all"]]
        + [[name, f"{max(value, 0):.2f}", f"{100 * max(value, 0) / upto[-1]:.0f} %"] for name, value in added.items()]
    )
    return added
