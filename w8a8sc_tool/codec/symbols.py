"""Tiles as symbols: 64 bytes at a time, to be counted, looked up and merged without a branch on single bytes."""

# The first steps of the fast coders of both modes, for tiles whose bytes are nearly all close to 0:
#
# 1. Symbols. 64 bytes at a time become 64 symbols of 5 bits: bytes near 0 stand for themselves, and six symbols have a
#    meaning: a run of 1 to 4 common bytes, of which the other bytes are skipped, and a byte that is far from 0, which
#    goes to a list. Two symbols make an index of 10 bits, stored as 16.
# 2. Counts. The indices are counted, one increment for two bytes. Which byte is common is not known before that, so it
#    is guessed, to be the one of the tile before; a wrong guess leaves the counts right, and step 1 is done again.
# 3. Look-up. A table of all 1024 indices has the codes of both symbols. Where one of them is a far byte, the entry is
#    made on its own, from the list.
# 4. Merging. 8 bytes' codes become a word, with a second word that has a 1 at the bit where each code begins: all codes
#    are multiples of 3 bits long, so a code may be shifted by bits, and what marks its begin with it.

from __future__ import annotations

import numpy as np

from .format import HIGH, LOW, TILE_BYTES
from .intrinsics import load8, load16, load32, load64, lowest_bit, store16, store32, store64
from .jit import part
from .shares import SHARE_BYTES, SHARE_STRIDE, SLACK
from .streams import MARKS_STRIDE
from .vectors import (
    U8x64,
    U16x32,
    U32x32,
    U64x8,
    above,
    choose,
    lane,
    load,
    lower_half,
    reinterpret,
    splat,
    store,
    sum_of_lanes,
    upper_half,
)

# Symbols 0 to 25 are the bytes -13 to 12, the six above have a meaning. 32 symbols keep the table of pairs (4 KiB) and
# the tables of counts (16 KiB) in the nearest cache.
SYMBOL_BITS = 5
SYMBOLS = 1 << SYMBOL_BITS
LOWEST = -13
NEAR = 26
RUN_1 = 26  # a common byte alone
RUN_2 = 27  # the first of two
RUN_3 = 28  # of three
RUN_4 = 29
SKIP = 30  # the other bytes of a run: no code of their own
FAR = 31  # a byte outside of -13 to 12
_PAIRS_OF_SYMBOLS = SYMBOLS * SYMBOLS

# Far bytes cost more here than in the plain coders. As soon as more than 1/8 of the bytes seen so far are far ones (and
# some more, as they may crowd at the beginning), the tile is left to those.
_FAR_SLOPE = 8
_FAR_ALLOWANCE = 256
MOST_FAR = TILE_BYTES // _FAR_SLOPE + _FAR_ALLOWANCE + 64  # checked after every 64 bytes

_RUNS = np.array([[mode.runs.get(run, (0, 3))[0] for run in range(5)] for mode in (LOW, HIGH)], np.int64)  # codes
assert all(mode.runs.get(run, (0, 3))[1] == 3 for mode in (LOW, HIGH) for run in range(1, 5))  # bits


