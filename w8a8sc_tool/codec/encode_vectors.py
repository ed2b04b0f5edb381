"""The fast low-sparse coder: many bytes at a time, for tiles whose bytes are nearly all close to 0."""

# Nothing here goes byte by byte, nor branches on single bytes. A tile passes through these steps:
#
# 1. Symbols. 64 bytes at a time become 64 symbols of 5 bits: bytes near 0 stand for themselves, and four symbols have a
#    meaning: a common byte alone, the first and the second of a pair, and a byte that is far from 0, which goes to a
#    list. Two symbols make an index of 10 bits, stored as 16.
# 2. Counts. The indices are counted, one increment for two bytes. Which byte is common is not known before that, so it
#    is guessed, to be the one of the tile before; a wrong guess leaves the counts right, and step 1 is done again.
# 3. Look-up. A table of all 1024 indices has the codes of both symbols. Where one of them is a far byte, the entry is
#    made on its own, from the list.
# 4. Merging. 8 bytes' codes become a word, with a second word that has a 1 at the bit where each code begins: all codes
#    are multiples of 3 bits long, so a code may be shifted by bits, and what marks its begin with it.
# 5. Cutting. A group of up to 63 bits ends at most one packet, so all four engines append a group at a time, each in a
#    lane of its own, without a branch.
#
# Steps 3 to 5 run over 1024 bytes of each engine at a time: what one step stores should still be in the nearest cache
# when the next one loads it, but it must have left the processor's store buffer, because a wide load of what several
# narrow stores have just written has to wait for that.

from __future__ import annotations

import numpy as np

from .encode_low import LOW_CODES, LOW_UNITS
from .jit import part
from .memory import load8, load16, load32, load64, lowest_bit, store16, store32, store64
from .streams import ONES, SHARE_BYTES, SHARE_STRIDE, SLACK, end_stream, fill_tables, pad_streams, write_header
from .tables import HEADER_BYTES, LOW, TILE_BYTES
from .vectors import (
    U8x64,
    U16x32,
    U32x32,
    U64x4,
    U64x8,
    above,
    choose,
    equal,
    floor_log2,
    lane,
    lane_numbers,
    load,
    lower_half,
    prefetch,
    reinterpret,
    splat,
    store,
    sum_of_lanes,
    upper_half,
)

# Symbols 0 to 27 are the bytes -14 to 13, the four above have a meaning. 32 symbols keep the table of pairs (4 KiB) and
# the tables of counts (16 KiB) in the nearest cache.
_SYMBOL_BITS = 5
_SYMBOLS = 1 << _SYMBOL_BITS
_LOWEST = -14
_NEAR = 28
_SINGLE = 28  # a common byte that no pair is made of
_PAIR = 29  # the first byte of a pair
_SKIP = 30  # the second byte of a pair: no code of its own
_FAR = 31  # a byte outside of -14 to 13
_PAIRS_OF_SYMBOLS = _SYMBOLS * _SYMBOLS

# Far bytes cost more here than in the plain coder. As soon as more than 1/8 of the bytes seen so far are far ones (and
# some more, as they may crowd at the beginning), the tile is left to it.
_FAR_SLOPE = 8
_FAR_ALLOWANCE = 256
_MOST_FAR = TILE_BYTES // _FAR_SLOPE + _FAR_ALLOWANCE + 64  # checked after every 64 bytes

_CHUNK = 1024  # bytes of each engine that steps 3 to 5 take at a time
_EVEN = np.uint64(0x5555555555555555)


