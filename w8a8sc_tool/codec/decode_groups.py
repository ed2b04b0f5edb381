"""Decoding what encoders write, fast: several codes, and all four engines, at a time.

A look at the next 12 bits of a packet yields all complete codes among them, a group. Every step has to wait for the one
before, so the four engines, which do not depend on each other, take their steps in turn. No error is named here: of a
tile that anything is wrong with, only that is said, and `packets` decodes it again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .decode_packets import REVERSED_BITS, check_end, checksum_matches, decode_packet, fits_longest
from .format import (
    ENGINES,
    ESCAPE,
    HEADER_BYTES,
    HIGH,
    LONGEST_CODE,
    LOW,
    PACKET_BITS,
    PACKET_BYTES,
    PACKET_WINDOW,
    TILE_BYTES,
    TILE_COLUMNS,
    Mode,
)
from .intrinsics import load64, store64
from .jit import part
from .shares import SHARE_STRIDE
from .streams import payload_address
from .tables import GROUP_UNITS, group_sizes, whole_codes
from .vectors import U64x8, choose, load, prefetch_for_writing, splat, store

# ----------------------------------------------------------------------------------------------- what groups stand for

# A tile's table holds the first 8 bytes of every group of 12 bits and, to make these, of 0 to 3 units of 3 bits. A unit
# is a digit of an octal number, the first one lowest, so groups that differ in the first digit only lie side by side:
# a row, which is one vector. Groups of few units come first.
_GROUPS = 8**GROUP_UNITS
_ROW = 64
_GROUPS_AT = (_GROUPS - 1) // 7 * 8
_FIRST_CODES = _GROUPS_AT + 8 * _GROUPS  # what a group of two units begins with, without what follows a code of one
TABLE_BYTES = _FIRST_CODES + 8 * 8**2
TABLE_ALIGNMENT = _ROW  # bytes more, so that a table can begin where it should
_EVERY_BYTE = np.uint64(0x0101010101010101)
_MOST_SYMBOLS = 8  # of a group that its table holds

Part = Callable[..., Any]


def _rows_of(mode: Mode) -> Part:
    """Compiles what writes rows of a mode's table."""
    ones = [code for code in whole_codes(mode).tolist() if code[1] == 1]
    longer = np.uint64(sum(1 << digit for digit in range(8) if digit not in [code[0] for code in ones]))
    runs_2, runs_3, runs_4 = (np.uint64(sum(1 << code[0] for code in ones if code[3] == n)) for n in (2, 3, 4))

    @part
    def fill_rows(table, units):
        """Write groups of `units` that begin with codes of one and two, from groups that have one and two fewer."""
        target, behind_one, behind_two = _groups_of(units), _groups_of(units - 1), _groups_of(units - 2)
        for row in range(1 << 3 * (units - 1)):
            rest = load64(table + behind_one + 8 * row)
            symbols = splat(U64x8, rest << np.uint64(8))
            symbols = choose(runs_2, splat(U64x8, rest << np.uint64(16)), symbols)
            symbols = choose(runs_3, splat(U64x8, rest << np.uint64(24)), symbols)
            symbols = choose(runs_4, splat(U64x8, rest << np.uint64(32)), symbols)
            rest = load64(table + behind_two + 8 * (row >> 3))
            symbols = choose(longer, splat(U64x8, rest << np.uint64(8)), symbols)
            first = load(U64x8, table + _FIRST_CODES + _ROW * (row & 7))
            store(table + target + _ROW * row, symbols | first)

    return fill_rows


@part
def _groups_of(units):
    """Where in a table, in bytes, groups of so many units begin."""
    return ((1 << 3 * units) - 1) // 7 * 8  # numba calculates a power step by step


_fill_low_rows, _fill_high_rows = _rows_of(LOW), _rows_of(HIGH)
_LOW_CODES, _HIGH_CODES = whole_codes(LOW), whole_codes(HIGH)


@part
def _fill_first_codes(codes, dictionary, table):
    """The bytes of every code of one or two units."""
    store(table + _groups_of(1), splat(U64x8, np.uint64(0)))
    for code in range(codes.shape[0]):
        value, units, rank, count = codes[code, 0], codes[code, 1], codes[code, 2], codes[code, 3]
        symbols = np.uint64(dictionary[rank]) * _EVERY_BYTE
        if count < _MOST_SYMBOLS:
            symbols &= (np.uint64(1) << np.uint64(8 * count)) - np.uint64(1)
        if units == 1:
            store64(table + _groups_of(1) + 8 * value, symbols)
            for digit in range(8):
                store64(table + _FIRST_CODES + 8 * (value + 8 * digit), symbols)
        elif units == 2:
            store64(table + _FIRST_CODES + 8 * value, symbols)