def _aligned(offset: int) -> int:
    """Rounded up to whole cache lines."""
    return -(-offset // 64) * 64


# Behind the shares in scratch memory. Parts that are used side by side lie 64 bytes more than a power of two apart:
# processors take addresses that agree in their low 12 bits for the same for a moment.
INDICES_AT = 4 * SHARE_STRIDE  # uint16 for every two bytes of the tile, engine after engine
FAR_AT = INDICES_AT + TILE_BYTES + SLACK  # uint16: positions of far bytes, SHARE_BYTES * engine + byte, ascending
SEGMENTS_AT = FAR_AT + 2 * MOST_FAR  # uint64 [5]: where each engine's part of that list begins; its end
NEXT_FAR_AT = SEGMENTS_AT + 5 * 8  # uint64 [4]: how far step 3 has come in each engine's part
CHECKSUMS_AT = NEXT_FAR_AT + 4 * 8  # uint64 [4]
COUNTS_AT = _aligned(CHECKSUMS_AT + 4 * 8)  # uint16 [8, 1024]: by an index's place in 16 bytes
_COUNT_TABLES = 8
_COUNTS_STRIDE = 2 * _PAIRS_OF_SYMBOLS + 64
_COLUMNS_AT = COUNTS_AT + _COUNT_TABLES * _COUNTS_STRIDE  # uint16 [32]
_ENTRIES_AT = _COLUMNS_AT + 2 * SYMBOLS  # uint32 [256 + 32]: an entry for every byte, and for every symbol
TABLE_AT = _ENTRIES_AT + 4 * (256 + SYMBOLS)  # uint32 [1024]: an entry for every index
CODES_AT = TABLE_AT + 4 * _PAIRS_OF_SYMBOLS  # uint32 [2, groups of 8 bytes, 2]: entries of the pairs in each group
HALF_BYTES = SHARE_BYTES + 64
# One bit per byte of a share: where it is common, and where 8 common bytes are in front of it as well.
COMMON_AT = CODES_AT + 2 * HALF_BYTES
LONG_AT = COMMON_AT + 4 * MARKS_STRIDE
SYMBOLS_END = LONG_AT + 4 * MARKS_STRIDE


@part
def _note_far(far, position, target):
    """Append the positions of the 1s in the bitmap `far` to the list that ends at `target`; returns its new end.

    The first two without a branch: in most weights there are seldom more among 64 bytes.
    """
    for _ in range(2):
        store16(target, position + lowest_bit(far))
        target += 2 * np.int64(far != 0)
        far &= far - np.uint64(1)
    while far:
        store16(target, position + lowest_bit(far))
        target += 2
        far &= far - np.uint64(1)
    return target


@part
def checksum(mixed):
    """XOR of the bytes at odd positions (low byte of the result) and of those at even ones."""
    words = reinterpret(U64x8, mixed)
    halves = lower_half(words) ^ upper_half(words)
    word = lane(halves, 0) ^ lane(halves, 1) ^ lane(halves, 2) ^ lane(halves, 3)
    word ^= word >> np.uint64(32)
    word ^= word >> np.uint64(16)
    return (word >> np.uint64(8) & np.uint64(255)) | (word & np.uint64(255)) << np.uint64(8)


@part
def symbols_of(engine, position, values, is_common, far_end):
    """64 bytes' symbols as far as single bytes tell: (symbols, new end of the list of far bytes).

    values: uint8x64, the bytes of an engine from `position` on; is_common: bitmap of the common ones, which become
    RUN_1; far_end: address.
    """
    symbols = values - LOWEST
    far = above(symbols, splat(U8x64, NEAR - 1)) & ~is_common
    symbols = choose(far, splat(U8x64, FAR), symbols)
    symbols = choose(is_common, splat(U8x64, RUN_1), symbols)
    return symbols, _note_far(far, engine * SHARE_BYTES + position, far_end)


@part
def store_indices(scratch, engine, position, symbols):
    """Store the indices of 64 symbols (uint8x64)."""
    both = reinterpret(U16x32, symbols)  # the second one begins at bit 8
    first = both & (SYMBOLS - 1)
    second = (both >> (8 - SYMBOL_BITS)) & ((SYMBOLS - 1) << SYMBOL_BITS)
    store(scratch + INDICES_AT + engine * SHARE_BYTES + position, first | second)


@part
def is_far_too_often(scratch, engine, position, length, far_end):
    """Whether the list of far bytes is too long when 64 bytes from `position` on have been seen."""
    seen = engine * length + position + 64
    return far_end > scratch + FAR_AT + 2 * (_FAR_ALLOWANCE + seen // _FAR_SLOPE)


@part
def is_near(totals, common, length):
    """Whether a tile has few enough far bytes for a fast coder, by its counts (int64 [256])."""
    far = np.int64(4 * length)
    for symbol in range(NEAR):
        far -= totals[(symbol + LOWEST) & 255]
    if (common - LOWEST) & 255 >= NEAR:
        far -= totals[common]
    return far <= 4 * length // _FAR_SLOPE


@part
def count_symbols(scratch, length, common, totals):
    """Step 2: how often each byte occurs in a tile, into totals (int64 [256]), after step 1 with this common byte."""
    counts = scratch + COUNTS_AT
    for address in range(counts, counts + _COUNT_TABLES * _COUNTS_STRIDE, 64):
        store(address, splat(U8x64, 0))
    for engine in range(4):
        begin = scratch + INDICES_AT + engine * SHARE_BYTES
        # Several tables in turn: counting the same index again soon would have to wait for the store before.
        for address in range(begin, begin + length, 2 * _COUNT_TABLES):
            for number in range(_COUNT_TABLES):
                cell = counts + number * _COUNTS_STRIDE + 2 * load16(address + 2 * number)
                store16(cell, load16(cell) + 1)
    columns = splat(U16x32, 0)  # a tile has 16384 indices: sums fit
    totals[:] = 0
    for second in range(SYMBOLS):
        row = splat(U16x32, 0)
        for number in range(_COUNT_TABLES):
            row += load(U16x32, counts + number * _COUNTS_STRIDE + 2 * SYMBOLS * second)
        columns += row
        _add_symbols(second, np.int64(sum_of_lanes(row)), common, totals)
    store(scratch + _COLUMNS_AT, columns)
    for first in range(SYMBOLS):
        _add_symbols(first, load16(scratch + _COLUMNS_AT + 2 * first), common, totals)
    far_end = np.int64(load64(scratch + SEGMENTS_AT + 32))
    for entry in range(scratch + FAR_AT, far_end, 2):
        position = load16(entry)
        totals[load8(scratch + (position >> 13) * SHARE_STRIDE + (position & (SHARE_BYTES - 1)))] += 1


@part
def _add_symbols(symbol, count, common, totals):
    """Count a symbol that occurs `count` times as the byte that it stands for; far ones are counted from their list."""
    if symbol < NEAR:
        totals[(symbol + LOWEST) & 255] += count
    elif symbol != FAR:
        totals[common] += count


@part
def _entry(code, bits):
    """A code and its length in bits as they stand in tables: 24 bits have room for two codes, 4 for a length."""
    return code | bits << 24


@part
def fill_symbol_tables(scratch, high, codes, units):
    """The entries of bytes, symbols and pairs of symbols under a tile's dictionary.

    An entry holds the codes of two symbols one after the other (24 bits), the length of the first in bits (4), and that
    of the second (4). codes, units: as `fill_tables` leaves them, not shifted.
    """
    entries = scratch + _ENTRIES_AT
    for byte in range(256):
        store32(entries + 4 * byte, _entry(np.int64(codes[byte]), 3 * np.int64(units[byte])))
    symbols = entries + 4 * 256
    for symbol in range(NEAR):
        store32(symbols + 4 * symbol, load32(entries + 4 * ((symbol + LOWEST) & 255)))
    for run in range(1, 5):
        store32(symbols + 4 * (RUN_1 + run - 1), _entry(_RUNS[high, run], 3))
    store32(symbols + 4 * SKIP, _entry(0, 0))
    store32(symbols + 4 * FAR, _entry(0, 0))
    first = load(U32x32, symbols)
    for symbol in range(SYMBOLS):
        second = load32(symbols + 4 * symbol)
        both = first | (splat(U32x32, second & 0xFFFFFF) << (first >> 24)) | (second >> 24 << 28)
        store(scratch + TABLE_AT + 4 * SYMBOLS * symbol, both)


@part
def look_up(scratch, engine, begin, size, target, spacing):
    """Step 3 for `size` bytes of one engine from `begin` on, a multiple of 8: the entries of all pairs of symbols.

    8 bytes make a group; target: address for the first, the next ones `spacing` bytes apart. The entries of pairs 0 and
    1 of all groups come first, then, HALF_BYTES behind, those of pairs 2 and 3, so that a vector takes the same from
    several groups.
    """
    table = scratch + TABLE_AT
    indices = scratch + INDICES_AT + engine * SHARE_BYTES + begin
    for position in range(0, size, 8):
        cell = target + position // 8 * spacing
        store32(cell, load32(table + 4 * load16(indices + position)))
        store32(cell + 4, load32(table + 4 * load16(indices + position + 2)))
        store32(cell + HALF_BYTES, load32(table + 4 * load16(indices + position + 4)))
        store32(cell + HALF_BYTES + 4, load32(table + 4 * load16(indices + position + 6)))


@part
def put_far(scratch, engine, begin, end, target, spacing):
    """Step 3 for the far bytes of one engine between `begin` and `end`: overwrite the entries that hold them.

    target, spacing: as of `look_up`. Goes on in the list of far bytes where it has stopped.
    """
    far = np.int64(load64(scratch + NEXT_FAR_AT + 8 * engine))
    last = np.int64(load64(scratch + SEGMENTS_AT + 8 * engine + 8))
    indices = scratch + INDICES_AT + engine * SHARE_BYTES
    share = scratch + engine * SHARE_STRIDE
    while far < last:
        position = load16(far) & (SHARE_BYTES - 1)
        if position >= end:
            break
        even = position & ~1
        index = load16(indices + even)
        first = load32(scratch + _ENTRIES_AT + 4 * _entry_number(index & (SYMBOLS - 1), load8(share + even)))
        second = load32(scratch + _ENTRIES_AT + 4 * _entry_number(index >> SYMBOL_BITS, load8(share + even + 1)))
        entry = first | (second & 0xFFFFFF) << (first >> 24) | second >> 24 << 28
        cell = target + ((even - begin) >> 3) * spacing  # where look_up has put it
        store32(cell + HALF_BYTES * (even >> 2 & 1) + 2 * (even & 2), entry)
        far += 2
    store64(scratch + NEXT_FAR_AT + 8 * engine, np.uint64(far))


@part
def _entry_number(symbol, byte):
    """Where the entry of a symbol stands, which may be that of a far byte."""
    return byte if symbol == FAR else 256 + symbol


@part
def symbol_bits(scratch, symbol, byte):
    """The length of a symbol's code, which may be that of a far byte."""
    return load32(scratch + _ENTRIES_AT + 4 * _entry_number(symbol, byte)) >> 24


@part
def merge(entries):
    """Step 4 for 4 bytes in each lane: (codes, begins, bits) from the entries of two pairs, all uint64x8.

    codes: up to 48 bits, the first byte's lowest; begins: a 1 where the codes of all bytes but the first begin; bits:
    how many there are.
    """
    lengths = (entries >> 24) & 0xFF
    bits_0 = lengths & 15
    half = bits_0 + (lengths >> 4)
    bits_2 = (entries >> 56) & 15
    codes = (entries & 0xFFFFFF) | ((entries >> 32) & 0xFFFFFF) << half
    one = splat(U64x8, 1)
    begins = (one << bits_0) | ((one << bits_2) | 1) << half
    return codes, begins, half + bits_2 + (entries >> 60)
