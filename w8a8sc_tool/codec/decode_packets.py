"""What a coded tile's payload must be: every rule of the format, applied one code at a time.

This is what decides about an error and names it. `groups` decodes what encoders write, faster, and leaves all else to
these functions.
"""

from __future__ import annotations

import numpy as np
from numba import types

from .causes import (
    CHECKSUM,
    EARLY_END,
    HEADERS_DIFFER,
    INVALID_CODE,
    NO_END_MARK,
    OK,
    OTHER_SPARSITY,
    OVERRUN,
    PADDING,
    PAYLOAD_LENGTH,
    PAYLOAD_SIZE,
    REPEATED,
    RESERVED,
    SHORT,
    TAIL,
    WRONG_LENGTH,
    WRONG_MODE,
)
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
    PACKET_WINDOW,
    PAYLOAD_UNIT,
    STREAM_UNIT,
)
from .intrinsics import load64, stack_array, store8
from .jit import part
from .shares import SHARE_STRIDE, xor_bytes
from .streams import payload_address
from .tables import ESCAPED, RANK, RUN, decoding_table

_LOW_TABLE = decoding_table(LOW)
_HIGH_TABLE = decoding_table(HIGH)
REVERSED_BITS = np.array([int(f"{byte:08b}"[::-1], 2) for byte in range(256)], np.int64)
_LOW_HEADER, _HIGH_HEADER = np.uint64(LOW.header), np.uint64(HIGH.header)
_LOW_RANKS, _HIGH_RANKS = LOW.dictionary_size, HIGH.dictionary_size
_SMALLEST_STREAM = 64  # bytes, in whole STREAM_UNITs: the header, one packet and an end mark
_stack_set = stack_array(types.uint64, 4)  # a bit for every byte