def _longer_codes(mode: Mode) -> Any:
    """The codes of a mode for which rows have no room, as of `whole_codes`: of three units, or of 8 bytes and more."""
    codes = whole_codes(mode)
    return np.ascontiguousarray(codes[(codes[:, 1] > 2) | (codes[:, 3] >= _MOST_SYMBOLS)])


_LONGER_LOW_CODES, _LONGER_HIGH_CODES = _longer_codes(LOW), _longer_codes(HIGH)


@part
def _fill_longer_codes(codes, dictionary, table, units):
    """Groups of `units` that begin with codes for which rows have no room."""
    for code in range(codes.shape[0]):
        value, used, rank, count = codes[code, 0], codes[code, 1], codes[code, 2], codes[code, 3]
        if used > units:
            continue
        symbols = np.uint64(dictionary[rank])
        for rest in range(1 << 3 * (units - used)):
            if count >= _MOST_SYMBOLS:
                group = symbols * _EVERY_BYTE
            else:
                group = symbols | load64(table + _groups_of(units - used) + 8 * rest) << np.uint64(8)
            store64(table + _groups_of(units) + 8 * (value + (rest << 3 * used)), group)


@part
def fill_symbols(high, dictionary, table):
    """Write the first 8 bytes of every group under a tile's dictionary to `table`, an address of TABLE_BYTES.

    Bytes behind a group's own are not defined: whatever is decoded next overwrites them. Where twelve zeros are left of
    a packet, which is no group, there are 8 common bytes.
    """
    store64(table, np.uint64(0))
    _fill_first_codes(_HIGH_CODES if high else _LOW_CODES, dictionary, table)
    for units in range(2, GROUP_UNITS + 1):
        if high:
            _fill_high_rows(table, units)
            _fill_longer_codes(_LONGER_HIGH_CODES, dictionary, table, units)
        else:
            _fill_low_rows(table, units)
            _fill_longer_codes(_LONGER_LOW_CODES, dictionary, table, units)
    for byte in range(256):
        store64(table + _GROUPS_AT + 8 * (ESCAPE + 16 * byte), np.uint64(REVERSED_BITS[byte]))
    store64(table + _GROUPS_AT, np.uint64(dictionary[0]) * _EVERY_BYTE)


# --------------------------------------------------------------------------------------------------------- one packet

# Where a packet's bytes go and how many bits it has used lie in one number, 256 * address + bits, which a step advances
# by a group's size, 256 * bytes + bits. A packet is shifted as an int64, which repeats its last bit, so that the end of
# a packet looks the same however long it is: -1 if it is full.
_LOW_SIZES, _HIGH_SIZES = group_sizes(LOW), group_sizes(HIGH)
_BITS = 255


@part
def _step(rest, at, symbols, sizes):
    """Decode the group that the rest of a packet (int64) begins with; returns the rest behind it, and where that goes.

    Nothing changes if the group is none that can be decoded here.
    symbols: address of the first 8 bytes of each group; sizes: uint16 [4096], 256 * bytes + bits.
    """
    group = rest & (_GROUPS - 1)
    store64(at >> 8, load64(symbols + 8 * group))
    size = np.int64(sizes[group])
    return rest >> (size & 63), at + size


@part
def _reaches_end(at):
    """A number whose bit 6 tells whether a packet has used 53 to 63 bits, so that a code of 12 did not fit."""
    return (at + (LONGEST_CODE - 1)) & ~at


@part
def _bytes_of_packet(rest, start, at):
    """Bytes that a packet decoded in groups has yielded, -1 if the plain decoder has to look at it.

    rest: what is left behind its groups. A full packet ends with 1 to 11 ones. One whose 64 bytes take less room ends
    with zeros, which may begin with codes of single common bytes; those are in place already.
    """
    used = at & _BITS
    produced = (at >> 8) - (start >> 8)
    if rest == -1 and produced < PACKET_WINDOW and _reaches_end(at) & 64:
        return produced
    if rest == 0 and produced <= PACKET_WINDOW and used + 3 * (PACKET_WINDOW - produced) <= PACKET_BITS:
        return PACKET_WINDOW
    return -1


