"""The decoder's kernel: payloads to a row-major matrix, trusting nothing in them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from .causes import BYPASS_LENGTH, NOT_CANONICAL, OK, OUTSIDE
from .decode_groups import TABLE_ALIGNMENT, TABLE_BYTES, decode_groups
from .decode_packets import decode_packets, read_header
from .encode import SCRATCH_BYTES as ENCODER_SCRATCH_BYTES
from .encode import TARGET_SLACK
from .encode_high_plain import code_high_plainly
from .encode_low_plain import code_low_plainly
from .format import (
    COMPRESSED,
    ENGINES,
    FRACTAL_BYTES,
    FRACTAL_COLUMNS,
    FRACTAL_ROWS,
    LENGTH_BITS,
    LOW,
    PAYLOAD_UNIT,
    STREAM_UNIT,
    TILE_BYTES,
    TILE_FRACTALS,
)
from .intrinsics import load64, stack_array, store64
from .jit import copied_part, kernel, part
from .shares import SHARE_STRIDE, collect_tile, copy32
from .streams import CODES, payload_address

# Scratch memory: the four shares, as the encoder has them; its other buffers and a payload, to encode a tile again; the
# table of groups.
_PAYLOAD_AT = ENCODER_SCRATCH_BYTES
_TABLE_AT = _PAYLOAD_AT + TILE_BYTES + TARGET_SLACK
SCRATCH_BYTES = _TABLE_AT + TABLE_ALIGNMENT + TABLE_BYTES

_stack_dictionary = stack_array(types.uint8, LOW.dictionary_size)
_stack_codes, _stack_units = stack_array(types.uint64, CODES), stack_array(types.uint8, CODES)


class _Rules(NamedTuple):
    """What is accepted, and how it is found out.

    sparsity: 0 low, 1 high, -1 whatever the tiles say; strict: reject bytes other than zero outside of the matrix;
    canonical: reject coded tiles that encoding again would not reproduce; plain: decode one code at a time, slowly,
    with the same result.
    """

    sparsity: int
    strict: int
    canonical: int
    plain: int


class _Tile(NamedTuple):
    """A tile of `height` by `width` fractals in the matrix.

    corner: address of its row 0, column 0 in the target, rows `stride` bytes apart; first_row: the first one that does
    not repeat the neighbour; rows, columns: from the corner to the matrix's end, and maybe beyond the tile's.
    """

    corner: int
    stride: int
    first_row: int
    rows: int
    columns: int
    height: int
    width: int


class _Buffers(NamedTuple):
    """Memory that every tile uses anew; dictionary: uint8 [36]; codes, units: of an encoder."""

    scratch: int
    dictionary: np.ndarray
    codes: np.ndarray
    units: np.ndarray


@copied_part
def _is_canonical(payload, bytes_, length, high, buffers):
    """Whether coding the shares in scratch memory again, under the tile's own dictionary, gives the same payload."""
    scratch, dictionary, codes, units = buffers
    again = scratch + _PAYLOAD_AT
    if high:
        coded = code_high_plainly(scratch, length, dictionary, codes, units, again)
    else:  # the faster coder of the same bytes would take longer to compile than it ever saves here
        coded = code_low_plainly(scratch, length, dictionary, codes, units, again)
    if coded != bytes_:
        return False
    for position in range(0, bytes_, 8):
        if load64(payload + position) != load64(again + position):
            return False
    return True


@part
def _load_raw(payload, bytes_, length, shares):
    """Copy a bypass tile into its four shares; returns what is wrong, and the engine."""
    if bytes_ != ENGINES * length:
        return BYPASS_LENGTH, 0
    for engine in range(ENGINES):
        for position in range(0, length, STREAM_UNIT):
            copy32(payload_address(payload, engine, position), shares + engine * SHARE_STRIDE + position)
    return OK, 0


