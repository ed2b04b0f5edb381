"""The fast low-sparse coder gives whole tiles the same bytes as the plain one."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w8a8sc_tool.codec import encode_low_vectors as coder
from w8a8sc_tool.codec.encode_low_plain import code_low_plainly
from w8a8sc_tool.codec.shares import SHARE_BYTES
from w8a8sc_tool.codec.streams import CODES

from .both_coders import payload_of_both
from .test_symbols import Tile, tiles


@numba.njit
def _code_both(fast, plain, length, dictionary, target, other):  # type: ignore[no-untyped-def]
    codes = np.empty(CODES, np.uint64)
    units = np.empty(CODES, np.uint8)
    size = np.int64(-1)
    if coder.find_symbols(fast, length, np.int64(dictionary[0])):
        size = coder.code_symbols(fast, length, dictionary, codes, units, target, (0, 0, 0))
    return size, code_low_plainly(plain, length, dictionary, codes, units, other)


def code_both(shares: np.ndarray, dictionary: np.ndarray) -> bytes | None:
    return payload_of_both(_code_both, shares, dictionary)


def dictionary_with(*bytes_: int) -> np.ndarray:
    """36 bytes that begin with these."""
    rest = [byte for byte in (*range(14), *range(242, 256), *range(60, 80)) if byte not in bytes_]
    return np.array([*bytes_, *rest][:36], np.uint8)


# A byte by the bits of its code, under the dictionary below: near ones, far ones and one that has none of its own.
DICTIONARY = dictionary_with(0)
BYTES = {
    bits: [int(DICTIONARY[rank]) for rank in ranks]
    for bits, ranks in {3: [1, 2, 3], 6: [4, 10, 20], 9: [22, 27, 35]}.items()
}
BYTES[12] = [100, 241, 14]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0, 3, 6, 9, 12]), min_size=8, max_size=8), min_size=1, max_size=12),
    st.integers(0, 7),
    st.integers(0, 2**32),
)
def test_groups_of_any_length(groups: list[list[int]], offset: int, seed: int) -> None:
    """8 bytes with up to 96 bits, at every bit of a packet, in different order in the four engines; 0: common bytes."""
    random = np.random.default_rng(seed)
    pattern = [bits for group in groups for bits in group]
    shares = np.zeros((4, 4096), np.uint8)
    for engine in range(4):
        codes = [3] * (offset + engine) + pattern * (1 + engine % 2)
        shares[engine, : len(codes)] = [0 if bits == 0 else random.choice(BYTES[bits]) for bits in codes]
    assert code_both(shares, DICTIONARY)


@pytest.mark.parametrize("bits", [57, 60, 63, 66, 69, 93, 96])
def test_groups_around_63_bits(bits: int) -> None:
    """The largest group that is cut at once, the smallest that is cut in halves, and the largest of all."""
    lengths = [3] * 8
    for byte in range(8):
        lengths[byte] += min(9, bits - sum(lengths))
    assert sum(lengths) == bits
    for shift in range(22):
        shares = np.zeros((4, 8192), np.uint8)
        row = [BYTES[3][0]] * shift + [BYTES[length][shift % 3] for length in lengths] * 20
        shares[shift % 4, : len(row)] = row
        shares[3 - shift % 4, 8192 - len(row) :] = row
        assert code_both(shares, DICTIONARY)


def test_far_bytes_at_every_place_of_a_word_and_around_chunks() -> None:
    positions = [*range(64), *range(1020, 1030), 2047, 2048, *range(8185, 8192)]
    for position in positions:
        shares = np.random.default_rng(position).integers(0, 3, (4, SHARE_BYTES)).astype(np.uint8)
        shares[position % 4, position] = 100
        shares[(position + 1) % 4, position ^ 1 : position ^ 1 + 2] = 200
        assert code_both(shares, DICTIONARY)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 63, 64])
def test_many_far_bytes_in_one_word(count: int) -> None:
    shares = np.random.default_rng(count).integers(0, 3, (4, SHARE_BYTES)).astype(np.uint8)
    for begin in (0, 512, 1024, SHARE_BYTES - 64):
        shares[:, begin + 64 - count : begin + 64] = np.random.default_rng(begin).integers(100, 200, (4, count))
    assert Tile(shares).find_symbols(0)
    assert code_both(shares, DICTIONARY)


@settings(max_examples=100, deadline=None)
@given(tiles(), st.integers(0, 2**32))
def test_any_dictionary(tile: Tile, seed: int) -> None:
    """A dictionary that was counted elsewhere: bytes near 0 may have no code, far ones short ones."""
    dictionary = np.random.default_rng(seed).permutation(256)[:36].astype(np.uint8)
    code_both(tile.shares, dictionary)
