"""The plain high-sparse coder: four packets at a time, one of each engine, a run and the byte behind it at a time."""

# Here where a packet ends changes the codes (the 9-byte run code, the window of 64 bytes), so packets are filled one
# after the other.

from __future__ import annotations

import numpy as np

from .format import ENGINES, HEADER_BYTES, HIGH, PACKET_BITS, PACKET_BYTES, PACKET_WINDOW
from .intrinsics import load8, load64, lowest_bit, store64
from .jit import part
from .shares import SHARE_STRIDE, xor_bytes
from .streams import (
    MARKS_STRIDE,
    ONES,
    by_rank,
    end_stream,
    fill_tables,
    pad_streams,
    payload_address,
    stack_engines,
    write_header,
)
from .vectors import U8x64, equal, load, splat

_HIGH_CODES, _HIGH_UNITS = by_rank(HIGH)
_RANKS = HIGH.dictionary_size
_ROOMS = PACKET_BITS // 3 + 1  # a packet has room for 0 to 21 units of 3 bits


def _parts_of_runs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How much of a run of 0 to 64 common bytes goes into the rest of a packet, the longest run codes first.

    Codes (uint64), their bits and bytes (int64), all [65, _ROOMS]: by the bytes of the run and the units of room.
    """
    codes, bits, bytes_ = np.zeros((65, _ROOMS), np.uint64), *np.zeros((2, 65, _ROOMS), np.int64)
    longest_first = [(count, code, length) for count, (code, length) in sorted(HIGH.runs.items(), reverse=True)]
    for run in range(65):
        for room in range(_ROOMS):
            value, used, done = 0, 0, 0
            for count, code, length in longest_first:
                while run - done >= count and used + length <= 3 * room:
                    value |= code << used
                    used += length
                    done += count
            codes[run, room], bits[run, room], bytes_[run, room] = value, used, done
    return codes, bits, bytes_


_RUN_CODES, _RUN_BITS, _RUN_BYTES = _parts_of_runs()
_WHOLE_CODES, _WHOLE_UNITS = _RUN_CODES[:, -1].copy(), (_RUN_BITS[:, -1] // 3).astype(np.uint8)
assert _RUN_BYTES[64, -1] == 64

# Behind the shares in scratch memory: one bit per byte of a share, where it is common.
_MARKS_AT = 4 * SHARE_STRIDE
SCRATCH_BYTES = _MARKS_AT + 4 * MARKS_STRIDE


@part
def _mark_common(share, length, common, marks):
    """A bitmap (at address `marks`) of where a share's bytes are the common one, followed by zeros."""
    commons = splat(U8x64, common)
    for position in range(0, length, 64):
        store64(marks + position // 8, equal(load(U8x64, share + position), commons))
    store64(marks + length // 8, np.uint64(0))
    store64(marks + length // 8 + 8, np.uint64(0))


@part
def _window(marks, done, size):
    """Which of the next `size` bytes (1 to 64) are common: a bit each, the first byte's lowest, zeros behind them."""
    ahead = load64(marks + (done >> 3)) >> np.uint64(done & 7)
    ahead |= (load64(marks + (done >> 3) + 7) >> np.uint64(done & 7)) << np.uint64(56)
    return ahead & (ONES >> np.uint64(64 - size))


# The packet of an engine that is being filled is a tuple: its codes, the bits used, the bytes done of the share, and
# the window of up to 64 bytes that are left to it.


@part
def _append(share, end, lane, codes, units):
    """Append to a packet the next run of common bytes, which may be empty, and the byte that ends it, if both fit.

    end: byte of the share at which the packet's window ends. Returns the packet, and how many bits it has grown by.
    Choosing with masks is faster than a branch that follows the data.
    """
    packet, used, done, ahead = lane
    run = lowest_bit(~ahead)
    byte = load8(share + done + run)
    run_bits = 3 * np.int64(units[256 + run])
    bits = run_bits + 3 * np.int64(units[byte])
    code = codes[256 + run] | codes[byte] << np.uint64(run_bits)
    fits = np.int64(used + bits <= PACKET_BITS) & np.int64(done + run < end)
    packet |= (code & np.uint64(-fits)) << np.uint64(used & 63)
    bits &= -fits
    ahead = (ahead >> np.uint64(run & -fits)) >> np.uint64(fits)  # in two steps: one of 64 bits would shift nothing
    return (packet, used + bits, done + ((run + 1) & -fits), ahead), bits


@part
def _finish_packet(end, lane):
    """Fill up a packet to which nothing more can be appended whole: with as much of a run as fits, then with ones.

    One with all bytes of its window has zeros behind them. Returns the packet, the bits used and the bytes done.
    """
    packet, used, done, ahead = lane
    run = lowest_bit(~ahead)
    room = (PACKET_BITS - used) // 3
    packet |= _RUN_CODES[run, room] << np.uint64(used)
    used += _RUN_BITS[run, room]
    done += _RUN_BYTES[run, room]
    return packet | (ONES << np.uint64(used)) & np.uint64(-np.int64(done < end)), used, done


@part
def _fill_lanes(shares, length, codes, units, marks, payload, done):
    """Code the four shares in high-sparse mode, one packet of each at a time, until one is near its end.

    Every code has to wait for the one before, so the engines, which do not depend on each other, take turns. done:
    int64 [4], receives the bytes each engine has coded. Returns how long all four streams are.
    """
    share_0, share_1 = shares, shares + SHARE_STRIDE
    share_2, share_3 = shares + 2 * SHARE_STRIDE, shares + 3 * SHARE_STRIDE
    done_0 = done_1 = done_2 = done_3 = np.int64(0)
    none, unused = np.uint64(0), np.int64(0)
    stream = np.int64(HEADER_BYTES)
    while stream < length and max(done_0, done_1, done_2, done_3) < length - PACKET_WINDOW:
        lane_0 = none, unused, done_0, _window(marks, done_0, PACKET_WINDOW)
        lane_1 = none, unused, done_1, _window(marks + MARKS_STRIDE, done_1, PACKET_WINDOW)
        lane_2 = none, unused, done_2, _window(marks + 2 * MARKS_STRIDE, done_2, PACKET_WINDOW)
        lane_3 = none, unused, done_3, _window(marks + 3 * MARKS_STRIDE, done_3, PACKET_WINDOW)
        end_0, end_1 = done_0 + PACKET_WINDOW, done_1 + PACKET_WINDOW
        end_2, end_3 = done_2 + PACKET_WINDOW, done_3 + PACKET_WINDOW
        grown = np.int64(1)
        while grown:
            lane_0, bits_0 = _append(share_0, end_0, lane_0, codes, units)
            lane_1, bits_1 = _append(share_1, end_1, lane_1, codes, units)
            lane_2, bits_2 = _append(share_2, end_2, lane_2, codes, units)
            lane_3, bits_3 = _append(share_3, end_3, lane_3, codes, units)
            grown = bits_0 | bits_1 | bits_2 | bits_3
        packet_0, _, done_0 = _finish_packet(end_0, lane_0)
        packet_1, _, done_1 = _finish_packet(end_1, lane_1)
        packet_2, _, done_2 = _finish_packet(end_2, lane_2)
        packet_3, _, done_3 = _finish_packet(end_3, lane_3)
        store64(payload_address(payload, 0, stream), packet_0)
        store64(payload_address(payload, 1, stream), packet_1)
        store64(payload_address(payload, 2, stream), packet_2)
        store64(payload_address(payload, 3, stream), packet_3)
        stream += PACKET_BYTES
    done[0], done[1], done[2], done[3] = done_0, done_1, done_2, done_3
    return stream


@part
def plain_packet(share, length, done, codes, units, marks):
    """One packet, code by code, from byte `done` on: (packet, bits used, bytes done)."""
    end = min(done + PACKET_WINDOW, length)
    lane = np.uint64(0), np.int64(0), done, _window(marks, done, end - done)
    bits = np.int64(1)
    while bits:
        lane, bits = _append(share, end, lane, codes, units)
    return _finish_packet(end, lane)


@part
def _fill_packets(share, length, codes, units, marks, payload, engine, stream, done):
    """Code a share in high-sparse mode, packet by packet, from byte `done` and stream position `stream` on.

    marks: address of the bitmap of common bytes. Returns the stream's length, 0 where bypass is due.
    """
    while True:
        if stream >= length:
            return 0
        packet, used, done = plain_packet(share, length, done, codes, units, marks)
        target = payload_address(payload, engine, stream)
        if done == length:
            return end_stream(packet & ~(ONES << np.uint64(used)), used, target, payload, engine, stream, length)
        store64(target, packet)
        stream += PACKET_BYTES


@part
def fill_high_tables(dictionary, codes, units):
    """Codes and units of bytes and of runs of common bytes under a tile's dictionary: CODES entries each."""
    fill_tables(dictionary, _RANKS, _HIGH_CODES, _HIGH_UNITS, 0, codes, units)
    for run in range(_WHOLE_CODES.shape[0]):
        codes[256 + run] = _WHOLE_CODES[run]
        units[256 + run] = _WHOLE_UNITS[run]


@part
def code_high_plainly(scratch, length, dictionary, codes, units, payload):
    """Code the four shares of `length` bytes each under one dictionary; returns the payload's bytes, 0 for bypass.

    scratch: address of SCRATCH_BYTES that begin with the shares; codes, units: of CODES entries, to be filled.
    """
    fill_high_tables(dictionary, codes, units)
    marks = scratch + _MARKS_AT
    for engine in range(ENGINES):
        _mark_common(scratch + engine * SHARE_STRIDE, length, np.int64(dictionary[0]), marks + engine * MARKS_STRIDE)
    done = stack_engines()
    begin = _fill_lanes(scratch, length, codes, units, marks, payload, done)
    ends = stack_engines()
    for engine in range(ENGINES):
        share = scratch + engine * SHARE_STRIDE
        ends[engine] = _fill_packets(
            share, length, codes, units, marks + engine * MARKS_STRIDE, payload, engine, begin, done[engine]
        )
        if ends[engine] == 0:
            return 0
        write_header(payload, engine, length, True, dictionary, xor_bytes(share, length))
    return pad_streams(payload, ends)
