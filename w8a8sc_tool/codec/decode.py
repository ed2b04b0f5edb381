"""The decoder: payloads to a row-major matrix, trusting nothing in them."""

# Most of a stream is decoded in groups: one look at the next 9 bits yields all complete codes among them. Every step
# has to wait for the one before, so the four engines, which do not depend on each other, take their steps in turn.
# Whatever is unusual (the last packets, anything odd) is left to `_decode_packet`, which takes one code at a time and
# applies every rule; it alone decides what is an error.

from __future__ import annotations

import numpy as np

from .encode import CODES, SHARE_STRIDE, TARGET_SLACK, code_tile
from .encode import SCRATCH_BYTES as ENCODER_SCRATCH_BYTES
from .jit import kernel, part
from .memory import load64, store8, store64
from .tables import (
    END_MARK,
    ESCAPE,
    ESCAPED,
    GROUP_UNITS,
    HIGH,
    LARGEST_GROUP,
    LOW,
    RANK,
    RUN,
    TILE_BYTES,
    decoding_table,
    group_sizes,
    whole_codes,
)
from .tiling import collect_tile, copy32, payload_address, xor_bytes

_LOW_TABLE = decoding_table(LOW)
_HIGH_TABLE = decoding_table(HIGH)
_LOW_CODES, _LOW_SIZES = whole_codes(LOW), group_sizes(LOW)
_HIGH_CODES, _HIGH_SIZES = whole_codes(HIGH), group_sizes(HIGH)
_GROUPS = (8**GROUP_UNITS - 1) // 7  # where groups begin in `symbols`, behind those of fewer units
_SYMBOLS = _GROUPS + 8**GROUP_UNITS
_REVERSED_BITS = np.array([int(f"{byte:08b}"[::-1], 2) for byte in range(256)], np.int64)
# A share must have room for more than a packet's 64 bytes, so that the plain decoder sees the end of every stream. A
# damaged packet may yield more before that is noticed: 3 bytes for every 2 bits (a run of 9 has 6), and another group.
_ROOM = 65
assert 64 * 3 // 2 + LARGEST_GROUP + 8 <= 64 + SHARE_STRIDE - TILE_BYTES // 4

# What a kernel found wrong; the sentences are part of the error messages.
OK = 0
_HEADER = 1
_LENGTH = 2
_RESERVED = 3
_DISTINCT = 4
_HEADERS_DIFFER = 5
_SHORT = 6
_EARLY_END = 7
_OVERRUN = 8
_INVALID_CODE = 9
_TAIL = 10
_END_MARK = 11
_PADDING = 12
_PAYLOAD_LENGTH = 13
_CHECKSUM = 14
_SPARSITY = 15
_BYPASS_LENGTH = 16
_OUTSIDE = 17
_PAYLOAD_SIZE = 18
_NOT_CANONICAL = 19
CAUSES = {
    _HEADER: "the stream header begins with a byte that is neither A8 (low-sparse) nor 88 (high-sparse)",
    _LENGTH: "the length in the stream header is not that of this tile",
    _RESERVED: "bytes 2 and 3 of a high-sparse stream header are not zero",
    _DISTINCT: "the dictionary names a byte twice",
    _HEADERS_DIFFER: "the stream headers of the four engines differ",
    _SHORT: "the stream ends before it has yielded all its bytes",
    _EARLY_END: "the end mark comes before the stream has yielded all its bytes",
    _OVERRUN: "a run goes beyond its packet's 64 bytes or the tile",
    _INVALID_CODE: "a packet contains a code that does not exist",
    _TAIL: "the unused end of a packet is not filled as it must be",
    _END_MARK: "the end mark is missing or damaged",
    _PADDING: "there are bytes other than zero behind the end mark",
    _PAYLOAD_LENGTH: "the payload is longer than its longest stream needs",
    _CHECKSUM: "the checksum does not match the decoded bytes",
    _SPARSITY: "the tile is coded for the other sparsity",
    _BYPASS_LENGTH: "the length of a bypass tile is not the tile's size",
    _OUTSIDE: "bytes outside of the matrix are not zero",
    _PAYLOAD_SIZE: "the payload is longer than the tile it encodes or too short for its headers",
    _NOT_CANONICAL: "an encoder would not have written these bytes: other codes stand for the same data",
}