def _most_bytes(mode: Mode) -> int:
    """Most bytes that a packet may yield, were there no limit of 64 bytes."""
    return max(PACKET_BITS * count // bits for count, (_, bits) in mode.runs.items())


def _room_for_packet(mode: Mode) -> int:
    """Bytes that an engine has left to yield when no packet without error can be its last."""
    return 1 + min(_most_bytes(mode), PACKET_WINDOW)


def _room_for_groups(mode: Mode) -> int:
    """Bytes that an engine has left to yield when a packet can be decoded in groups: even of a damaged one, whose last
    group may begin with its last bit, nothing is written into the next engine's share."""
    most = _most_bytes(mode) + int(group_sizes(mode).max() >> 8) + _MOST_SYMBOLS
    return max(1, most - (SHARE_STRIDE - TILE_BYTES // ENGINES))


_LOW_ROOM, _HIGH_ROOM = _room_for_groups(LOW), _room_for_groups(HIGH)
assert _LOW_ROOM <= _room_for_packet(LOW) and _HIGH_ROOM <= _room_for_packet(HIGH)

# ------------------------------------------------------------------------------------------------------- four engines

# A packet of each engine is decoded at a time. What changes with every step comes in tuples of four, one for each
# engine: these stay in registers, as elements of an array would not.

# Steps that are taken before anything is looked at: so many end nine packets of ten on wide distributions.
_BLIND_STEPS = 6


@part
def _load_packets(payload, stream):
    """The packets at byte `stream` of the four streams, int64."""
    return (
        np.int64(load64(payload_address(payload, np.int64(0), stream))),
        np.int64(load64(payload_address(payload, np.int64(1), stream))),
        np.int64(load64(payload_address(payload, np.int64(2), stream))),
        np.int64(load64(payload_address(payload, np.int64(3), stream))),
    )


@part
def _step_each(rests, ats, symbols, sizes):
    """A step in each of four packets."""
    rest_0, at_0 = _step(rests[0], ats[0], symbols, sizes)
    rest_1, at_1 = _step(rests[1], ats[1], symbols, sizes)
    rest_2, at_2 = _step(rests[2], ats[2], symbols, sizes)
    rest_3, at_3 = _step(rests[3], ats[3], symbols, sizes)
    return (rest_0, rest_1, rest_2, rest_3), (at_0, at_1, at_2, at_3)


@part
def _end_low_packets(rests, starts, ats, common):
    """Whether four packets are full, which they are in low-sparse mode: 64 bits of its codes never stand for 64 bytes.
    And where the next ones begin."""
    full = _reaches_end(ats[0]) & _reaches_end(ats[1]) & _reaches_end(ats[2]) & _reaches_end(ats[3]) & 64
    ordinary = (rests[0] & rests[1] & rests[2] & rests[3] == -1) & (full != 0)
    return ordinary, (ats[0] & ~_BITS, ats[1] & ~_BITS, ats[2] & ~_BITS, ats[3] & ~_BITS)


@part
def _end_high_packets(rests, starts, ats, common):
    """Whether four packets end in one of two ways, and where the next ones begin.

    Behind the last group of each, up to 8 bytes have been written that are not its own; common: what may belong there.
    """
    for at in ats:
        store64(at >> 8, common)
    bytes_0, bytes_1 = _bytes_of_packet(rests[0], starts[0], ats[0]), _bytes_of_packet(rests[1], starts[1], ats[1])
    bytes_2, bytes_3 = _bytes_of_packet(rests[2], starts[2], ats[2]), _bytes_of_packet(rests[3], starts[3], ats[3])
    behind = (
        starts[0] + (bytes_0 << 8),
        starts[1] + (bytes_1 << 8),
        starts[2] + (bytes_2 << 8),
        starts[3] + (bytes_3 << 8),
    )
    return (bytes_0 | bytes_1 | bytes_2 | bytes_3) >= 0, behind


@part
def _prefetch_row(row):
    """Have a row of the tile in the target fetched into the cache: 256 bytes, which may begin anywhere in a line."""
    for column in range(0, TILE_COLUMNS, 64):
        prefetch_for_writing(row + column)
    prefetch_for_writing(row + TILE_COLUMNS - 1)


@part
def _have_room(starts, last, stream, last_stream):
    """Whether all four packets begin, and are, at most where they may: one sign tells, so there is one branch."""
    room = (last[0] - starts[0]) | (last[1] - starts[1]) | (last[2] - starts[2]) | (last[3] - starts[3])
    return room | (last_stream - stream) >= 0


@part
def _bytes_between(first, starts):
    """The bytes that each engine has yielded."""
    return (
        (starts[0] - first[0]) >> 8,
        (starts[1] - first[1]) >> 8,
        (starts[2] - first[2]) >> 8,
        (starts[3] - first[3]) >> 8,
    )


def _lanes_of(mode: Mode) -> Part:
    """Compiles what decodes packets of all four engines, one of each at a time."""
    sizes = group_sizes(mode)
    room = _room_for_packet(mode)
    end_packets = _end_high_packets if mode is HIGH else _end_low_packets

    @part
    def decode_lanes(payload, size, length, symbols, shares, ahead):
        """Decode while nothing is unusual and every share has room.

        ahead: addresses of the tile's first row in the target and of the row behind its last, and the bytes between
        rows: with every packet, one row is fetched into the cache for the copy that follows. Returns the position in
        the streams that was reached, and the bytes that each engine has yielded.
        """
        row, end_row, stride = ahead
        common = load64(symbols)
        first = (
            shares << 8,
            (shares + SHARE_STRIDE) << 8,
            (shares + 2 * SHARE_STRIDE) << 8,
            (shares + 3 * SHARE_STRIDE) << 8,
        )
        most = (length - room) << 8
        last = first[0] + most, first[1] + most, first[2] + most, first[3] + most
        starts = first
        stream = np.int64(HEADER_BYTES)
        while _have_room(starts, last, stream, size - PACKET_BYTES):
            if row < end_row:
                _prefetch_row(row)
                row += stride
            rests, ats = _load_packets(payload, stream), starts
            for _ in range(_BLIND_STEPS):
                rests, ats = _step_each(rests, ats, symbols, sizes)
            while rests[0] & rests[1] & rests[2] & rests[3] != -1:
                before = ats
                rests, ats = _step_each(rests, ats, symbols, sizes)
                if ats == before:
                    break
            ordinary, behind = end_packets(rests, starts, ats, common)
            if not ordinary:
                break
            starts = behind
            stream += PACKET_BYTES
        return stream, _bytes_between(first, starts)

    return decode_lanes


_decode_low_lanes, _decode_high_lanes = _lanes_of(LOW), _lanes_of(HIGH)

# --------------------------------------------------------------------------------------------------------- one tile


@part
def _decode_packet_in_groups(packet, symbols, sizes, target):
    """Decode one packet in groups; returns what is left of it, where that goes, and as at the beginning."""
    rest = np.int64(packet)
    start = target << 8
    at = start
    while True:
        before = at
        rest, at = _step(rest, at, symbols, sizes)
        if at == before:
            return rest, start, at


@part
def _finish_stream(payload, engine, size, length, high, dictionary, symbols, share, stream, done):
    """Decode what is left of one engine's stream, from byte `stream` on and behind `done` bytes of its share.

    Returns the stream's length, 0 if anything is wrong.
    """
    sizes = _HIGH_SIZES if high else _LOW_SIZES
    room = _HIGH_ROOM if high else _LOW_ROOM
    while stream + PACKET_BYTES <= size:
        packet = load64(payload_address(payload, engine, stream))
        if length - done >= room:
            rest, start, at = _decode_packet_in_groups(packet, symbols, sizes, share + done)
            produced = (at >> 8) - (start >> 8)
            if produced == length - done and produced <= PACKET_WINDOW and at & _BITS < PACKET_BITS:
                wrong, end = check_end(payload, engine, stream, packet, at & _BITS, size)
                return 0 if wrong else end
            produced = _bytes_of_packet(rest, start, at)
            if 0 <= produced < length - done:
                done += produced
                stream += PACKET_BYTES
                continue
        wrong, produced, used = decode_packet(packet, length - done, high, dictionary, share + done)
        if wrong:
            return 0
        done += produced
        if done == length:
            wrong, end = check_end(payload, engine, stream, packet, used, size)
            return 0 if wrong else end
        stream += PACKET_BYTES
    return 0


@part
def decode_groups(payload, size, length, high, dictionary, memory, shares, ahead):
    """Decode a coded tile, whose header is checked, into its four shares; returns whether all is well.

    memory: address of TABLE_ALIGNMENT + TABLE_BYTES; ahead: as of `decode_lanes`.
    """
    # Groups of no units take 8 bytes; behind them, every row begins where a cache line does.
    table = (memory + 8 + _ROW - 1) // _ROW * _ROW - 8
    fill_symbols(high, dictionary, table)
    symbols = table + _GROUPS_AT
    if high:  # a packet may end with common bytes that no group writes, and of a run of 9 only 8 are written
        common = splat(U64x8, load64(symbols))
        for engine in range(ENGINES):
            for position in range(0, length, 64):
                store(shares + engine * SHARE_STRIDE + position, common)
        begin, done = _decode_high_lanes(payload, size, length, symbols, shares, ahead)
    else:
        begin, done = _decode_low_lanes(payload, size, length, symbols, shares, ahead)
    longest = 0
    for engine in range(ENGINES):
        share = shares + engine * SHARE_STRIDE
        end = _finish_stream(payload, engine, size, length, high, dictionary, symbols, share, begin, done[engine])
        if end == 0 or not checksum_matches(payload, engine, share, length):
            return False
        longest = max(longest, end)
    return fits_longest(size, longest)