@part
def read_header(payload, bytes_, length, sparsity, dictionary):
    """Check the size and the four stream headers of a coded tile and read their dictionary.

    bytes_: the payload's, a multiple of PAYLOAD_UNIT; length: the bytes an engine has to yield; sparsity: 0 low,
    1 high, -1 either; dictionary: uint8 [36], of which high-sparse tiles use 34. Returns what is wrong, the engine, and
    whether the tile is high-sparse.
    """
    first = load64(payload)
    high = first & np.uint64(255) == _HIGH_HEADER
    if not high and first & np.uint64(255) != _LOW_HEADER:
        return WRONG_MODE, 0, high
    if sparsity >= 0 and high != (sparsity == 1):
        return OTHER_SPARSITY, 0, high
    if bytes_ > ENGINES * length or bytes_ < ENGINES * _SMALLEST_STREAM:
        return PAYLOAD_SIZE, 0, high
    if (first >> np.uint64(8) & np.uint64(255)) != np.uint64(length // PAYLOAD_UNIT):
        return WRONG_LENGTH, 0, high
    for engine in range(1, ENGINES):
        for position in range(0, HEADER_BYTES, 8):
            difference = load64(payload_address(payload, engine, position))
            difference ^= load64(payload_address(payload, 0, position))
            if position == 0:
                difference &= np.uint64(0xFFFF0000FFFFFFFF)  # the checksum is each engine's own
            if difference != 0:
                return HEADERS_DIFFER, engine, high
    if high and (first >> np.uint64(16) & np.uint64(0xFFFF)) != 0:
        return RESERVED, 0, high
    return (OK if _read_dictionary(payload, high, dictionary) else REPEATED), 0, high


@part
def _read_dictionary(payload, high, dictionary):
    """Read the dictionary of a header: bytes 6 to 39, and before them, in low-sparse mode, bytes 2 and 3. Returns
    whether its bytes are distinct."""
    size = _HIGH_RANKS if high else _LOW_RANKS
    if not high:
        first = load64(payload)
        dictionary[0] = first >> np.uint64(16) & np.uint64(255)
        dictionary[1] = first >> np.uint64(24) & np.uint64(255)
    for position in range(6, HEADER_BYTES):
        word = load64(payload_address(payload, 0, position // 8 * 8))
        dictionary[size - HEADER_BYTES + position] = word >> np.uint64(8 * (position % 8)) & np.uint64(255)
    seen = _stack_set()
    seen[:] = 0
    for rank in range(size):
        bit = np.uint64(1) << np.uint64(dictionary[rank] & 63)
        if seen[dictionary[rank] >> 6] & bit:
            return False
        seen[dictionary[rank] >> 6] |= bit
    return True


@part
def decode_packet(packet, room, high, dictionary, target):
    """Decode one packet (uint64) code by code to address `target`; returns what is wrong, bytes written, bits used.

    room: bytes the engine still has to yield. Stops behind the last of them, with the end mark still unread.
    """
    produced = 0
    used = 0
    while True:
        rest = packet >> np.uint64(used)
        left = PACKET_BITS - used
        if produced == room:
            return OK, produced, used
        if produced == PACKET_WINDOW:
            return (OK if rest == 0 else TAIL), produced, used
        if left < LONGEST_CODE and rest == (np.uint64(1) << np.uint64(left)) - np.uint64(1):
            return OK, produced, used
        entry = _HIGH_TABLE[rest & np.uint64(511)] if high else _LOW_TABLE[rest & np.uint64(511)]
        meaning = entry[0]
        count = np.int64(1)
        if np.int64(entry[2]) > left:
            return TAIL, produced, used
        if meaning == RANK:
            value = np.int64(dictionary[entry[1]])
        elif meaning == RUN:
            value = np.int64(dictionary[0])
            count = np.int64(entry[1])
        elif meaning == ESCAPED:
            value = REVERSED_BITS[rest >> np.uint64(4) & np.uint64(255)]
        else:
            return (INVALID_CODE if entry[2] == 0 else EARLY_END), produced, used
        if produced + count > min(room, PACKET_WINDOW):
            return OVERRUN, produced, used
        for _ in range(count):
            store8(target + produced, value)
            produced += 1
        used += np.int64(entry[2])


@part
def check_end(payload, engine, stream, packet, used, size):
    """The end of a stream, behind the last code of the packet at `stream`; returns what is wrong, and its length.

    used: bits of the packet (uint64) before the end, below 64. The end mark stands there or, if it does not fit, behind
    ones in two bytes of its own.
    """
    rest = packet >> np.uint64(used)
    if used <= PACKET_BITS - END_BITS:
        if rest != np.uint64(END_MARK):
            return NO_END_MARK, 0
        length = stream + (used + END_BITS + 7) // 8
        behind = stream + PACKET_BYTES
    else:
        ones = (np.uint64(1) << np.uint64(PACKET_BITS - used)) - np.uint64(1)
        if rest != ones or stream + 2 * PACKET_BYTES > size:
            return NO_END_MARK, 0
        mark = load64(payload_address(payload, engine, stream + PACKET_BYTES))
        if mark & np.uint64(0xFFFF) != np.uint64(END_MARK):
            return NO_END_MARK, 0
        if mark >> np.uint64(16) != 0:
            return PADDING, 0
        length = stream + PACKET_BYTES + 2
        behind = stream + 2 * PACKET_BYTES
    for position in range(behind, size, 8):
        if load64(payload_address(payload, engine, position)) != 0:
            return PADDING, 0
    return OK, length


@part
def _decode_stream(payload, engine, size, length, high, dictionary, share):
    """Decode one engine's stream of `size` bytes into its share of `length`; returns what is wrong, and how long the
    stream is."""
    done = 0
    for stream in range(HEADER_BYTES, size - PACKET_BYTES + 1, PACKET_BYTES):
        packet = load64(payload_address(payload, engine, stream))
        wrong, produced, used = decode_packet(packet, length - done, high, dictionary, share + done)
        if wrong:
            return wrong, 0
        done += produced
        if done == length:
            return check_end(payload, engine, stream, packet, used, size)
    return SHORT, 0


@part
def checksum_matches(payload, engine, share, length):
    header = load64(payload_address(payload, engine, 0)) >> np.uint64(32)
    return header & np.uint64(0xFFFF) == xor_bytes(share, length)


@part
def fits_longest(size, longest):
    """Whether streams of `size` bytes, padding included, are as short as the longest one's length allows."""
    return size == (longest + STREAM_UNIT - 1) // STREAM_UNIT * STREAM_UNIT


@part
def decode_packets(payload, size, length, high, dictionary, shares):
    """Decode a coded tile, whose header is checked, into its four shares; returns what is wrong, and the engine."""
    longest = 0
    for engine in range(ENGINES):
        share = shares + engine * SHARE_STRIDE
        wrong, end = _decode_stream(payload, engine, size, length, high, dictionary, share)
        if wrong == OK and not checksum_matches(payload, engine, share, length):
            wrong = CHECKSUM
        if wrong:
            return wrong, engine
        longest = max(longest, end)
    return (OK if fits_longest(size, longest) else PAYLOAD_LENGTH), 0
