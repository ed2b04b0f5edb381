"""What the encoders of both modes share: their scratch memory, the codes of a tile's bytes, a stream's two ends."""

from __future__ import annotations

import numpy as np

from .jit import part
from .memory import store64
from .tables import END_MARK, TILE_BYTES, Mode, escape_codes
from .tiling import copy32, payload_address

# Scratch memory: the four engines' shares, then whatever the encoder of a mode needs. The caller provides it, because
# numba frees an array of which a kernel uses nothing but the address.
SLACK = 64  # loads and stores of up to 64 bytes may run over the end
SHARE_BYTES = TILE_BYTES // 4  # the most that an engine gets of a tile
SHARE_STRIDE = SHARE_BYTES + SLACK
MARKS_STRIDE = SHARE_BYTES // 8 + SLACK  # of bitmaps with a bit per byte of a share

ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
CODES = 256 + 65  # entries of a tile's tables of codes: bytes, then, in high-sparse mode, runs of 0 to 64 bytes
_ESCAPES = escape_codes()


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
        units[value] = 4
    for rank in range(size):
        codes[dictionary[rank]] = np.uint64(rank_codes[rank]) << np.uint64(left)
        units[dictionary[rank]] = rank_units[rank]


@part
def write_header(payload, engine, length, high, dictionary, checksum):
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
def end_stream(packet, used, place, payload, engine, stream, length):
    """Write the last packet (zero above `used` bits) and the end mark; returns the stream's length, 0 for bypass."""
    if used <= 55:
        store64(place, packet | np.uint64(END_MARK) << np.uint64(used))
        return stream + (used + 9 + 7) // 8
    if stream + 8 >= length:
        return 0
    store64(place, packet | ONES << np.uint64(used))
    store64(payload_address(payload, engine, stream + 8), np.uint64(END_MARK))
    return stream + 8 + 2


@part
def store_raw(shares, length, payload):
    """A bypass tile: the four shares woven like streams, without headers."""
    for engine in range(4):
        for position in range(0, length, 32):
            copy32(shares + engine * SHARE_STRIDE + position, payload_address(payload, engine, position))
    return 4 * length


@part
def pad_streams(payload, ends):
    """Zeros behind streams of `ends` bytes (int64 [4]) up to the end of their last common 32; returns the payload's
    bytes."""
    longest = max(ends[0], ends[1], ends[2], ends[3])
    padded = (longest + 31) // 32 * 32
    for engine in range(4):
        for position in range((ends[engine] + 7) // 8 * 8, padded, 8):
            store64(payload_address(payload, engine, position), np.uint64(0))
    return 4 * padded
