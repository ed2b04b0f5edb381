"""The fast low-sparse coder: many bytes at a time, for tiles whose bytes are nearly all close to 0."""

# After the steps of symbols.py, step 5, cutting: a group of up to 63 bits ends at most one packet, so all four engines
# append a group at a time, each in a lane of its own, without a branch.
#
# Look-up, merging and cutting run over 1024 bytes of each engine at a time: what one step stores should still be in the
# nearest cache when the next one loads it, but it must have left the processor's store buffer, because a wide load of
# what several narrow stores have just written has to wait for that.

from __future__ import annotations

import numpy as np

from .encode_low_plain import LOW_CODES, LOW_UNITS
from .format import (
    ENGINES,
    HEADER_BYTES,
    LONGEST_CODE,
    LOW,
    PACKET_BITS,
    PACKET_BYTES,
    PAYLOAD_UNIT,
    STREAM_UNIT,
    TILE_COLUMNS,
    TILE_ROWS,
)
from .intrinsics import load64, store64
from .jit import part
from .shares import SHARE_BYTES, SHARE_STRIDE, SLACK
from .streams import ONES, end_stream, fill_tables, pad_streams, stack_engines, write_header
from .symbols import (
    CHECKSUMS_AT,
    CODES_AT,
    FAR_AT,
    HALF_BYTES,
    NEXT_FAR_AT,
    RUN_2,
    SEGMENTS_AT,
    SKIP,
    SYMBOLS_END,
    checksum,
    fill_symbol_tables,
    is_far_too_often,
    look_up,
    merge,
    put_far,
    store_indices,
    symbols_of,
)
from .vectors import (
    U8x64,
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
    splat,
    store,
    upper_half,
)

SCRATCH_BYTES = SYMBOLS_END + SLACK
CHUNK = 1024  # bytes of each engine that steps 3 to 5 take at a time
_ROWS_AHEAD = TILE_ROWS * CHUNK // SHARE_BYTES  # of the next tile that are fetched meanwhile
_RANKS = LOW.dictionary_size
_EVEN = np.uint64(0x5555555555555555)

# A chunk starts only where every engine's stream is shorter than its share. It adds at most 12 bits for every byte, and
# a full packet holds at least 52 of them, because no code is longer than 12 bits. Two more packets: the one that is not
# full, and the end mark's. And the 32 bytes in which a stream is woven may just have been begun.
_MOST_PACKETS = (63 + LONGEST_CODE * CHUNK) // (PACKET_BITS - LONGEST_CODE) + 2
TARGET_SLACK = ENGINES * (PACKET_BYTES * _MOST_PACKETS + STREAM_UNIT)


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
def _share_symbols(scratch, engine, length, common, far_end):
    """Step 1 for one engine; returns the new end of the list of far bytes, 0 if there are too many of them."""
    share = scratch + engine * SHARE_STRIDE
    commons = splat(U8x64, common)
    mixed = splat(U8x64, 0)
    pending = np.uint64(0)
    is_common = equal(load(U8x64, share), commons)
    for position in range(0, length, 64):
        values = load(U8x64, share + position)
        mixed ^= values
        next_common = equal(load(U8x64, share + position + 64), commons) & np.uint64(-np.int64(position + 64 < length))
        first, second, pending = _pairs(is_common, next_common, pending)
        symbols, far_end = symbols_of(engine, position, values, is_common, far_end)
        symbols = choose(first, splat(U8x64, RUN_2), symbols)
        symbols = choose(second, splat(U8x64, SKIP), symbols)
        store_indices(scratch, engine, position, symbols)
        if is_far_too_often(scratch, engine, position, length, far_end):
            return 0
        is_common = next_common
    store64(scratch + CHECKSUMS_AT + 8 * engine, checksum(mixed))
    return far_end


@part
def find_symbols(scratch, length, common):
    """Step 1: the symbols of a tile if `common` is its common byte; returns whether its bytes are near enough to 0.

    scratch: address of SCRATCH_BYTES that begin with the four shares, of `length` bytes each. Receives the indices, the
    list of far bytes and the checksums.
    """
    far_end = scratch + FAR_AT
    for engine in range(ENGINES):
        store64(scratch + SEGMENTS_AT + 8 * engine, np.uint64(far_end))
        far_end = _share_symbols(scratch, engine, length, common, far_end)
        if far_end == 0:
            return False
    store64(scratch + SEGMENTS_AT + 32, np.uint64(far_end))
    return True


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
    entries = scratch + CODES_AT
    for position in range(0, 4 * size, 64):  # two groups of 8 bytes of each engine
        codes_a, begins_a, bits_a = merge(load(U64x8, entries + position))
        codes_b, begins_b, bits_b = merge(load(U64x8, entries + HALF_BYTES + position))
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
def code_symbols(scratch, length, dictionary, codes, units, payload, ahead):
    """Steps 3 to 5, after find_symbols(scratch, length, dictionary[0]); returns the payload's bytes, 0 for bypass.

    The payload has room for the tile and TARGET_SLACK. codes, units: of CODES entries, to be filled. ahead: (address,
    stride, rows), what will be read next: so many rows of a tile that lie `stride` bytes apart. They are fetched
    into the cache while there is something to compute.
    """
    next_tile, stride, rows = ahead
    fill_tables(dictionary, _RANKS, LOW_CODES, LOW_UNITS, 0, codes, units)
    fill_symbol_tables(scratch, 0, codes, units)
    entries = scratch + CODES_AT
    packet = splat(U64x4, 0)
    used = splat(U64x4, 0)
    places = (lane_numbers(U64x4) << 5) + (HEADER_BYTES // STREAM_UNIT * PAYLOAD_UNIT + HEADER_BYTES % STREAM_UNIT)
    store(scratch + NEXT_FAR_AT, load(U64x4, scratch + SEGMENTS_AT))
    for begin in range(0, length, CHUNK):
        end = min(begin + CHUNK, length)
        for row in range(begin * _ROWS_AHEAD // CHUNK, min((begin // CHUNK + 1) * _ROWS_AHEAD, rows)):
            for line in range(0, TILE_COLUMNS, 64):
                prefetch(next_tile + row * stride + line)
        for engine in range(ENGINES):
            look_up(scratch, engine, begin, end - begin, entries + 8 * engine, 32)
            put_far(scratch, engine, begin, end, entries + 8 * engine, 32)
        packet, used, places = merge_and_cut(scratch, end - begin, packet, used, places, payload)
        # A packet that would begin where a share ends: the stream is no shorter than the share.
        if above(places, splat(U64x4, ENGINES * length - 1)) != 0:
            return 0
    ends = stack_engines()
    for engine in range(ENGINES):
        packet_at = np.int64(lane(places, engine))
        stream = packet_at // PAYLOAD_UNIT * STREAM_UNIT + packet_at % STREAM_UNIT
        ends[engine] = end_stream(
            lane(packet, engine), np.int64(lane(used, engine)), payload + packet_at, payload, engine, stream, length
        )
        if ends[engine] == 0:
            return 0
        write_header(payload, engine, length, False, dictionary, load64(scratch + CHECKSUMS_AT + 8 * engine))
    return pad_streams(payload, ends)
