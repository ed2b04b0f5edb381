"""Streams: where their bytes lie in a payload, the codes they are made of, their two ends."""

from __future__ import annotations

import numpy as np
from numba import types

from .format import (
    END_BITS,
    END_MARK,
    ENGINES,
    HEADER_BYTES,
    HIGH,
    LONGEST_CODE,
    LOW,
    PACKET_BITS,
    PACKET_BYTES,
    PAYLOAD_UNIT,
    STREAM_UNIT,
    Mode,
)
from .intrinsics import stack_array, store64
from .jit import part
from .shares import SHARE_BYTES, SHARE_STRIDE, SLACK, copy32
from .tables import escape_codes

assert PAYLOAD_UNIT == ENGINES * STREAM_UNIT

MARKS_STRIDE = SHARE_BYTES // 8 + SLACK  # of bitmaps with a bit per byte of a share
ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
CODES = 256 + 65  # entries of a tile's tables of codes: bytes, then, in high-sparse mode, runs of 0 to 64 bytes
stack_engines = stack_array(types.int64, ENGINES)  # a number for each engine
_ESCAPES = escape_codes()
_LOW_HEADER, _HIGH_HEADER = np.uint64(LOW.header), np.uint64(HIGH.header)


def by_rank(mode: Mode) -> tuple[np.ndarray, np.ndarray]:
    """Code and length in units of 3 bits for each dictionary rank; rank 0 stands for a single common byte."""
    codes = (mode.runs[1], *mode.codes)
    return np.array([c for c, _ in codes], np.uint16), np.array([bits // 3 for _, bits in codes], np.uint8)


@part
def fill_tables(dictionary, size, rank_codes, rank_units, left, codes, units):
    """Code and units of every byte value under a tile's dictionary (codes: uint64, units: uint8, the first 256).

    left: by how many bits the codes are shifted to the left.
    """
    for value in range(256):
        codes[value] = np.uint64(_ESCAPES[value]) << np.uint64(left)
        units[value] = LONGEST_CODE // 3
    for rank in range(size):
        codes[dictionary[rank]] = np.uint64(rank_codes[rank]) << np.uint64(left)
        units[dictionary[rank]] = rank_units[rank]


@part
def payload_address(payload, engine, position):
    """Address of byte `position` (a multiple of 8) of an engine's stream in a payload woven in 32-byte chunks."""
    return payload + position // STREAM_UNIT * PAYLOAD_UNIT + engine * STREAM_UNIT + position % STREAM_UNIT


@part
def write_header(payload, engine, length, high, dictionary, checksum):
    """The 40 bytes at the front of a stream (docs/format.md, section 9).

    Mode, length in 128 bytes, the first two dictionary bytes of low-sparse mode, checksum; then the dictionary, without
    these two.
    """
    first = _HIGH_HEADER if high else _LOW_HEADER
    entry = 0
    if not high:
        first |= np.uint64(dictionary[0]) << np.uint64(16) | np.uint64(dictionary[1]) << np.uint64(24)
        entry = 2
    first |= np.uint64(length // PAYLOAD_UNIT) << np.uint64(8) | checksum << np.uint64(32)
    first |= np.uint64(dictionary[entry]) << np.uint64(48) | np.uint64(dictionary[entry + 1]) << np.uint64(56)
    store64(payload_address(payload, engine, 0), first)
    for position in range(8, HEADER_BYTES, 8):
        word = np.uint64(0)
        for byte in range(8):
            rank = entry + 2 + (position - 8) + byte
            word |= np.uint64(dictionary[rank]) << np.uint64(8 * byte)
        store64(payload_address(payload, engine, position), word)


@part
def end_stream(packet, used, target, payload, engine, stream, length):
    """Write the last packet (zero above `used` bits) to `target` and the end mark, which may take a packet of its own.

    stream: position of the packet in the stream. Returns the stream's length, 0 for bypass.
    """
    if used <= PACKET_BITS - END_BITS:
        store64(target, packet | np.uint64(END_MARK) << np.uint64(used))
        return stream + (used + END_BITS + 7) // 8
    if stream + PACKET_BYTES >= length:
        return 0
    store64(target, packet | ONES << np.uint64(used))
    store64(payload_address(payload, engine, stream + PACKET_BYTES), np.uint64(END_MARK))
    return stream + PACKET_BYTES + (END_BITS + 7) // 8


@part
def store_raw(shares, length, payload):
    """A bypass tile: the four shares woven like streams, without headers; returns the payload's bytes."""
    for engine in range(ENGINES):
        for position in range(0, length, STREAM_UNIT):
            copy32(shares + engine * SHARE_STRIDE + position, payload_address(payload, engine, position))
    return ENGINES * length


@part
def pad_streams(payload, ends):
    """Zeros behind streams of `ends` bytes (int64 [4]) up to the end of their last common 32; returns the payload's
    bytes."""
    longest = max(ends[0], ends[1], ends[2], ends[3])
    padded = (longest + STREAM_UNIT - 1) // STREAM_UNIT * STREAM_UNIT
    for engine in range(ENGINES):
        for position in range((ends[engine] + 7) // 8 * 8, padded, 8):
            store64(payload_address(payload, engine, position), np.uint64(0))
    return ENGINES * padded