def _aligned(offset: int) -> int:
    """Rounded up to whole cache lines."""
    return -(-offset // 64) * 64


# Behind the shares in scratch memory. Parts that are used side by side lie 64 bytes more than a power of two apart:
# processors take addresses that agree in their low 12 bits for the same for a moment.
_INDICES_AT = 4 * SHARE_STRIDE  # uint16 for every two bytes of the tile, engine after engine
_FAR_AT = _INDICES_AT + TILE_BYTES + SLACK  # uint16: positions of far bytes, SHARE_BYTES * engine + byte, ascending
_SEGMENTS_AT = _FAR_AT + 2 * _MOST_FAR  # uint64 [5]: where each engine's part of that list begins; its end
_NEXT_FAR_AT = _SEGMENTS_AT + 5 * 8  # uint64 [4]: how far step 3 has come in each engine's part
_CHECKSUMS_AT = _NEXT_FAR_AT + 4 * 8  # uint64 [4]
_COUNTS_AT = _aligned(_CHECKSUMS_AT + 4 * 8)  # uint16 [8, 1024]: by an index's place in 16 bytes
_COUNT_TABLES = 8
_COUNTS_STRIDE = 2 * _PAIRS_OF_SYMBOLS + 64
_COLUMNS_AT = _COUNTS_AT + _COUNT_TABLES * _COUNTS_STRIDE  # uint16 [32]
_ENTRIES_AT = _COLUMNS_AT + 2 * _SYMBOLS  # uint32 [256 + 32]: an entry for every byte, and for every symbol
_TABLE_AT = _ENTRIES_AT + 4 * (256 + _SYMBOLS)  # uint32 [1024]: an entry for every index
_CODES_AT = _TABLE_AT + 4 * _PAIRS_OF_SYMBOLS  # uint32 [2, _CHUNK / 8, 4 engines, 2]: entries of a chunk's pairs
_HALF_BYTES = 4 * _CHUNK + 64
SCRATCH_BYTES = _CODES_AT + 2 * _HALF_BYTES + SLACK

# A chunk starts only where every engine's stream is shorter than its share. It adds at most 12 bits for every byte, and
# a full packet holds at least 52 of them, because no code is longer than 12 bits. Two more packets: the one that is not
# full, and the end mark's. And the 32 bytes in which a stream is woven may just have been begun.
_MOST_PACKETS = (63 + 12 * _CHUNK) // 52 + 2
TARGET_SLACK = 4 * (8 * _MOST_PACKETS + 32)

assert LOW.runs == {1: (0, 3), 2: (4, 3)}  # what _SINGLE and _PAIR stand for below


@part
def _pairs(common, next_common, pending):
    """How a run of common bytes falls into pairs, for 64 bytes: (first bytes, second bytes, pending).

    common: bitmap of the common bytes among these; next_common: among the next 64; pending: 1 if the byte before these
    is common and waits for a second one. The pending returned says so of the last of these.
    """
    begins = common & ~(common << np.uint64(1))
    # Adding the bit at which a run begins makes all of its bits 0. What is left then tells the runs that begin at even
    # positions from the others; one that goes on from the byte pending is like one that begins at an odd position.
    from_even = common & ~(common + (begins & _EVEN & ~pending))
    second = (from_even & ~_EVEN) | (common & ~from_even & _EVEN)
    pending = (common & ~second) >> np.uint64(63)
    first = (second >> np.uint64(1)) | ((pending & next_common) << np.uint64(63))
    return first, second, pending


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
def _share_symbols(scratch, engine, length, common, far_end):
    """Step 1 for one engine; returns the new end of the list of far bytes, 0 if there are too many of them."""
    share = scratch + engine * SHARE_STRIDE
    indices = scratch + _INDICES_AT + engine * SHARE_BYTES
    allowed = scratch + _FAR_AT + 2 * (_FAR_ALLOWANCE + engine * length // _FAR_SLOPE)  # where the list may end
    commons = splat(U8x64, common)
    mixed = splat(U8x64, 0)
    pending = np.uint64(0)
    is_common = equal(load(U8x64, share), commons)
    for position in range(0, length, 64):
        values = load(U8x64, share + position)
        mixed ^= values
        next_common = equal(load(U8x64, share + position + 64), commons) & np.uint64(-np.int64(position + 64 < length))
        first, second, pending = _pairs(is_common, next_common, pending)
        symbols = values - _LOWEST
        far = above(symbols, splat(U8x64, _NEAR - 1)) & ~is_common
        symbols = choose(far, splat(U8x64, _FAR), symbols)
        symbols = choose(is_common, splat(U8x64, _SINGLE), symbols)
        symbols = choose(first, splat(U8x64, _PAIR), symbols)
        symbols = choose(second, splat(U8x64, _SKIP), symbols)
        both = reinterpret(U16x32, symbols)
        store(indices + position, (both & 31) | ((both >> 3) & (31 << 5)))
        far_end = _note_far(far, engine * SHARE_BYTES + position, far_end)
        if far_end > allowed + 2 * (position + 64) // _FAR_SLOPE:
            return 0
        is_common = next_common
    store64(scratch + _CHECKSUMS_AT + 8 * engine, _checksum(mixed))
    return far_end


@part
def _checksum(mixed):
    """XOR of the bytes at odd positions (low byte of the result) and of those at even ones."""
    words = reinterpret(U64x8, mixed)
    halves = lower_half(words) ^ upper_half(words)
    word = lane(halves, 0) ^ lane(halves, 1) ^ lane(halves, 2) ^ lane(halves, 3)
    word ^= word >> np.uint64(32)
    word ^= word >> np.uint64(16)
    return (word >> np.uint64(8) & np.uint64(255)) | (word & np.uint64(255)) << np.uint64(8)


@part
def find_symbols(scratch, length, common):
    """Step 1: the symbols of a tile if `common` is its common byte; returns whether its bytes are near enough to 0.

    scratch: address of SCRATCH_BYTES that begin with the four shares, of `length` bytes each. Receives the indices, the
    list of far bytes and the checksums.
    """
    far_end = scratch + _FAR_AT
    for engine in range(4):
        store64(scratch + _SEGMENTS_AT + 8 * engine, np.uint64(far_end))
        far_end = _share_symbols(scratch, engine, length, common, far_end)
        if far_end == 0:
            return False
    store64(scratch + _SEGMENTS_AT + 32, np.uint64(far_end))
    return True


@part
def is_near(totals, common, length):
    """Whether the plain counts of a tile (int64 [256]) say that `find_symbols` would accept it: few far bytes."""
    far = np.int64(4 * length)
    for symbol in range(_NEAR):
        far -= totals[(symbol + _LOWEST) & 255]
    if (common - _LOWEST) & 255 >= _NEAR:
        far -= totals[common]
    return far <= 4 * length // _FAR_SLOPE


@part
def count_symbols(scratch, length, common, totals):
    """Step 2: how often each byte occurs in a tile, into totals (int64 [256]), after find_symbols(..., common)."""
    counts = scratch + _COUNTS_AT
    for place in range(counts, counts + _COUNT_TABLES * _COUNTS_STRIDE, 64):
        store(place, splat(U8x64, 0))
    for engine in range(4):
        begin = scratch + _INDICES_AT + engine * SHARE_BYTES
        # Several tables in turn: counting the same index again soon would have to wait for the store before.
        for place in range(begin, begin + length, 2 * _COUNT_TABLES):
            for number in range(_COUNT_TABLES):
                cell = counts + number * _COUNTS_STRIDE + 2 * load16(place + 2 * number)
                store16(cell, load16(cell) + 1)
    columns = splat(U16x32, 0)  # a tile has 16384 indices: sums fit
    totals[:] = 0
    for second in range(_SYMBOLS):
        row = splat(U16x32, 0)
        for number in range(_COUNT_TABLES):
            row += load(U16x32, counts + number * _COUNTS_STRIDE + 2 * _SYMBOLS * second)
        columns += row
        _add_symbols(second, np.int64(sum_of_lanes(row)), common, totals)
    store(scratch + _COLUMNS_AT, columns)
    for first in range(_SYMBOLS):
        _add_symbols(first, load16(scratch + _COLUMNS_AT + 2 * first), common, totals)
    far_end = np.int64(load64(scratch + _SEGMENTS_AT + 32))
    for entry in range(scratch + _FAR_AT, far_end, 2):
        position = load16(entry)
        totals[load8(scratch + (position >> 13) * SHARE_STRIDE + (position & (SHARE_BYTES - 1)))] += 1


@part
def _add_symbols(symbol, count, common, totals):
    """Count a symbol that occurs `count` times as the byte that it stands for; far ones are counted from their list."""
    if symbol < _NEAR:
        totals[(symbol + _LOWEST) & 255] += count
    elif symbol != _FAR:
        totals[common] += count


@part
def _entry(code, bits):
    """A code and its length in bits as they stand in tables: 24 bits have room for two codes, 4 for a length."""
    return code | bits << 24


@part
def fill_symbol_tables(scratch, dictionary, codes, units):
    """The entries of bytes, symbols and pairs of symbols under a tile's dictionary.

    An entry holds the codes of two symbols one after the other (24 bits), the length of the first in bits (4), and that
    of the second (4). codes, units: as of `fill_tables`, to be filled.
    """
    fill_tables(dictionary, 36, LOW_CODES, LOW_UNITS, 0, codes, units)
    entries = scratch + _ENTRIES_AT
    for byte in range(256):
        store32(entries + 4 * byte, _entry(np.int64(codes[byte]), 3 * np.int64(units[byte])))
    symbols = entries + 4 * 256
    for symbol in range(_NEAR):
        store32(symbols + 4 * symbol, load32(entries + 4 * ((symbol + _LOWEST) & 255)))
    store32(symbols + 4 * _SINGLE, _entry(0, 3))
    store32(symbols + 4 * _PAIR, _entry(4, 3))
    store32(symbols + 4 * _SKIP, _entry(0, 0))
    store32(symbols + 4 * _FAR, _entry(0, 0))
    first = load(U32x32, symbols)
    for symbol in range(_SYMBOLS):
        second = load32(symbols + 4 * symbol)
        both = first | (splat(U32x32, second & 0xFFFFFF) << (first >> 24)) | (second >> 24 << 28)
        store(scratch + _TABLE_AT + 4 * _SYMBOLS * symbol, both)


@part
def look_up(scratch, engine, begin, size):
    """Step 3 for `size` bytes of one engine from `begin` on, a multiple of 8: the entries of all pairs of symbols.

    8 bytes make a group; the engines' groups lie in turn. The entries of pairs 0 and 1 of all groups come first, then
    those of pairs 2 and 3, so that a vector takes the same from several groups.
    """
    table = scratch + _TABLE_AT
    indices = scratch + _INDICES_AT + engine * SHARE_BYTES + begin
    entries = scratch + _CODES_AT + 8 * engine
    for position in range(0, size, 8):
        place = entries + 4 * position
        store32(place, load32(table + 4 * load16(indices + position)))
        store32(place + 4, load32(table + 4 * load16(indices + position + 2)))
        store32(place + _HALF_BYTES, load32(table + 4 * load16(indices + position + 4)))
        store32(place + _HALF_BYTES + 4, load32(table + 4 * load16(indices + position + 6)))


@part
def put_far(scratch, engine, begin, end):
    """Step 3 for the far bytes of one engine between `begin` and `end`: overwrite the entries that hold them.

    Goes on in the list of far bytes where it has stopped.
    """
    far = np.int64(load64(scratch + _NEXT_FAR_AT + 8 * engine))
    last = np.int64(load64(scratch + _SEGMENTS_AT + 8 * engine + 8))
    indices = scratch + _INDICES_AT + engine * SHARE_BYTES
    share = scratch + engine * SHARE_STRIDE
    target = scratch + _CODES_AT + 8 * engine - 4 * begin
    while far < last:
        position = load16(far) & (SHARE_BYTES - 1)
        if position >= end:
            break
        even = position & ~1
        index = load16(indices + even)
        first = load32(scratch + _ENTRIES_AT + 4 * _entry_number(index & (_SYMBOLS - 1), load8(share + even)))
        second = load32(scratch + _ENTRIES_AT + 4 * _entry_number(index >> _SYMBOL_BITS, load8(share + even + 1)))
        entry = first | (second & 0xFFFFFF) << (first >> 24) | second >> 24 << 28
        # Where look_up has put it.
        store32(target + 4 * (even & ~7) + _HALF_BYTES * (even >> 2 & 1) + 2 * (even & 2), entry)
        far += 2
    store64(scratch + _NEXT_FAR_AT + 8 * engine, np.uint64(far))


@part
def _entry_number(symbol, byte):
    """Where the entry of a symbol stands, which may be that of a far byte."""
    return byte if symbol == _FAR else 256 + symbol


@part
def _merge(entries):
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


@part
def _cut(packet, used, places, payload, codes, begins, bits):
    """Step 5: append a group of codes to each engine's packet; returns packets, bits used in them, and their places.

    All are uint64x4, a lane per engine. packet: the codes so far, zeros above; used: their bits, 0 to 63; places: where
    the packets stand in the payload, in bytes; codes, bits: the group's, 3 to 63 bits; begins: a 1 where each code
    begins and where the last one ends.
    """
    merged = packet | codes << used
    fitting = begins & (splat(U64x4, ONES) >> used)
    whole = equal(fitting, begins)
    # Where the group does not fit, the packet ends at the highest begin below bit 64. As no code is longer than 12
    # bits, that is one of the highest 12.
    end = choose(whole, used + bits, floor_log2((begins << used) >> 52) + 52)
    out = merged | splat(U64x4, ONES) << end
    store64(payload + np.int64(lane(places, 0)), lane(out, 0))
    store64(payload + np.int64(lane(places, 1)), lane(out, 1))
    store64(payload + np.int64(lane(places, 2)), lane(out, 2))
    store64(payload + np.int64(lane(places, 3)), lane(out, 3))
    taken = end - used
    packet = choose(whole, merged, codes >> taken)
    used = choose(whole, end, bits - taken)
    return packet, used, choose(whole, places, _next_place(places))


@part
def _next_place(places):
    """Where the next packets stand in the payload, which is woven from 32 bytes of each engine in turn.

    Bits 3 and 4 of a place count packets in these 32 bytes, bits 5 and 6 are the engine's number: set all of these, and
    the carry passes over them.
    """
    return (((places | 0x60) + 8) & ~0x60) | (places & 0x60)


@part
def merge_and_cut(scratch, size, packet, used, places, payload):
    """Steps 4 and 5 for `size` bytes of each engine; packet, used, places as of `_cut`."""
    entries = scratch + _CODES_AT
    for position in range(0, 4 * size, 64):  # two groups of 8 bytes of each engine
        codes_a, begins_a, bits_a = _merge(load(U64x8, entries + position))
        codes_b, begins_b, bits_b = _merge(load(U64x8, entries + _HALF_BYTES + position))
        bits = bits_a + bits_b
        if above(bits, splat(U64x8, 63)) == 0:
            codes = codes_a | codes_b << bits_a
            begins = begins_a | (begins_b | 1) << bits_a | splat(U64x8, 1) << bits | 1
            packet, used, places = _cut(
                packet, used, places, payload, lower_half(codes), lower_half(begins), lower_half(bits)
            )
            packet, used, places = _cut(
                packet, used, places, payload, upper_half(codes), upper_half(begins), upper_half(bits)
            )
        else:  # 4 bytes have at most 48 bits
            begins_a |= splat(U64x8, 1) << bits_a | 1
            begins_b |= splat(U64x8, 1) << bits_b | 1
            packet, used, places = _cut(
                packet, used, places, payload, lower_half(codes_a), lower_half(begins_a), lower_half(bits_a)
            )
            packet, used, places = _cut(
                packet, used, places, payload, lower_half(codes_b), lower_half(begins_b), lower_half(bits_b)
            )
            packet, used, places = _cut(
                packet, used, places, payload, upper_half(codes_a), upper_half(begins_a), upper_half(bits_a)
            )
            packet, used, places = _cut(
                packet, used, places, payload, upper_half(codes_b), upper_half(begins_b), upper_half(bits_b)
            )
    return packet, used, places


@part
def code_symbols(scratch, length, dictionary, codes, units, payload, ahead, stride, rows):
    """Steps 3 to 5, after find_symbols(scratch, length, dictionary[0]); returns the payload's bytes, 0 for bypass.

    The payload has room for the tile and TARGET_SLACK. codes, units: of CODES entries, to be filled. ahead: address of
    what will be read next, `rows` rows of 256 bytes that lie `stride` bytes apart: they are fetched into the cache
    while there is something to compute.
    """
    fill_symbol_tables(scratch, dictionary, codes, units)
    packet = splat(U64x4, 0)
    used = splat(U64x4, 0)
    places = (lane_numbers(U64x4) << 5) + (HEADER_BYTES // 32 * 128 + HEADER_BYTES % 32)
    store(scratch + _NEXT_FAR_AT, load(U64x4, scratch + _SEGMENTS_AT))
    for begin in range(0, length, _CHUNK):
        end = min(begin + _CHUNK, length)
        for row in range(begin * 16 // _CHUNK, min(begin * 16 // _CHUNK + 16, rows)):
            for line in range(0, 256, 64):
                prefetch(ahead + row * stride + line)
        for engine in range(4):
            look_up(scratch, engine, begin, end - begin)
            put_far(scratch, engine, begin, end)
        packet, used, places = merge_and_cut(scratch, end - begin, packet, used, places, payload)
        # A packet that would begin where a share ends: the stream is no shorter than the share.
        if above(places, splat(U64x4, 4 * length - 1)) != 0:
            return 0
    ends = np.zeros(4, np.int64)
    for engine in range(4):
        place = np.int64(lane(places, engine))
        stream = place // 128 * 32 + place % 32
        ends[engine] = end_stream(
            lane(packet, engine), np.int64(lane(used, engine)), payload + place, payload, engine, stream, length
        )
        if ends[engine] == 0:
            return 0
        write_header(payload, engine, length, False, dictionary, load64(scratch + _CHECKSUMS_AT + 8 * engine))
    return pad_streams(payload, ends)