# Scratch memory: the four shares, as the encoder has them; its other buffers and a payload, to encode a tile again.
_PAYLOAD_AT = ENCODER_SCRATCH_BYTES
SCRATCH_BYTES = ENCODER_SCRATCH_BYTES + TILE_BYTES + TARGET_SLACK


@part
def _read_header(payload, length, high, dictionary):
    """Check the four stream headers of a coded tile and read their dictionary; returns what is wrong, and where."""
    first = load64(payload)
    if (first >> np.uint64(8) & np.uint64(255)) != np.uint64(length // 128):
        return _LENGTH, 0
    for engine in range(1, 4):
        for position in range(0, 40, 8):
            difference = load64(payload_address(payload, engine, position))
            difference ^= load64(payload_address(payload, 0, position))
            if position == 0:
                difference &= np.uint64(0xFFFF0000FFFFFFFF)  # the checksum is each engine's own
            if difference != 0:
                return _HEADERS_DIFFER, engine
    if high and (first >> np.uint64(16) & np.uint64(0xFFFF)) != 0:
        return _RESERVED, 0
    size = 34 if high else 36
    if not high:
        dictionary[0] = first >> np.uint64(16) & np.uint64(255)
        dictionary[1] = first >> np.uint64(24) & np.uint64(255)
    for position in range(6, 40):
        word = load64(payload_address(payload, 0, position // 8 * 8))
        dictionary[size - 40 + position] = word >> np.uint64(8 * (position % 8)) & np.uint64(255)
    seen = np.zeros(4, np.uint64)
    for rank in range(size):
        bit = np.uint64(1) << np.uint64(dictionary[rank] & 63)
        if seen[dictionary[rank] >> 6] & bit:
            return _DISTINCT, 0
        seen[dictionary[rank] >> 6] |= bit
    return OK, 0


@part
def _step(packet, used, place, symbols, sizes):
    """Decode the group at bit `used` of a packet to address `place`; returns its size, 0 if it takes a closer look.

    packet: int64, so that shifting repeats the last bit, and the end of a packet looks the same however long it is.
    symbols: uint64 [512], the first 8 bytes of each group; sizes: uint16 [512], 256 * bits + bytes.
    """
    group = (packet >> used) & 0xFFF
    store64(place, symbols[_GROUPS + group])
    return np.int64(sizes[group])


@part
def _bytes_of_packet(packet, total):
    """Bytes that a packet decoded in groups has yielded, -1 if the plain decoder has to look at it.

    total: sum of the sizes of its groups. A full packet ends with 1 to 11 ones. A packet whose 64 bytes take less room
    ends with zeros, which may begin with codes of single common bytes; those are in place already.
    """
    used = total >> 8
    produced = total & 255
    if used > 63 or produced > 64:
        return -1
    rest = packet >> used
    if rest == -1:
        return produced if used > 52 else -1
    if rest == 0:
        return 64 if used + 3 * (64 - produced) <= 64 else -1
    return -1


@part
def _decode_groups(packet, symbols, sizes, place):
    """Decode one packet in groups of codes; returns the bytes written, -1 if the plain decoder has to do it."""
    total = 0
    while total < 64 << 8:
        size = _step(packet, total >> 8, place + (total & 255), symbols, sizes)
        if size == 0:
            return _bytes_of_packet(packet, total)
        total += size
    return -1


@part
def _decode_lanes(payload, size, length, symbols, sizes, shares, done):
    """Decode packets of all four engines, one of each at a time, while nothing is unusual; returns where it stopped.

    done: int64 [4], receives the bytes each engine has yielded. Spelled out for four lanes, so that all that changes
    stays in registers.
    """
    stream = 40
    place_0, place_1, place_2, place_3 = (
        shares,
        shares + SHARE_STRIDE,
        shares + 2 * SHARE_STRIDE,
        shares + 3 * SHARE_STRIDE,
    )
    last_0, last_1, last_2, last_3 = (
        place_0 + length - _ROOM,
        place_1 + length - _ROOM,
        place_2 + length - _ROOM,
        place_3 + length - _ROOM,
    )
    while stream + 8 <= size and place_0 <= last_0 and place_1 <= last_1 and place_2 <= last_2 and place_3 <= last_3:
        packet_0 = np.int64(load64(payload_address(payload, 0, stream)))
        packet_1 = np.int64(load64(payload_address(payload, 1, stream)))
        packet_2 = np.int64(load64(payload_address(payload, 2, stream)))
        packet_3 = np.int64(load64(payload_address(payload, 3, stream)))
        total_0 = total_1 = total_2 = total_3 = np.int64(0)
        going = np.int64(1)
        while going:
            size_0 = _step(packet_0, total_0 >> 8, place_0 + (total_0 & 255), symbols, sizes)
            size_1 = _step(packet_1, total_1 >> 8, place_1 + (total_1 & 255), symbols, sizes)
            size_2 = _step(packet_2, total_2 >> 8, place_2 + (total_2 & 255), symbols, sizes)
            size_3 = _step(packet_3, total_3 >> 8, place_3 + (total_3 & 255), symbols, sizes)
            total_0 += size_0
            total_1 += size_1
            total_2 += size_2
            total_3 += size_3
            going = size_0 | size_1 | size_2 | size_3
            if (total_0 | total_1 | total_2 | total_3) >= 64 << 8:
                break
        produced_0 = _bytes_of_packet(packet_0, total_0)
        produced_1 = _bytes_of_packet(packet_1, total_1)
        produced_2 = _bytes_of_packet(packet_2, total_2)
        produced_3 = _bytes_of_packet(packet_3, total_3)
        if (produced_0 | produced_1 | produced_2 | produced_3) < 0:
            break
        place_0 += produced_0
        place_1 += produced_1
        place_2 += produced_2
        place_3 += produced_3
        stream += 8
    done[0] = place_0 - shares
    done[1] = place_1 - shares - SHARE_STRIDE
    done[2] = place_2 - shares - 2 * SHARE_STRIDE
    done[3] = place_3 - shares - 3 * SHARE_STRIDE
    return stream


@part
def _decode_packet(packet, room, high, dictionary, place):
    """Decode one packet code by code; returns what is wrong, the bytes written and the bits used.

    room: bytes the engine still has to yield. Stops behind the last of them, with the end mark still unread.
    """
    produced = 0
    used = 0
    while True:
        rest = packet >> np.uint64(used)
        left = 64 - used
        if produced == room:
            return OK, produced, used
        if produced == 64:
            return (OK if rest == 0 else _TAIL), produced, used
        if left < 12 and rest == (np.uint64(1) << np.uint64(left)) - np.uint64(1):
            return OK, produced, used
        entry = _HIGH_TABLE[rest & np.uint64(511)] if high else _LOW_TABLE[rest & np.uint64(511)]
        kind = entry[0]
        count = np.int64(1)
        if np.int64(entry[2]) > left:
            return _TAIL, produced, used
        if kind == RANK:
            value = np.int64(dictionary[entry[1]])
        elif kind == RUN:
            value = np.int64(dictionary[0])
            count = np.int64(entry[1])
        elif kind == ESCAPED:
            value = _REVERSED_BITS[rest >> np.uint64(4) & np.uint64(255)]
        else:
            return (_INVALID_CODE if entry[2] == 0 else _EARLY_END), produced, used
        if produced + count > min(room, 64):
            return _OVERRUN, produced, used
        for _ in range(count):
            store8(place + produced, value)
            produced += 1
        used += np.int64(entry[2])


@part
def _check_end(payload, engine, stream, packet, used, size):
    """The end of a stream, behind the last code of the packet at `stream`; returns what is wrong, and its length."""
    rest = packet >> np.uint64(used)
    if used <= 55:
        if rest != np.uint64(END_MARK):
            return _END_MARK, 0
        length = stream + (used + 9 + 7) // 8
        behind = stream + 8
    else:
        if rest != (np.uint64(1) << np.uint64(64 - used)) - np.uint64(1) or stream + 16 > size:
            return _END_MARK, 0
        mark = load64(payload_address(payload, engine, stream + 8))
        if mark & np.uint64(0xFFFF) != np.uint64(END_MARK):
            return _END_MARK, 0
        if mark >> np.uint64(16) != 0:
            return _PADDING, 0
        length = stream + 8 + 2
        behind = stream + 16
    for position in range(behind, size, 8):
        if load64(payload_address(payload, engine, position)) != 0:
            return _PADDING, 0
    return OK, length


@part
def _decode_stream(payload, engine, size, length, high, dictionary, symbols, sizes, share, stream, done):
    """Decode one engine's stream of `size` bytes from byte `stream` on into its share of `length`, which has `done`
    bytes already; returns what is wrong, and the stream's length."""
    while stream + 8 <= size:
        packet = load64(payload_address(payload, engine, stream))
        if length - done >= _ROOM:
            produced = _decode_groups(np.int64(packet), symbols, sizes, share + done)
            if produced >= 0:
                done += produced
                stream += 8
                continue
        wrong, produced, used = _decode_packet(packet, length - done, high, dictionary, share + done)
        if wrong:
            return wrong, 0
        done += produced
        if done == length:
            return _check_end(payload, engine, stream, packet, used, size)
        stream += 8
    return _SHORT, 0


@part
def _fill_symbols(codes, dictionary, symbols):
    """The first 8 bytes of every group under a tile's dictionary, made of a code and what follows it in fewer units.

    symbols: uint64 [_SYMBOLS], for 0 to GROUP_UNITS units one after the other. Bytes behind a group's own are not
    defined: whatever is decoded next overwrites them.
    """
    for units in range(1, GROUP_UNITS + 1):
        base = (8**units - 1) // 7
        for code in range(codes.shape[0]):
            value, used, rank, count = codes[code, 0], codes[code, 1], codes[code, 2], codes[code, 3]
            if used > units:
                continue
            byte = np.uint64(dictionary[rank]) * np.uint64(0x0101010101010101)
            rest = (8 ** (units - used) - 1) // 7
            if count >= 8:
                for i in range(8 ** (units - used)):
                    symbols[base + value + (i << 3 * used)] = byte
                continue
            own = byte & ((np.uint64(1) << np.uint64(8 * count)) - np.uint64(1))
            for i in range(8 ** (units - used)):
                symbols[base + value + (i << 3 * used)] = own | symbols[rest + i] << np.uint64(8 * count)
    for byte in range(256):
        symbols[_GROUPS + ESCAPE + 16 * byte] = np.uint64(_REVERSED_BITS[byte])
    symbols[_GROUPS] = np.uint64(dictionary[0]) * np.uint64(0x0101010101010101)


@part
def _checksum_matches(payload, engine, share, length):
    header = load64(payload_address(payload, engine, 0)) >> np.uint64(32)
    return header & np.uint64(0xFFFF) == xor_bytes(share, length)


@part
def _decode_coded(payload, bytes_, length, sparsity, dictionary, symbols, done, shares):
    """Decode a coded tile into its four shares; returns what is wrong, and the engine."""
    first = np.int64(load64(payload) & np.uint64(255))
    if first != 0xA8 and first != 0x88:
        return _HEADER, 0
    high = first == 0x88
    if sparsity >= 0 and high != (sparsity == 1):
        return _SPARSITY, 0
    size = bytes_ // 4
    if bytes_ > 4 * length or size < 64:
        return _PAYLOAD_SIZE, 0
    wrong, engine = _read_header(payload, length, high, dictionary)
    if wrong:
        return wrong, engine
    sizes = _HIGH_SIZES if high else _LOW_SIZES
    _fill_symbols(_HIGH_CODES if high else _LOW_CODES, dictionary, symbols)
    if high:  # a packet may end with common bytes that no group writes
        common = symbols[_GROUPS]
        for engine in range(4):
            for position in range(0, length, 8):
                store64(shares + engine * SHARE_STRIDE + position, common)
    begin = _decode_lanes(payload, size, length, symbols, sizes, shares, done)
    longest = 0
    for engine in range(4):
        share = shares + engine * SHARE_STRIDE
        wrong, end = _decode_stream(
            payload, engine, size, length, high, dictionary, symbols, sizes, share, begin, done[engine]
        )
        if wrong == OK and not _checksum_matches(payload, engine, share, length):
            wrong = _CHECKSUM
        if wrong:
            return wrong, engine
        longest = max(longest, end)
    if size != (longest + 31) // 32 * 32:
        return _PAYLOAD_LENGTH, 0
    return OK, 0


@part
def _is_canonical(payload, bytes_, length, dictionary, codes, units, scratch):
    """Whether coding the shares in `scratch` again, under the tile's own dictionary, gives the same payload."""
    high = load64(payload) & np.uint64(255) == np.uint64(0x88)
    again = scratch + _PAYLOAD_AT
    if code_tile(scratch, length, high, dictionary, codes, units, again) != bytes_:
        return False
    for position in range(0, bytes_, 8):
        if load64(payload + position) != load64(again + position):
            return False
    return True


@part
def _load_raw(payload, bytes_, length, shares):
    """Copy a bypass tile into its four shares; returns what is wrong, and the engine."""
    if bytes_ != 4 * length:
        return _BYPASS_LENGTH, 0
    for engine in range(4):
        for position in range(0, length, 32):
            copy32(payload_address(payload, engine, position), shares + engine * SHARE_STRIDE + position)
    return OK, 0


@kernel(
    "void(int64, uint64[::1], int64, int64, int64, int64, int64, int64, int64, int64, int64, int64, int64, int64[::1])"
)
def decode_tiles(
    payload,
    index,
    n,
    k,
    first_tile,
    last_tile,
    sparsity,
    strict,
    canonical,
    target,
    stride,
    first_row,
    scratch,
    failure,
):
    """Decode n-tiles first_tile to last_tile - 1 of a matrix [n, k] and write the rows that are new in them.

    payload: address of the first payload; index: their entries, already checked against the weight's length;
    sparsity: 0 low, 1 high, -1 whatever the tiles say; strict: reject bytes other than zero outside of the matrix;
    canonical: reject coded tiles that encoding again would not reproduce;
    target: address of matrix row `first_row`, rows `stride` bytes apart; scratch: address of SCRATCH_BYTES.
    failure receives cause (0 if all is well), tile within `index`, and engine.
    """
    n_fractals = (n + 15) // 16
    k_fractals = (k + 31) // 32
    rows_of_tile = min(8, n_fractals)
    dictionary = np.empty(36, np.uint8)
    symbols = np.zeros(_SYMBOLS, np.uint64)
    done = np.empty(4, np.int64)
    codes = np.empty(CODES, np.uint64)
    units = np.empty(CODES, np.uint8)
    failure[:] = 0
    tile = 0
    for n_tile in range(first_tile, last_tile):
        start = min(8 * n_tile, n_fractals - rows_of_tile)
        top = 16 * start
        repeated = 16 * (8 * n_tile - start)
        for left in range(0, k_fractals, 8):
            width = min(8, k_fractals - left)
            length = rows_of_tile * width * 128
            bytes_ = np.int64(index[tile] & np.uint64(511)) * 128
            if index[tile] & np.uint64(1 << 15):
                wrong, engine = _decode_coded(payload, bytes_, length, sparsity, dictionary, symbols, done, scratch)
                known = wrong == OK and canonical != 0
                if known and not _is_canonical(payload, bytes_, length, dictionary, codes, units, scratch):
                    wrong = _NOT_CANONICAL
            else:
                wrong, engine = _load_raw(payload, bytes_, length, scratch)
            if wrong == OK:
                corner = target + (top - first_row) * stride + left * 32
                clean = collect_tile(
                    scratch, SHARE_STRIDE, repeated, n - top, k - left * 32, rows_of_tile, width, corner, stride
                )
                if strict and not clean:
                    wrong = _OUTSIDE
            if wrong:
                failure[0] = wrong
                failure[1] = tile
                failure[2] = engine
                return
            payload += bytes_
            tile += 1
