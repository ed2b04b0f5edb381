"""The plain low-sparse coder: byte by byte, whatever the bytes are."""

# Two steps per share. (1) It becomes one continuous string of codes, together with a bitmap of where codes begin; all
# code lengths are multiples of 3 bits, so both are counted in units of 3 bits. (2) The string is cut into packets: each
# takes the codes that end within 21 units, which the bitmap tells without decoding anything.
#
# Cutting afterwards is possible in low-sparse mode because a run of common bytes is coded in pairs, and a packet that
# ends inside a run always ends behind a pair: where packets end does not change the codes.

from __future__ import annotations

import numpy as np

from .format import ENGINES, ESCAPE, HEADER_BYTES, LONGEST_CODE, LOW, PACKET_BITS, PACKET_BYTES
from .intrinsics import highest_bit, load8, load64, store64
from .jit import part
from .shares import SHARE_BYTES, SHARE_STRIDE, SLACK, xor_bytes
from .streams import ONES, by_rank, end_stream, fill_tables, pad_streams, payload_address, stack_engines, write_header

LOW_CODES, LOW_UNITS = by_rank(LOW)
_WINDOW = np.uint64((1 << PACKET_BITS // 3 + 1) - 2)
_RANKS = LOW.dictionary_size

assert LOW.runs == {1: (0, 3), 2: (4, 3)}  # string_of_codes turns a single into a pair by setting its bit 2
assert ESCAPE == 0b1111

# Behind the shares in scratch memory: the string of codes of one share, the bitmap of where they begin.
_STRING_AT = 4 * SHARE_STRIDE
_STARTS_AT = _STRING_AT + SHARE_BYTES * LONGEST_CODE // 8 + SLACK
SCRATCH_BYTES = _STARTS_AT + SHARE_BYTES * LONGEST_CODE // 3 // 8 + SLACK


@part
def string_of_codes(share, length, common, codes, units, string, starts):
    """Code a share in low-sparse mode; returns the units written.

    string: address of a buffer in which unit u lies at bit 8 + 3 * u; starts: address of a bitmap with a 1 at bit u
    for every code that begins at unit u, and at the end. codes are shifted left by one bit, so that each has an empty
    bit in front: the second byte of a pair has length 0 and sets just that bit, the last one of the code before, which
    turns the code of a single common byte (0) into that of a pair (4). So nothing branches on the data.
    """
    position = 0
    pending = np.int64(0)  # 1 behind a common byte that can still become a pair
    carry = np.uint64(0)
    starts_carry = np.uint64(0)
    for index in range(0, length, 4):
        local = np.uint64(0)
        local_starts = np.uint64(0)
        at = np.int64(0)
        for byte in range(4):
            value = load8(share + index + byte)
            is_common = np.int64(value == common)
            second = is_common & pending
            pending = is_common ^ second
            local |= (codes[value] | np.uint64(second)) << np.uint64(3 * at)
            local_starts |= np.uint64(1) << np.uint64(at)
            at += np.int64(units[value]) - second
        bit = 3 * position + 7
        carry |= local << np.uint64(bit & 7)
        store64(string + (bit >> 3), carry)
        starts_carry |= local_starts << np.uint64(position & 7)
        store64(starts + (position >> 3), starts_carry)
        after = position + at
        carry >>= np.uint64(8 * (((3 * after + 7) >> 3) - (bit >> 3)))
        starts_carry >>= np.uint64(8 * ((after >> 3) - (position >> 3)))
        position = after
    store64(string + ((3 * position + 7) >> 3), carry)
    store64(starts + (position >> 3), starts_carry | np.uint64(1) << np.uint64(position & 7))
    return position


@part
def cut_packets(string, starts, total, length, payload, engine):
    """Cut a string of codes into packets and write them; returns the stream's length, 0 where bypass is due."""
    begin = 0
    stream = HEADER_BYTES
    while True:
        if stream >= length:
            return 0
        # Bits 1 to 21 of the window are the units at which this packet may end; the highest 1 wins.
        window = (load64(starts + (begin >> 3)) >> np.uint64(begin & 7)) & _WINDOW
        taken = highest_bit(window)
        bit = 3 * begin + 8
        packet = load64(string + (bit >> 3)) >> np.uint64(bit & 7)
        packet |= (load64(string + (bit >> 3) + 7) >> np.uint64(bit & 7)) << np.uint64(56)
        ones = ONES << np.uint64(3 * taken)
        target = payload_address(payload, engine, stream)
        begin += taken
        if begin == total:
            return end_stream(packet & ~ones, 3 * taken, target, payload, engine, stream, length)
        store64(target, packet | ones)
        stream += PACKET_BYTES


@part
def code_low_plainly(scratch, length, dictionary, codes, units, payload):
    """Code the four shares of `length` bytes each under one dictionary; returns the payload's bytes, 0 for bypass.

    scratch: address of SCRATCH_BYTES that begin with the shares; codes, units: as of `fill_tables`, to be filled.
    """
    fill_tables(dictionary, _RANKS, LOW_CODES, LOW_UNITS, 1, codes, units)
    string = scratch + _STRING_AT
    starts = scratch + _STARTS_AT
    ends = stack_engines()
    for engine in range(ENGINES):
        share = scratch + engine * SHARE_STRIDE
        total = string_of_codes(share, length, np.int64(dictionary[0]), codes, units, string, starts)
        ends[engine] = cut_packets(string, starts, total, length, payload, engine)
        if ends[engine] == 0:
            return 0
        write_header(payload, engine, length, False, dictionary, xor_bytes(share, length))
    return pad_streams(payload, ends)
