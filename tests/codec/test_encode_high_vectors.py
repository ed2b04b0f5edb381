"""The fast high-sparse coder: symbols against a plain statement of them, whole tiles against the plain coder."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w8a8sc_tool.codec import encode_high_vectors as coder
from w8a8sc_tool.codec import encode_matrix
from w8a8sc_tool.codec.encode_high_plain import code_high_plainly
from w8a8sc_tool.codec.kernels import address_of
from w8a8sc_tool.codec.shares import SHARE_BYTES
from w8a8sc_tool.codec.streams import CODES

from . import reference
from .both_coders import payload_of_both
from .test_symbols import FAR, NEAR, SKIP, Tile, tiles

RUN = {1: 26, 2: 27, 3: 28, 4: 29}


@numba.njit
def _find_runs(scratch, length, common):  # type: ignore[no-untyped-def]
    return coder.find_runs(scratch, length, common)


def symbols_of(share: np.ndarray, common: int) -> list[int]:
    """The plain statement of step 1: a run of up to 8 common bytes is coded 4 bytes at a time, then the rest."""
    symbols: list[int] = []
    left = share.tolist()[::-1]
    while left:
        run = 0
        while left and left[-1] == common:
            left.pop()
            run += 1
        while run:
            piece = min(run, 4)
            symbols += [RUN[piece], *[SKIP] * (piece - 1)]
            run -= piece
        if left:
            byte = left.pop()
            value = byte - 256 if byte > 127 else byte
            symbols.append(value + 13 if value in NEAR else FAR)
    return symbols


@pytest.mark.parametrize("position", [0, 1, 7, 8, 55, 56, 60, 62, 63, 64, 65, 127, 8183, 8184, 8190, 8191])
@pytest.mark.parametrize("size", range(1, 9))
def test_runs_of_up_to_8(position: int, size: int) -> None:
    shares = np.ones((4, SHARE_BYTES), np.uint8)
    shares[:, position : position + size] = 0
    tile = Tile(shares)
    assert _find_runs(address_of(tile.memory), tile.length, 0)
    symbols = symbols_of(shares[0], 0)
    for engine in range(4):
        assert tile.indices()[engine].tolist() == [a | b << 5 for a, b in zip(symbols[::2], symbols[1::2])]


@numba.njit
def _code_both(fast, plain, length, dictionary, target, other):  # type: ignore[no-untyped-def]
    codes = np.empty(CODES, np.uint64)
    units = np.empty(CODES, np.uint8)
    size = np.int64(-1)
    if coder.find_runs(fast, length, np.int64(dictionary[0])):
        size = coder.code_runs(fast, length, dictionary, codes, units, target)
    return size, code_high_plainly(plain, length, dictionary, codes, units, other)


def code_both(shares: np.ndarray, dictionary: np.ndarray) -> bytes | None:
    return payload_of_both(_code_both, shares, dictionary)


DICTIONARY = np.array([*range(13), *range(243, 256), *range(60, 68)], np.uint8)


@settings(max_examples=50, deadline=None)
@given(tiles(), st.integers(0, 2**32))
def test_any_dictionary(tile: Tile, seed: int) -> None:
    code_both(tile.shares, np.random.default_rng(seed).permutation(256)[:34].astype(np.uint8))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 4), st.sampled_from([1, 4, 25, 30, 100])), max_size=40),
    st.integers(0, 30),
    st.integers(0, 3),
)
def test_runs_among_other_bytes(pieces: list[tuple[int, int, int]], offset: int, engine: int) -> None:
    """Runs of up to 20 common bytes, before up to four others with codes of 3 to 12 bits, at any bit of a packet."""
    row = [1] * offset
    for run, others, byte in pieces:
        row += [0] * run + [byte if byte == 100 else int(DICTIONARY[byte])] * others
    shares = np.random.default_rng(offset).integers(1, 5, (4, SHARE_BYTES)).astype(np.uint8)
    row = row[: SHARE_BYTES // 2]
    shares[engine, : len(row)] = row
    shares[3 - engine, SHARE_BYTES - len(row) :] = row
    long = sum(not any(row[end - 9 : end]) for end in range(9, len(row) + 1))
    assert code_both(shares, DICTIONARY) or long > 64  # more than the fast coder is for


@pytest.mark.parametrize("run", [7, 8, 9, 10, 12, 13, 17, 18, 60, 64, 65, 73])
@pytest.mark.parametrize("bits", range(0, 66, 3))
def test_a_long_run_at_every_bit_of_a_packet(run: int, bits: int) -> None:
    """At bit 60 a code for 9 bytes has no room: one for 4 takes its place, and the rest of the run changes."""
    shares = np.random.default_rng(run).integers(1, 13, (4, SHARE_BYTES)).astype(np.uint8)
    shares[:, : bits // 3] = 1
    shares[:, bits // 3 : bits // 3 + run] = 0
    shares[2, SHARE_BYTES - run :] = 0
    assert code_both(shares, DICTIONARY)


def test_packets_of_as_many_bytes_as_short_runs_allow() -> None:
    """8 common bytes and one of 3 bits: 63 bytes in 63 bits. One byte more, and the window of 64 bytes would count."""
    for offset in range(9):
        row = ([0] * offset + [1] + ([0] * 8 + [1]) * SHARE_BYTES)[:SHARE_BYTES]
        shares = np.tile(np.array(row, np.uint8), (4, 1))
        assert code_both(shares, DICTIONARY)


def test_tiles_that_do_not_suit_are_refused() -> None:
    random = np.random.default_rng(0)
    sparse = np.where(random.random((4, SHARE_BYTES)) < 0.9, 0, random.integers(1, 9, (4, SHARE_BYTES))).astype(
        np.uint8
    )
    far = random.integers(0, 256, (4, SHARE_BYTES)).astype(np.uint8)
    for shares in (sparse, far):
        assert not _find_runs(address_of(Tile(shares).memory), SHARE_BYTES, 0)


@pytest.mark.parametrize("zeros", [0.1, 0.5, 0.6, 0.65, 0.7, 0.9])
def test_matrices_around_the_limit_of_long_runs(zeros: float) -> None:
    random = np.random.default_rng(1)
    weight = np.where(random.random((128, 300)) < zeros, 0, random.integers(-9, 10, (128, 300)))
    weight[:, 40] = random.integers(-128, 128, 128)
    weight = weight.astype(np.int8)
    expected, index = reference.encode(weight, high=True)
    encoded = encode_matrix(weight, sparsity="high")
    assert encoded.weight.tobytes() == expected
    assert encoded.index.tobytes() == index


def test_sparse_tiles_behind_each_other() -> None:
    """Whose counts are those of a few other bytes: common bytes that change, a tile in between in which none is, others
    that crowd where counting begins, and a last tile of fewer columns."""
    random = np.random.default_rng(2)
    parts = []
    for common, share in (
        [(0, 0.9)] * 3 + [(7, 0.95)] * 2 + [(0, 0.9), (0, 0.0), (0, 0.97), (0, 0.76), (0, 0.74), (-128, 1)]
    ):
        others = random.integers(-128, 128, (128, 256))
        parts.append(np.where(random.random((128, 256)) < share, common, others))
    crowded = np.zeros((128, 256), int)
    crowded[:40] = random.integers(-128, 128, (40, 256))
    weight = np.concatenate([*parts, crowded, parts[0], parts[0][:, :70]], axis=1).astype(np.int8)
    expected, index = reference.encode(weight, high=True)
    encoded = encode_matrix(weight, sparsity="high")
    assert encoded.weight.tobytes() == expected
    assert encoded.index.tobytes() == index
