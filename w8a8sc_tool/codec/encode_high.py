"""The high-sparse coder: four packets at a time, one of each engine, code by code."""

# Here where a packet ends changes the codes (the 9-byte run code, the window of 64 bytes), so packets are filled one
# after the other.

from __future__ import annotations

import numpy as np

from .jit import part
from .memory import load8, load64, lowest_bit, store8, store64
from .streams import ONES, SHARE_BYTES, SHARE_STRIDE, SLACK, by_rank, end_stream, fill_tables, pad_streams, write_header
from .tables import HIGH
from .tiling import payload_address, xor_bytes

_HIGH_CODES, _HIGH_UNITS = by_rank(HIGH)
# Run codes in the order the encoder tries them: bytes, code, units.
_HIGH_RUNS = np.array([(n, code, bits // 3) for n, (code, bits) in sorted(HIGH.runs.items(), reverse=True)], np.int64)


def _whole_runs() -> tuple[np.ndarray, np.ndarray]:
    """Codes and units of a run of 0 to 64 common bytes, the longest run codes first."""
    codes, units = [0], [0]
    for run in range(1, 65):
        count, code, length = next(choice for choice in _HIGH_RUNS.tolist() if choice[0] <= run)
        codes.append(code | codes[run - count] << 3 * length)
        units.append(length + units[run - count])
    return np.array(codes, np.uint64), np.array(units, np.uint8)


_HIGH_RUN_CODES, _HIGH_RUN_UNITS = _whole_runs()

# Behind the shares in scratch memory: one bit per byte of a share, where it is common.
_MARKS_AT = 4 * SHARE_STRIDE
MARKS_STRIDE = SHARE_BYTES // 8 + SLACK
SCRATCH_BYTES = _MARKS_AT + 4 * MARKS_STRIDE


@part
def _mark_common(share, length, common, marks):
    """A bitmap (at address `marks`) of where a share's bytes are the common one, followed by zeros."""
    low_bits = np.uint64(0x7F7F7F7F7F7F7F7F)
    everywhere = np.uint64(common) * np.uint64(0x0101010101010101)
    for position in range(0, length, 8):
        word = load64(share + position) ^ everywhere
        # The highest bit of every byte that is 0, exactly; the product gathers the eight bits in its highest byte.
        zero = ~(((word & low_bits) + low_bits) | word | low_bits)
        gathered = (zero >> np.uint64(7)) * np.uint64(0x0102040810204080)
        store8(marks + position // 8, np.int64(gathered >> np.uint64(56)))
    store64(marks + length // 8, np.uint64(0))
    store64(marks + length // 8 + 8, np.uint64(0))


@part
def _window(marks, done, size):
    """Which of the next `size` bytes (1 to 64) are common: a bit each, the first byte's lowest, zeros behind them."""
    ahead = load64(marks + (done >> 3)) >> np.uint64(done & 7)
    ahead |= (load64(marks + (done >> 3) + 7) >> np.uint64(done & 7)) << np.uint64(56)
    return ahead & (ONES >> np.uint64(64 - size))


@part
def _next_code(share, ahead, left, used, codes, units):
    """The code of the next byte or run of common bytes: (bytes, code, bits), all 0 if the window or the packet is full.

    Choosing with masks is faster than a branch that follows the data.
    """
    run = lowest_bit(~ahead)
    literal = np.int64(run == 0)
    byte = load8(share)
    place = byte ^ ((byte ^ (256 + run)) & (literal - 1))
    bits = 3 * np.int64(units[place])
    taken = -(np.int64(used + bits <= 63) & np.int64(left > 0))
    return (run + literal) & taken, codes[place] & np.uint64(taken), bits & taken


@part
def _finish_packet(packet, used, ahead, done, end):
    """Fill up a packet that may be full in front of byte `done`; returns it, its bits used and the bytes done."""
    if done == end:
        return packet, used, done
    run = lowest_bit(~ahead)
    for choice in range(_HIGH_RUNS.shape[0]):  # as much of a run as fits
        count = _HIGH_RUNS[choice, 0]
        bits = 3 * _HIGH_RUNS[choice, 2]
        while run >= count and used + bits <= 63:
            packet |= np.uint64(_HIGH_RUNS[choice, 1]) << np.uint64(used)
            used += bits
            run -= count
            done += count
    return packet | ONES << np.uint64(used), used, done


@part
def _fill_lanes(shares, length, codes, units, marks, payload, done):
    """Code the four shares in high-sparse mode, one packet of each at a time, until one is near its end.

    Every code has to wait for the one before, so the engines, which do not depend on each other, take turns. done:
    int64 [4], receives the bytes each engine has coded. Returns how long all four streams are.
    """
    done_0 = done_1 = done_2 = done_3 = np.int64(0)
    share_0, share_1, share_2, share_3 = (
        shares,
        shares + SHARE_STRIDE,
        shares + 2 * SHARE_STRIDE,
        shares + 3 * SHARE_STRIDE,
    )
    marks_0, marks_1, marks_2, marks_3 = marks, marks + MARKS_STRIDE, marks + 2 * MARKS_STRIDE, marks + 3 * MARKS_STRIDE
    stream = 40
    while stream < length and max(done_0, done_1, done_2, done_3) < length - 64:
        ahead_0 = _window(marks_0, done_0, 64)
        ahead_1 = _window(marks_1, done_1, 64)
        ahead_2 = _window(marks_2, done_2, 64)
        ahead_3 = _window(marks_3, done_3, 64)
        end_0, end_1, end_2, end_3 = done_0 + 64, done_1 + 64, done_2 + 64, done_3 + 64
        packet_0 = packet_1 = packet_2 = packet_3 = np.uint64(0)
        used_0 = used_1 = used_2 = used_3 = np.int64(0)
        going = np.int64(1)
        while going:
            bytes_0, code_0, bits_0 = _next_code(share_0 + done_0, ahead_0, end_0 - done_0, used_0, codes, units)
            bytes_1, code_1, bits_1 = _next_code(share_1 + done_1, ahead_1, end_1 - done_1, used_1, codes, units)
            bytes_2, code_2, bits_2 = _next_code(share_2 + done_2, ahead_2, end_2 - done_2, used_2, codes, units)
            bytes_3, code_3, bits_3 = _next_code(share_3 + done_3, ahead_3, end_3 - done_3, used_3, codes, units)
            packet_0 |= code_0 << np.uint64(used_0 & 63)
            packet_1 |= code_1 << np.uint64(used_1 & 63)
            packet_2 |= code_2 << np.uint64(used_2 & 63)
            packet_3 |= code_3 << np.uint64(used_3 & 63)
            used_0 += bits_0
            used_1 += bits_1
            used_2 += bits_2
            used_3 += bits_3
            done_0 += bytes_0
            done_1 += bytes_1
            done_2 += bytes_2
            done_3 += bytes_3
            ahead_0 = _shifted(ahead_0, bytes_0)
            ahead_1 = _shifted(ahead_1, bytes_1)
            ahead_2 = _shifted(ahead_2, bytes_2)
            ahead_3 = _shifted(ahead_3, bytes_3)
            going = bits_0 | bits_1 | bits_2 | bits_3
        packet_0, used_0, done_0 = _finish_packet(packet_0, used_0, ahead_0, done_0, end_0)
        packet_1, used_1, done_1 = _finish_packet(packet_1, used_1, ahead_1, done_1, end_1)
        packet_2, used_2, done_2 = _finish_packet(packet_2, used_2, ahead_2, done_2, end_2)
        packet_3, used_3, done_3 = _finish_packet(packet_3, used_3, ahead_3, done_3, end_3)
        store64(payload_address(payload, 0, stream), packet_0)
        store64(payload_address(payload, 1, stream), packet_1)
        store64(payload_address(payload, 2, stream), packet_2)
        store64(payload_address(payload, 3, stream), packet_3)
        stream += 8
    done[0], done[1], done[2], done[3] = done_0, done_1, done_2, done_3
    return stream


@part
def _shifted(ahead, count):
    """A window without its first `count` bytes; 64 of them leave nothing."""
    return (ahead >> np.uint64(count & 63)) & np.uint64(-np.int64(count < 64))


@part
def _fill_packets(share, length, codes, units, marks, payload, engine, stream, done):
    """Code a share in high-sparse mode, packet by packet, from byte `done` and stream position `stream` on.

    marks: address of the bitmap of common bytes. Returns the stream's length, 0 where bypass is due.
    """
    while True:
        if stream >= length:
            return 0
        end = min(done + 64, length)
        ahead = _window(marks, done, end - done)
        packet = np.uint64(0)
        used = np.int64(0)
        while True:
            taken, code, bits = _next_code(share + done, ahead, end - done, used, codes, units)
            if taken == 0:
                break
            packet |= code << np.uint64(used)
            used += bits
            done += taken
            ahead = _shifted(ahead, taken)
        packet, used, done = _finish_packet(packet, used, ahead, done, end)
        place = payload_address(payload, engine, stream)
        if done == length:
            return end_stream(packet & ~(ONES << np.uint64(used)), used, place, payload, engine, stream, length)
        store64(place, packet)
        stream += 8


@part
def code_high(scratch, length, dictionary, codes, units, payload):
    """Code the four shares of `length` bytes each under one dictionary; returns the payload's bytes, 0 for bypass.

    scratch: address of SCRATCH_BYTES that begin with the shares; codes, units: of CODES entries, to be filled.
    """
    fill_tables(dictionary, 34, _HIGH_CODES, _HIGH_UNITS, 0, codes, units)
    codes[256 : 256 + 65] = _HIGH_RUN_CODES
    units[256 : 256 + 65] = _HIGH_RUN_UNITS
    marks = scratch + _MARKS_AT
    for engine in range(4):
        _mark_common(scratch + engine * SHARE_STRIDE, length, np.int64(dictionary[0]), marks + engine * MARKS_STRIDE)
    done = np.empty(4, np.int64)
    begin = _fill_lanes(scratch, length, codes, units, marks, payload, done)
    ends = np.zeros(4, np.int64)
    for engine in range(4):
        share = scratch + engine * SHARE_STRIDE
        ends[engine] = _fill_packets(
            share, length, codes, units, marks + engine * MARKS_STRIDE, payload, engine, begin, done[engine]
        )
        if ends[engine] == 0:
            return 0
        write_header(payload, engine, length, True, dictionary, xor_bytes(share, length))
    return pad_streams(payload, ends)
