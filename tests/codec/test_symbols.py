"""Tiles as symbols: every step of the fast coders against a plain statement of it."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w8a8sc_tool.codec import encode_low_vectors as coder
from w8a8sc_tool.codec import symbols as tile_symbols
from w8a8sc_tool.codec.encode import SCRATCH_BYTES
from w8a8sc_tool.codec.encode_low_plain import LOW_CODES, LOW_UNITS
from w8a8sc_tool.codec.kernels import address_of
from w8a8sc_tool.codec.shares import SHARE_BYTES, SHARE_STRIDE
from w8a8sc_tool.codec.streams import CODES, fill_tables

from . import reference

NEAR = range(-13, 13)
SINGLE, PAIR, SKIP, FAR = 26, 27, 30, 31


class Tile:
    """Scratch memory that holds a tile's four shares (uint8 [4, length])."""

    def __init__(self, shares: np.ndarray) -> None:
        self.shares = shares
        self.length = shares.shape[1]
        self.memory = np.full(SCRATCH_BYTES, 0xA5, np.uint8)
        for engine in range(4):
            begin = engine * SHARE_STRIDE
            self.memory[begin : begin + self.length] = shares[engine]
            self.memory[begin + self.length : begin + self.length + 64] = shares[engine][
                0
            ]  # what lies behind is no matter

    def find_symbols(self, common: int) -> bool:
        return bool(_find_symbols(address_of(self.memory), self.length, common))

    def indices(self) -> np.ndarray:
        """uint16 [4, length / 2]."""
        begin = tile_symbols.INDICES_AT
        rows = self.memory[begin : begin + 4 * SHARE_BYTES].view(np.uint16).reshape(4, -1)
        return rows[:, : self.length // 2]

    def far(self) -> list[int]:
        """Positions of far bytes: engine * SHARE_BYTES + byte."""
        begin, *_, end = self.segments()
        return self.memory[begin:end].view(np.uint16).tolist()  # type: ignore[no-any-return]

    def segments(self) -> list[int]:
        """Where each engine's part of the list begins in scratch memory, and where it ends."""
        begin = tile_symbols.SEGMENTS_AT
        addresses = self.memory[begin : begin + 40].copy().view(np.uint64) - np.uint64(address_of(self.memory))
        return addresses.tolist()  # type: ignore[no-any-return]

    def checksums(self) -> list[int]:
        return self.memory[tile_symbols.CHECKSUMS_AT : tile_symbols.CHECKSUMS_AT + 32].copy().view(np.uint64).tolist()  # type: ignore[no-any-return]


@numba.njit
def _find_symbols(scratch, length, common):  # type: ignore[no-untyped-def]
    return coder.find_symbols(scratch, length, common)


@numba.njit
def _count_symbols(scratch, length, common, totals):  # type: ignore[no-untyped-def]
    tile_symbols.count_symbols(scratch, length, common, totals)


def symbols_of(share: np.ndarray, common: int) -> list[int]:
    """The plain statement of step 1: runs of common bytes fall into pairs from their beginning."""
    symbols: list[int] = []
    for byte in share.tolist():
        value = byte - 256 if byte > 127 else byte
        if byte == common:
            if symbols and symbols[-1] == SINGLE:
                symbols[-1] = PAIR
                symbols.append(SKIP)
            else:
                symbols.append(SINGLE)
        else:
            symbols.append(value + 13 if value in NEAR else FAR)
    return symbols


@st.composite
def tiles(draw: st.DrawFn) -> Tile:
    """Shares of runs and near bytes with some far ones, as long as tiles of any shape make them."""
    length = 128 * draw(st.sampled_from([1, 2, 3, 7, 8, 9, 40, 63, 64]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = np.rint(random.normal(0, draw(st.sampled_from([0.4, 2, 5])), (4, length)))
    stay = random.random((4, length)) < draw(st.sampled_from([0, 0.5, 0.97]))
    values[:, 1:] = np.where(stay[:, 1:], 0, values[:, 1:])
    far = random.random((4, length)) < draw(st.sampled_from([0, 0.01, 0.1]))
    values = np.where(far, random.integers(-128, 128, (4, length)), values)
    return Tile(np.clip(values, -128, 127).astype(np.int8).view(np.uint8))


@settings(max_examples=60, deadline=None)
@given(tiles(), st.sampled_from([0, 1, 13, 14, 100, 242, 241, 255]))
def test_symbols(tile: Tile, common: int) -> None:
    """Indices hold two symbols each; far bytes are listed in order; the checksum is that of the format."""
    if not tile.find_symbols(common):
        assert sum(symbols_of(share, common).count(FAR) for share in tile.shares) > 0
        return
    far = []
    for engine, share in enumerate(tile.shares):
        symbols = symbols_of(share, common)
        assert tile.indices()[engine].tolist() == [a | b << 5 for a, b in zip(symbols[::2], symbols[1::2])]
        far += [engine * SHARE_BYTES + i for i, symbol in enumerate(symbols) if symbol == FAR]
        odd, even = (int(np.bitwise_xor.reduce(share[first::2])) for first in (1, 0))
        assert tile.checksums()[engine] == odd | even << 8
    assert tile.far() == far


@settings(max_examples=60, deadline=None)
@given(tiles(), st.sampled_from([0, 1, 13, 14, 100, 242, 241, 255]))
def test_counts_do_not_depend_on_the_guess(tile: Tile, guess: int) -> None:
    totals = np.full(256, -1, np.int64)
    if tile.find_symbols(guess):
        _count_symbols(address_of(tile.memory), tile.length, guess, totals)
        assert totals.tolist() == np.bincount(tile.shares.reshape(-1), minlength=256).tolist()


@pytest.mark.parametrize("position", [0, 1, 62, 63, 64, 65, 127, 128, 1022, 1023, 1024, 8190, 8191])
@pytest.mark.parametrize("size", [1, 2, 3, 63, 64, 65, 66, 128, 1025])
def test_runs_across_words(position: int, size: int) -> None:
    shares = np.ones((4, SHARE_BYTES), np.uint8)
    shares[:, position : position + size] = 0
    tile = Tile(shares)
    assert tile.find_symbols(0)
    symbols = symbols_of(shares[0], 0)
    for engine in range(4):
        assert tile.indices()[engine].tolist() == [a | b << 5 for a, b in zip(symbols[::2], symbols[1::2])]


def test_too_many_far_bytes_are_refused_as_soon_as_they_are() -> None:
    """1/8 of what was seen and 256 more; the list has room for what is noted until then."""
    most = 0
    for begin in (0, 64, 1024, SHARE_BYTES):
        for share in (0, 1, 3):
            shares = np.zeros((4, SHARE_BYTES), np.uint8)
            shares[:share, 7::8] = 100  # 1/8
            shares[share, begin:] = 100
            tile = Tile(shares)
            behind = tile.memory[tile_symbols.COUNTS_AT :].copy()
            accepted = tile.find_symbols(0)
            assert accepted == (begin == SHARE_BYTES)
            if accepted:
                most = max(most, len(tile.far()))
            np.testing.assert_array_equal(tile.memory[tile_symbols.COUNTS_AT :], behind)
    assert most == 3 * SHARE_BYTES // 8


def test_a_crowd_of_far_bytes_is_allowed() -> None:
    shares = np.zeros((4, SHARE_BYTES), np.uint8)
    shares[0, :256] = 100
    assert Tile(shares).find_symbols(0)
    shares[0, 256:320] = 100
    assert not Tile(shares).find_symbols(0)


@numba.njit
def _fill_tables(scratch, dictionary, codes, units):  # type: ignore[no-untyped-def]
    fill_tables(dictionary, 36, LOW_CODES, LOW_UNITS, 0, codes, units)
    tile_symbols.fill_symbol_tables(scratch, 0, codes, units)


def test_the_table_holds_the_codes_of_all_pairs_of_symbols() -> None:
    dictionary = np.random.default_rng(0).permutation(256)[:36].astype(np.uint8)
    memory = np.zeros(SCRATCH_BYTES, np.uint8)
    _fill_tables(address_of(memory), dictionary, np.empty(CODES, np.uint64), np.empty(CODES, np.uint8))
    table = memory[tile_symbols.TABLE_AT : tile_symbols.TABLE_AT + 4096].view(np.uint32).tolist()
    ranks = {int(byte): reference.bits(*code) for byte, code in zip(dictionary[1:], reference.LOW_CODES)}
    ranks[int(dictionary[0])] = "000"

    def code(symbol: int) -> str:
        if symbol >= SINGLE:
            return {SINGLE: "000", PAIR: "001", SKIP: "", FAR: ""}.get(symbol, "000")
        byte = (symbol - 13) % 256
        return ranks.get(byte, "1111" + f"{byte:08b}")

    for first in range(32):
        for second in range(32):
            entry = table[first + 32 * second]
            a, b = code(first), code(second)
            assert (entry >> 24 & 15, entry >> 28) == (len(a), len(b))
            assert reference.bits(entry & 0xFFFFFF, 24) == (a + b).ljust(24, "0")
