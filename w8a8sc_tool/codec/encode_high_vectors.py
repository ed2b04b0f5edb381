"""The fast high-sparse coder: groups of 8 bytes, for tiles with few long runs whose bytes are nearly all close to 0."""

# After the steps of symbols.py, cutting, one engine after the other. Where a packet ends changes the codes in this mode
# in two ways only: a packet encodes at most 64 bytes, and a run code for 9 bytes may give way to a shorter one. Both
# take runs of more than 8 common bytes: up to 8 of them and the byte that ends the run have at least as many bits as
# bytes, and their codes (of 4 bytes each, then of the rest) stay right when a packet ends between them.
#
# Groups of 8 bytes that touch a longer run, or have more than 63 bits, are left to the plain coder: it begins the
# packet that runs into them anew, and goes on until groups are simple again.

from __future__ import annotations

import numpy as np

from .encode_high_plain import fill_high_tables, plain_packet
from .format import ENGINES, HEADER_BYTES, PACKET_BYTES
from .intrinsics import bits_set, highest_bit, load8, load16, load64, store64
from .jit import part
from .shares import SHARE_BYTES, SHARE_STRIDE, SLACK
from .streams import MARKS_STRIDE, ONES, end_stream, pad_streams, payload_address, stack_engines, write_header
from .symbols import (
    CHECKSUMS_AT,
    CODES_AT,
    COMMON_AT,
    FAR_AT,
    HALF_BYTES,
    INDICES_AT,
    LONG_AT,
    NEXT_FAR_AT,
    RUN_2,
    RUN_3,
    RUN_4,
    SEGMENTS_AT,
    SKIP,
    SYMBOL_BITS,
    SYMBOLS,
    SYMBOLS_END,
    checksum,
    fill_symbol_tables,
    is_far_too_often,
    look_up,
    merge,
    put_far,
    store_indices,
    symbol_bits,
    symbols_of,
)
from .vectors import U8x64, U64x4, U64x8, choose, equal, load, splat, store

