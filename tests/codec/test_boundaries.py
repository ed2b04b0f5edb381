"""Each boundary of the format on its own: end marks, the packet's window, bypass, the smallest tile."""

from __future__ import annotations

import numpy as np
import pytest

from w8a8sc_tool.codec import Sparsity, decode_matrix, encode_matrix

from . import reference

PAD = 0  # common byte of the tiles below


def tile_from_shares(shares: list[bytes]) -> np.ndarray:
    """The row-major matrix [16 * fractals, 32] whose single tile deals out to these shares."""
    tile = b""
    for begin in range(0, len(shares[0]), 64):
        tile += b"".join(share[begin : begin + 64] for share in shares)
    matrix: np.ndarray = np.frombuffer(tile, np.int8).reshape(-1, 32).copy()
    return matrix


def check(weight: np.ndarray, *, high: bool = False) -> bytes:
    """Encode, compare with the plain encoder, decode; returns the weight tensor."""
    sparsity: Sparsity = "high" if high else "low"
    encoded = encode_matrix(weight, sparsity=sparsity)
    expected, index = reference.encode(weight, high=high)
    assert encoded.weight.tobytes() == expected
    assert encoded.index.tobytes() == index
    decoded = decode_matrix(encoded.weight, encoded.index, encoded.info, sparsity=sparsity, canonical=True)
    np.testing.assert_array_equal(decoded, weight)
    return expected


def last_packet_bits(share: bytes, *, high: bool = False) -> int:
    dictionary = reference.dictionary_of(share * 4, 34 if high else 36)
    return len(reference.packets_of(share, dictionary, high)[1])


def low_share(end_bits: int, size: int = 512) -> bytes:
    """A share whose last packet uses `end_bits` bits: mostly common bytes, with 3-bit codes of rank 1 to adjust."""
    for ones in range(size):
        share = bytes([1]) * ones + bytes(size - ones)
        if ones < size // 2 and last_packet_bits(share) == end_bits:
            return share
    raise AssertionError(f"no share ends with {end_bits} bits")


@pytest.mark.parametrize("end_bits", range(3, 64, 3))
def test_end_mark_at_every_position(end_bits: int) -> None:
    """At 54 bits and below it fits behind the last code, from 57 on it needs two bytes of its own."""
    share = low_share(end_bits)
    dictionary = reference.dictionary_of(share * 4, 36)
    stream = reference.stream_of(share, dictionary, high=False)
    assert stream is not None
    assert stream.endswith(b"\xf7\x01") or end_bits <= 54
    payload = check(tile_from_shares([share] * 4))
    assert len(payload) == 4 * -(-len(stream) // 32) * 32


def test_the_two_sides_of_54_and_57_bits() -> None:
    lengths = {}
    for end_bits in (54, 57):
        share = low_share(end_bits)
        full, _ = reference.packets_of(share, reference.dictionary_of(share * 4, 36), high=False)
        stream = reference.stream_of(share, reference.dictionary_of(share * 4, 36), high=False)
        assert stream is not None
        lengths[end_bits] = len(stream) - 40 - 8 * len(full)
    assert lengths == {54: 8, 57: 10}


@pytest.mark.parametrize("high", [False, True])
def test_smallest_tile(high: bool) -> None:
    """One fractal, 512 bytes, 128 per engine."""
    for weight in (np.zeros((1, 1)), np.zeros((16, 32)), np.eye(16, 32), np.arange(512).reshape(16, 32) % 256 - 128):
        check(weight.astype(np.int8), high=high)


@pytest.mark.parametrize("high", [False, True])
def test_every_tile_size(high: bool) -> None:
    random = np.random.default_rng(0)
    for rows in range(1, 9):
        for columns in (1, 2, 7, 8, 9):
            weight = np.where(random.random((16 * rows, 32 * columns)) < 0.6, 0, random.integers(-5, 6))
            check(weight.astype(np.int8), high=high)


def test_bypass_at_the_limit() -> None:
    """Bypass starts where a packet is needed although the stream is as long as the share; one byte less and it is not.

    A share of 128 bytes has room for a header and 11 packets. The 12th is what makes the difference.
    """
    coded: set[tuple[int, bool]] = set()
    for escapes in range(129):
        # Escapes take 12 bits, five to a packet; the rest are pairs of the common byte.
        values = np.array([100 + i % 100 for i in range(escapes)], np.uint8)
        share = values.tobytes() + bytes(128 - escapes)
        dictionary = reference.dictionary_of(share * 4, 36)
        full, _ = reference.packets_of(share, dictionary, high=False)
        stream = reference.stream_of(share, dictionary, high=False)
        payload = check(tile_from_shares([share] * 4))
        coded.add((len(full), stream is not None))
        assert (stream is None) == (len(payload) == 512 and payload[:1] != b"\xa8")
    assert (10, True) in coded
    assert (11, False) in coded


def test_bypass_for_the_sake_of_an_end_mark() -> None:
    """11 packets fill 128 bytes exactly; an end mark in a packet of its own would exceed them, a shorter one not."""
    shares: dict[bool, bytes] = {}
    random = np.random.default_rng(1)
    for _ in range(4000):
        share = np.where(random.random(128) < 0.5, 0, random.integers(0, 90, 128)).astype(np.uint8).tobytes()
        dictionary = reference.dictionary_of(share * 4, 36)
        full, last = reference.packets_of(share, dictionary, high=False)
        if len(full) == 10:
            shares.setdefault(len(last) <= 55, share)
    assert set(shares) == {True, False}
    for fits, share in shares.items():
        payload = check(tile_from_shares([share] * 4))
        assert len(payload) == 512
        assert (payload[0] == 0xA8) == fits


def test_one_engine_decides_for_the_tile() -> None:
    noise = np.random.default_rng(2).integers(0, 256, 512).astype(np.uint8).tobytes()
    payload = check(tile_from_shares([bytes(512), bytes(512), noise, bytes(512)]))
    assert len(payload) == 2048


@pytest.mark.parametrize("run", range(1, 140))
def test_runs_around_the_window(run: int) -> None:
    """High mode: runs that end before, at and behind the 64 bytes of a packet."""
    share = (bytes([7]) + bytes(run) + bytes([9, 9]) + bytes(512))[:512]
    check(tile_from_shares([share] * 4), high=True)
    check(tile_from_shares([share] * 4), high=False)


def test_nine_code_that_does_not_fit_gives_way_to_shorter_ones() -> None:
    # 10 bytes of 6 bits leave 3 bits: a run of nine has a 6-bit code, so 4 are taken and 5 start the next packet.
    random = np.random.default_rng(3)
    for _ in range(50):
        head = random.integers(1, 30, 20).astype(np.uint8).tobytes()
        share = ((head + bytes(9)) * 20)[:512]
        check(tile_from_shares([share] * 4), high=True)