@copied_part
def _decode_coded(payload, bytes_, length, tile, rules, buffers, outcome):
    """Decode a coded tile into its four shares in scratch memory; returns what is wrong, and the engine."""
    shares, dictionary = buffers.scratch, buffers.dictionary
    wrong, engine, high = read_header(payload, bytes_, length, rules.sparsity, dictionary)
    if wrong:
        return wrong, engine
    size = bytes_ // ENGINES
    last_row = min(tile.rows, FRACTAL_ROWS * tile.height)
    ahead = tile.corner + tile.first_row * tile.stride, tile.corner + last_row * tile.stride, tile.stride
    if rules.plain or not decode_groups(
        payload, size, length, high, dictionary, buffers.scratch + _TABLE_AT, shares, ahead
    ):
        wrong, engine = decode_packets(payload, size, length, high, dictionary, shares)
        store64(outcome + 16, load64(outcome + 16) + np.uint64(1))
    if wrong == OK and rules.canonical and not _is_canonical(payload, bytes_, length, high, buffers):
        wrong = NOT_CANONICAL
    return wrong, engine


@copied_part
def _decode_tile(payload, entry, tile, rules, buffers, outcome):
    """Decode a tile to where it belongs, as its index entry says; returns what is wrong, and the engine."""
    bytes_ = np.int64(entry & np.uint64(LENGTH_BITS)) * PAYLOAD_UNIT
    length = tile.height * tile.width * (FRACTAL_BYTES // ENGINES)
    if entry & np.uint64(COMPRESSED):
        wrong, engine = _decode_coded(payload, bytes_, length, tile, rules, buffers, outcome)
    else:
        wrong, engine = _load_raw(payload, bytes_, length, buffers.scratch)
    if wrong == OK:
        clean = collect_tile(buffers.scratch, SHARE_STRIDE, tile)
        if rules.strict and not clean:
            wrong = OUTSIDE
    return wrong, engine


@kernel({"scratch_bytes": SCRATCH_BYTES})
def decode_tiles(
    payload, index, n, k, first, last, target, stride, first_row, sparsity, strict, canonical, plain, scratch, outcome
):
    """Decode n-tiles first to last - 1 of a matrix [n, k] and write the rows that are new in them.

    payload: address of the first payload; index: address of their entries (uint64), already checked against the
    weight's length; target: address where matrix row `first_row` goes, rows `stride` bytes apart; sparsity to plain: as
    of _Rules; scratch: address of SCRATCH_BYTES; outcome: address of int64 [3] that receives, if anything is wrong, the
    tile within the index and the engine, and in any case how many tiles were decoded one code at a time. Returns what
    is wrong, of causes.py.
    """
    rules = _Rules(sparsity, strict, canonical, plain)
    n_fractals = (n + FRACTAL_ROWS - 1) // FRACTAL_ROWS
    k_fractals = (k + FRACTAL_COLUMNS - 1) // FRACTAL_COLUMNS
    height = min(TILE_FRACTALS, n_fractals)
    buffers = _Buffers(scratch, _stack_dictionary(), _stack_codes(), _stack_units())
    number = 0
    for n_tile in range(first, last):
        start = min(TILE_FRACTALS * n_tile, n_fractals - height)
        top = target + (FRACTAL_ROWS * start - first_row) * stride
        repeated = FRACTAL_ROWS * (TILE_FRACTALS * n_tile - start)
        for left in range(0, k_fractals, TILE_FRACTALS):
            tile = _Tile(
                *(top + left * FRACTAL_COLUMNS, stride, repeated),
                *(n - FRACTAL_ROWS * start, k - FRACTAL_COLUMNS * left),
                *(height, min(TILE_FRACTALS, k_fractals - left)),
            )
            entry = load64(index + 8 * number)
            wrong, engine = _decode_tile(payload, entry, tile, rules, buffers, outcome)
            if wrong:
                store64(outcome, np.uint64(number))
                store64(outcome + 8, np.uint64(engine))
                return wrong
            payload += np.int64(entry & np.uint64(LENGTH_BITS)) * PAYLOAD_UNIT
            number += 1
    return OK
