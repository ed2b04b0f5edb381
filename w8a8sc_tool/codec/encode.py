"""The encoder: tiles of a row-major matrix to payloads and index entries."""

# Three steps per tile. (1) Every engine's share becomes one continuous string of codes, together with a bitmap of where
# codes begin; all code lengths are multiples of 3 bits, so both are counted in units of 3 bits. (2) The string is cut
# into packets: each takes the codes that end within 21 units, which the bitmap tells without decoding anything.
# (3) Packets go straight to their woven place in the payload.
#
# Cutting afterwards is possible in low-sparse mode because a run of common bytes is coded in pairs, and a packet that
# ends inside a run always ends behind a pair: where packets end does not change the codes. In high-sparse mode it does
# (the 9-byte run code, the window of 64 bytes), so there packets are filled one after the other.

from __future__ import annotations

import numpy as np

from .dictionary import count_bytes, rank_bytes
from .jit import kernel, part
from .memory import highest_bit, load8, load64, lowest_bit, store8, store64
from .tables import END_MARK, ESCAPE, HIGH, LOW, TILE_BYTES, Mode, escape_codes
from .tiling import copy32, deal_tile, payload_address, xor_bytes

_ESCAPES = escape_codes()
_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)

# Scratch memory, laid out one after the other: the shares, the string of codes, the bitmap of where codes begin. The
# caller provides it, because numba frees an array of which a kernel uses nothing but the address.
_SLACK = 64  # 8-byte stores may run over the end
SHARE_STRIDE = TILE_BYTES // 4 + _SLACK
_STRING_BYTES = TILE_BYTES // 4 * 12 // 8 + _SLACK  # a code has up to 12 bits
_STARTS_BYTES = TILE_BYTES // 4 * 4 // 8 + 4 * _SLACK  # that is, 4 units
MARKS_STRIDE = TILE_BYTES // 4 // 8 + _SLACK  # in high-sparse mode: one bit per byte of a share, where it is common
assert 4 * MARKS_STRIDE <= _STARTS_BYTES
SCRATCH_BYTES = 4 * SHARE_STRIDE + _STRING_BYTES + _STARTS_BYTES