# Behind what symbols.py needs: what a share's groups of 8 bytes merge to.
_GROUP_BYTES = 8 * (SHARE_BYTES // 8) + 64
_GROUP_CODES_AT = SYMBOLS_END  # uint64 [1024] each
_GROUP_BEGINS_AT = _GROUP_CODES_AT + _GROUP_BYTES
_GROUP_BITS_AT = _GROUP_BEGINS_AT + _GROUP_BYTES
SCRATCH_BYTES = _GROUP_BITS_AT + _GROUP_BYTES + SLACK

# Long runs cost more here than in the plain coder. As soon as more than 1/64 of the bytes seen so far (and some more)
# have 8 common bytes in front of them and are common, the tile is left to it.
_LONG_SLOPE = 64
_LONG_ALLOWANCE = 64


@part
def _behind(word, before, count):
    """A bitmap moved up by `count` bytes; the bits that come in are the last ones of the bitmap before."""
    return word << np.uint64(count) | before >> np.uint64(64 - count)


@part
def _ahead(word, after, count):
    """A bitmap moved down by `count` bytes; the bits that come in are the first ones of the bitmap after it."""
    return word >> np.uint64(count) | after << np.uint64(64 - count)


@part
def _share_runs(scratch, engine, length, common, far_end):
    """Step 1 for one engine; returns the new end of the list of far bytes, 0 if there are too many, or long runs.

    Runs are cut into pieces of 4 bytes from their beginning, which is right for those of up to 8. Bitmaps: twos, fours,
    eights: the last of 2, 4, 8 common bytes in a row; long: with at least 8 common bytes in front, common itself.
    """
    share = scratch + engine * SHARE_STRIDE
    commons = splat(U8x64, common)
    mixed = splat(U8x64, 0)
    common_before = begins_before = twos_before = fours_before = np.uint64(0)
    long_runs = np.int64(0)
    is_common = equal(load(U8x64, share), commons)
    for position in range(0, length, 64):
        values = load(U8x64, share + position)
        mixed ^= values
        after = equal(load(U8x64, share + position + 64), commons) & np.uint64(-np.int64(position + 64 < length))
        begins = is_common & ~_behind(is_common, common_before, 1)
        twos = is_common & _behind(is_common, common_before, 1)
        fours = twos & _behind(twos, twos_before, 2)
        eights = fours & _behind(fours, fours_before, 4)
        long = eights & _behind(is_common, common_before, 8)
        pieces = begins | (fours & _behind(begins, begins_before, 4))
        of_two = pieces & _ahead(is_common, after, 1)
        of_three = of_two & _ahead(is_common, after, 2)
        of_four = of_three & _ahead(is_common, after, 3)
        symbols, far_end = symbols_of(engine, position, values, is_common, far_end)
        symbols = choose(of_two, splat(U8x64, RUN_2), symbols)
        symbols = choose(of_three, splat(U8x64, RUN_3), symbols)
        symbols = choose(of_four, splat(U8x64, RUN_4), symbols)
        symbols = choose(is_common & ~pieces, splat(U8x64, SKIP), symbols)
        store_indices(scratch, engine, position, symbols)
        store64(scratch + COMMON_AT + engine * MARKS_STRIDE + position // 8, is_common)
        store64(scratch + LONG_AT + engine * MARKS_STRIDE + position // 8, long)
        long_runs += bits_set(long)
        if is_far_too_often(scratch, engine, position, length, far_end):
            return 0
        if long_runs > _LONG_ALLOWANCE + (position + 64) // _LONG_SLOPE:
            return 0
        common_before, begins_before, twos_before, fours_before = is_common, begins, twos, fours
        is_common = after
    for marks in (COMMON_AT, LONG_AT):
        store64(scratch + marks + engine * MARKS_STRIDE + length // 8, np.uint64(0))
        store64(scratch + marks + engine * MARKS_STRIDE + length // 8 + 8, np.uint64(0))
    store64(scratch + CHECKSUMS_AT + 8 * engine, checksum(mixed))
    return far_end


@part
def find_runs(scratch, length, common):
    """Step 1: the symbols of a tile if `common` is its common byte; returns whether it suits this coder.

    scratch: address of SCRATCH_BYTES that begin with the four shares, of `length` bytes each. Receives the indices, the
    list of far bytes, the checksums and the bitmaps of common bytes.
    """
    far_end = scratch + FAR_AT
    for engine in range(ENGINES):
        store64(scratch + SEGMENTS_AT + 8 * engine, np.uint64(far_end))
        far_end = _share_runs(scratch, engine, length, common, far_end)
        if far_end == 0:
            return False
    store64(scratch + SEGMENTS_AT + 32, np.uint64(far_end))
    return True


@part
def _merge_share(scratch, length):
    """Step 4 for one engine: codes, where they begin and end, and bits of every group of 8 bytes."""
    for position in range(0, length, 64):  # 8 groups, 8 bytes for each
        codes_a, begins_a, bits_a = merge(load(U64x8, scratch + CODES_AT + position))
        codes_b, begins_b, bits_b = merge(load(U64x8, scratch + CODES_AT + HALF_BYTES + position))
        bits = bits_a + bits_b
        store(scratch + _GROUP_CODES_AT + position, codes_a | codes_b << bits_a)
        # Of groups with more than 63 bits only that is of interest.
        begins = begins_a | (begins_b | 1) << bits_a | splat(U64x8, 1) << (bits & 63) | 1
        store(scratch + _GROUP_BEGINS_AT + position, begins)
        store(scratch + _GROUP_BITS_AT + position, bits)


@part
def _symbol(indices, byte):
    """The symbol of a byte of a share."""
    index = load16(indices + (byte & ~1))
    return index >> SYMBOL_BITS if byte & 1 else index & (SYMBOLS - 1)


@part
def _byte_at(scratch, engine, group, bits):
    """The byte whose code begins `bits` behind the begin of a group's codes."""
    indices = scratch + INDICES_AT + engine * SHARE_BYTES
    share = scratch + engine * SHARE_STRIDE
    byte = 8 * group
    while bits > 0 or _symbol(indices, byte) == SKIP:
        bits -= symbol_bits(scratch, _symbol(indices, byte), load8(share + byte))
        byte += 1
    return byte


@part
def _bits_before(scratch, engine, byte):
    """The bits of a group's codes in front of a byte's."""
    bits = np.int64(0)
    for other in range(byte & ~7, byte):
        symbol = _symbol(scratch + INDICES_AT + engine * SHARE_BYTES, other)
        bits += symbol_bits(scratch, symbol, load8(scratch + engine * SHARE_STRIDE + other))
    return bits


@part
def _is_simple(scratch, engine, group):
    """Whether a group touches no run of more than 8 common bytes and has at most 63 bits."""
    long = load16(scratch + LONG_AT + engine * MARKS_STRIDE + group)  # in this group or the next
    return (long == 0) & (load64(scratch + _GROUP_BITS_AT + 8 * group) <= np.uint64(63))


@part
def _cut_plainly(scratch, engine, length, codes, units, payload, stream, done):
    """Packets by the plain coder until one ends where groups are simple again, or at the end of the share.

    Returns (stream, bytes done, last packet, bits used in it); stream is that of the last packet if all bytes are done.
    """
    share = scratch + engine * SHARE_STRIDE
    marks = scratch + COMMON_AT + engine * MARKS_STRIDE
    indices = scratch + INDICES_AT + engine * SHARE_BYTES
    while True:
        packet, used, done = plain_packet(share, length, done, codes, units, marks)
        if done == length:
            return stream, done, packet & ~(ONES << np.uint64(used)), used
        store64(payload_address(payload, engine, stream), packet)
        stream += PACKET_BYTES
        if stream >= length:
            return stream, done, packet, used
        if _symbol(indices, done) != SKIP and _is_simple(scratch, engine, done >> 3):
            return stream, done, packet, used


@part
def _cut_share(scratch, engine, length, codes, units, payload):
    """Cut a share's groups into packets; returns the stream's length, 0 where bypass is due."""
    packet = np.uint64(0)
    used = np.int64(0)
    stream = np.int64(HEADER_BYTES)
    group = first = np.int64(0)  # the packet begins in group `first`,
    skipped = np.int64(0)  # behind so many bits of its codes
    while group < length >> 3:
        if not _is_simple(scratch, engine, group):
            done = _byte_at(scratch, engine, first, skipped)
            stream, done, packet, used = _cut_plainly(scratch, engine, length, codes, units, payload, stream, done)
            if done == length or stream >= length:
                break
            first = group = done >> 3
            skipped = _bits_before(scratch, engine, done)
            packet = load64(scratch + _GROUP_CODES_AT + 8 * group) >> np.uint64(skipped)
            used = np.int64(load64(scratch + _GROUP_BITS_AT + 8 * group)) - skipped
            group += 1
            continue
        group_codes = load64(scratch + _GROUP_CODES_AT + 8 * group)
        begins = load64(scratch + _GROUP_BEGINS_AT + 8 * group)
        bits = np.int64(load64(scratch + _GROUP_BITS_AT + 8 * group))
        merged = packet | group_codes << np.uint64(used)
        whole = begins & (ONES >> np.uint64(used)) == begins
        end = used + bits if whole else highest_bit(begins << np.uint64(used))
        store64(payload_address(payload, engine, stream), merged | ONES << np.uint64(end))
        taken = end - used
        packet = merged if whole else group_codes >> np.uint64(taken)
        used = end if whole else bits - taken
        first = first if whole else group
        skipped = skipped if whole else taken
        stream += 0 if whole else PACKET_BYTES
        group += 1
        if stream >= length:
            break
    if stream >= length:
        return 0
    return end_stream(packet, used, payload_address(payload, engine, stream), payload, engine, stream, length)


@part
def code_runs(scratch, length, dictionary, codes, units, payload):
    """Steps 3 to 5, after find_runs(scratch, length, dictionary[0]); returns the payload's bytes, 0 for bypass.

    codes, units: of CODES entries, to be filled.
    """
    fill_high_tables(dictionary, codes, units)
    fill_symbol_tables(scratch, 1, codes, units)
    store(scratch + NEXT_FAR_AT, load(U64x4, scratch + SEGMENTS_AT))
    ends = stack_engines()
    for engine in range(ENGINES):
        look_up(scratch, engine, 0, length, scratch + CODES_AT, 8)
        put_far(scratch, engine, 0, length, scratch + CODES_AT, 8)
        _merge_share(scratch, length)
        ends[engine] = _cut_share(scratch, engine, length, codes, units, payload)
        if ends[engine] == 0:
            return 0
        write_header(payload, engine, length, True, dictionary, load64(scratch + CHECKSUMS_AT + 8 * engine))
    return pad_streams(payload, ends)