def _by_rank(mode: Mode) -> tuple[np.ndarray, np.ndarray]:
    """Code and length in units of 3 bits for each dictionary rank; rank 0 stands for a single common byte."""
    codes = (mode.runs[1], *mode.codes)
    return np.array([c for c, _ in codes], np.uint16), np.array([bits // 3 for _, bits in codes], np.uint8)


_LOW_CODES, _LOW_UNITS = _by_rank(LOW)
_HIGH_CODES, _HIGH_UNITS = _by_rank(HIGH)
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
CODES = 256 + 65  # entries of a tile's tables: bytes, then runs

assert LOW.runs == {1: (0, 3), 2: (4, 3)}  # _string_of_codes turns a single into a pair by setting its bit 2
assert ESCAPE == 0b1111


@part
def _fill_tables(dictionary, size, rank_codes, rank_units, left, codes, units):
    """Code and units of every byte value under a tile's dictionary (codes: uint64, units: uint8, the first 256).

    left: by how many bits the codes are shifted to the left.
    """
    for value in range(256):
        codes[value] = np.uint64(_ESCAPES[value]) << np.uint64(left)
        units[value] = 4
    for rank in range(size):
        codes[dictionary[rank]] = np.uint64(rank_codes[rank]) << np.uint64(left)
        units[dictionary[rank]] = rank_units[rank]


@part
def _string_of_codes(share, length, common, codes, units, string, starts):
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
def _cut_packets(string, starts, total, length, payload, engine):
    """Cut a string of codes into packets and write them; returns the stream's length, 0 where bypass is due."""
    begin = 0
    stream = 40
    while True:
        if stream >= length:
            return 0
        # Bits 1 .. 21 of the window are the units at which this packet may end; the highest 1 wins.
        window = (load64(starts + (begin >> 3)) >> np.uint64(begin & 7)) & np.uint64(0x3FFFFE)
        taken = highest_bit(window)
        bit = 3 * begin + 8
        packet = load64(string + (bit >> 3)) >> np.uint64(bit & 7)
        packet |= (load64(string + (bit >> 3) + 7) >> np.uint64(bit & 7)) << np.uint64(56)
        ones = _ONES << np.uint64(3 * taken)
        place = payload_address(payload, engine, stream)
        begin += taken
        if begin == total:
            return _end_stream(packet & ~ones, 3 * taken, place, payload, engine, stream, length)
        store64(place, packet | ones)
        stream += 8


@part
def _end_stream(packet, used, place, payload, engine, stream, length):
    """Write the last packet (zero above `used` bits) and the end mark; returns the stream's length, 0 for bypass."""
    if used <= 55:
        store64(place, packet | np.uint64(END_MARK) << np.uint64(used))
        return stream + (used + 9 + 7) // 8
    if stream + 8 >= length:
        return 0
    store64(place, packet | _ONES << np.uint64(used))
    store64(payload_address(payload, engine, stream + 8), np.uint64(END_MARK))
    return stream + 8 + 2


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
    return ahead & (_ONES >> np.uint64(64 - size))


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
    return packet | _ONES << np.uint64(used), used, done


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
            return _end_stream(packet & ~(_ONES << np.uint64(used)), used, place, payload, engine, stream, length)
        store64(place, packet)
        stream += 8


@part
def _write_header(payload, engine, length, high, dictionary, checksum):
    """The 40 bytes at the front of a stream."""
    first = np.uint64(0x88) if high else np.uint64(0xA8) | np.uint64(dictionary[0]) << np.uint64(16)
    if not high:
        first |= np.uint64(dictionary[1]) << np.uint64(24)
    first |= np.uint64(length // 128) << np.uint64(8) | checksum << np.uint64(32)
    entry = 0 if high else 2
    first |= np.uint64(dictionary[entry]) << np.uint64(48) | np.uint64(dictionary[entry + 1]) << np.uint64(56)
    store64(payload_address(payload, engine, 0), first)
    for position in range(8, 40, 8):
        word = np.uint64(0)
        for byte in range(8):
            rank = entry + 2 + (position - 8) + byte
            word |= np.uint64(dictionary[rank]) << np.uint64(8 * byte)
        store64(payload_address(payload, engine, position), word)


@part
def _store_raw(shares, length, payload):
    """A bypass tile: the four shares woven like streams, without headers."""
    for engine in range(4):
        for position in range(0, length, 32):
            copy32(shares + engine * SHARE_STRIDE + position, payload_address(payload, engine, position))
    return 4 * length


@part
def code_tile(scratch, length, high, dictionary, codes, units, payload):
    """Code the four shares of `length` bytes each under one dictionary; returns the payload's bytes, 0 for bypass."""
    string = scratch + 4 * SHARE_STRIDE
    starts = string + _STRING_BYTES
    common = np.int64(dictionary[0])
    begin = np.int64(40)
    done = np.empty(4, np.int64)
    if high:
        _fill_tables(dictionary, 34, _HIGH_CODES, _HIGH_UNITS, 0, codes, units)
        codes[256:] = _HIGH_RUN_CODES
        units[256:] = _HIGH_RUN_UNITS
        for engine in range(4):
            _mark_common(scratch + engine * SHARE_STRIDE, length, common, starts + engine * MARKS_STRIDE)
        begin = _fill_lanes(scratch, length, codes, units, starts, payload, done)
    else:
        _fill_tables(dictionary, 36, _LOW_CODES, _LOW_UNITS, 1, codes, units)
    ends = np.zeros(4, np.int64)
    for engine in range(4):
        share = scratch + engine * SHARE_STRIDE
        if high:
            marks = starts + engine * MARKS_STRIDE
            ends[engine] = _fill_packets(share, length, codes, units, marks, payload, engine, begin, done[engine])
        else:
            total = _string_of_codes(share, length, common, codes, units, string, starts)
            ends[engine] = _cut_packets(string, starts, total, length, payload, engine)
        if ends[engine] == 0:
            return 0
        _write_header(payload, engine, length, high, dictionary, xor_bytes(share, length))
    padded = (ends.max() + 31) // 32 * 32
    for engine in range(4):
        for position in range((ends[engine] + 7) // 8 * 8, padded, 8):
            store64(payload_address(payload, engine, position), np.uint64(0))
    return 4 * padded


@kernel("int64(int64, int64, int64, int64, int64, int64, int64, int64, uint8[:,::1], int64, uint64[::1], int64)")
def encode_tiles(source, stride, first_row, n, k, first_tile, last_tile, high, dictionaries, target, index, scratch):
    """Encode n-tiles first_tile to last_tile - 1 of a matrix [n, k]; returns the bytes of their payloads.

    source: address of matrix row `first_row`, rows `stride` bytes apart; target: address that receives the payloads,
    with room for the tiles' bytes and TARGET_SLACK more; index: one uint64 per tile of these n-tiles, written without
    offsets; dictionaries: none (uint8 [0, 36]) for one per tile, else one row for full k-tiles and one for the narrower
    last one; scratch: address of SCRATCH_BYTES. Integers are int64.
    """
    n_fractals = (n + 15) // 16
    k_fractals = (k + 31) // 32
    rows_of_tile = min(8, n_fractals)
    codes = np.empty(CODES, np.uint64)
    units = np.empty(CODES, np.uint8)
    counts = np.empty((8, 256), np.int32)
    dictionary = np.empty(36, np.uint8)
    size = 34 if high else 36
    tile = 0
    used = 0
    for n_tile in range(first_tile, last_tile):
        top = 16 * min(8 * n_tile, n_fractals - rows_of_tile)
        for left in range(0, k_fractals, 8):
            width = min(8, k_fractals - left)
            length = rows_of_tile * width * 128
            corner = source + (top - first_row) * stride + left * 32
            deal_tile(corner, stride, n - top, k - left * 32, rows_of_tile, width, scratch, SHARE_STRIDE)
            if dictionaries.shape[0]:
                dictionary[:] = dictionaries[0 if width == 8 else 1]
            else:
                counts[:] = 0
                for engine in range(4):
                    count_bytes(scratch + engine * SHARE_STRIDE, length, counts)
                rank_bytes(counts, size, dictionary)
            coded = code_tile(scratch, length, high, dictionary, codes, units, target + used)
            entry = np.uint64(1 << 15)
            if coded == 0:
                coded = _store_raw(scratch, length, target + used)
                entry = np.uint64(0)
            index[tile] = entry | np.uint64(coded // 128)
            tile += 1
            used += coded
    return used


# Until a tile turns out to need bypass, its payload may grow past the tile's size by one packet and an end mark in each
# engine's last chunk.
TARGET_SLACK = 256


@kernel("void(int64, int64, int64, int64, int32[:,:,::1], int64)")
def count_tiles(source, stride, n, k, counts, scratch):
    """Count the bytes of all tiles of a matrix [n, k] as they are passed, overlap and padding included.

    counts: int32 [2, 8, 256], zeroed by the caller; [0] for full k-tiles, [1] for the narrower last one. Counts stay
    below 2**31: a matrix has to have fewer bytes than that. scratch: address of SCRATCH_BYTES.
    """
    n_fractals = (n + 15) // 16
    k_fractals = (k + 31) // 32
    rows_of_tile = min(8, n_fractals)
    for n_tile in range((n_fractals + 7) // 8):
        top = 16 * min(8 * n_tile, n_fractals - rows_of_tile)
        for left in range(0, k_fractals, 8):
            width = min(8, k_fractals - left)
            length = rows_of_tile * width * 128
            corner = source + top * stride + left * 32
            deal_tile(corner, stride, n - top, k - left * 32, rows_of_tile, width, scratch, SHARE_STRIDE)
            for engine in range(4):
                count_bytes(scratch + engine * SHARE_STRIDE, length, counts[0 if width == 8 else 1])


@kernel("void(int32[:,::1], int64, uint8[::1])")
def rank_counts(counts, size, dictionary):
    """The `size` most frequent bytes of counts (int32 [8, 256]) in the vendor's order, into dictionary (uint8 [36])."""
    rank_bytes(counts, size, dictionary)
