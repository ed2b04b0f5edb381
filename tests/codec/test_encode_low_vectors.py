"""The fast low-sparse coder: its steps against plain statements of them, and the whole against the plain coder."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w8a8sc_tool.codec import encode_low_vectors as coder
from w8a8sc_tool.codec import encode_matrix
from w8a8sc_tool.codec import symbols as tile_symbols
from w8a8sc_tool.codec.encode import SCRATCH_BYTES, TARGET_SLACK
from w8a8sc_tool.codec.encode_low_plain import LOW_CODES, LOW_UNITS, code_low_plainly
from w8a8sc_tool.codec.intrinsics import address_of
from w8a8sc_tool.codec.shares import SHARE_BYTES, SHARE_STRIDE
from w8a8sc_tool.codec.streams import CODES, fill_tables

from . import reference
from .plain_kernel import encode_plainly
from .weights import matrices, runs, sparse

NEAR = range(-13, 13)
SINGLE, PAIR, SKIP, FAR = 26, 27, 30, 31

# ---- one tile, step by step ----


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


# ---- whole tiles: the same bytes as the plain coder ----


@numba.njit
def _code_both(fast, plain, length, dictionary, target, other):  # type: ignore[no-untyped-def]
    codes = np.empty(CODES, np.uint64)
    units = np.empty(CODES, np.uint8)
    size = np.int64(-1)
    if coder.find_symbols(fast, length, np.int64(dictionary[0])):
        size = coder.code_symbols(fast, length, dictionary, codes, units, target, (0, 0, 0))
    return size, code_low_plainly(plain, length, dictionary, codes, units, other)


def code_both(shares: np.ndarray, dictionary: np.ndarray) -> bytes | None:
    """Code a tile under a dictionary with both coders; returns the payload, nothing for bypass.

    None if the fast one refuses the tile.
    """
    fast, plain = Tile(shares), Tile(shares)
    target, other = (np.zeros(4 * SHARE_BYTES + TARGET_SLACK, np.uint8) for _ in range(2))
    size, expected = _code_both(
        address_of(fast.memory),
        address_of(plain.memory),
        fast.length,
        dictionary,
        address_of(target),
        address_of(other),
    )
    if size < 0:
        return None
    assert size == expected
    assert target[:size].tobytes() == other[:size].tobytes()
    return target[:size].tobytes()


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


@settings(max_examples=300, deadline=None)
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
    places = [*range(64), *range(1020, 1030), 2047, 2048, *range(8185, 8192)]
    for place in places:
        shares = np.random.default_rng(place).integers(0, 3, (4, SHARE_BYTES)).astype(np.uint8)
        shares[place % 4, place] = 100
        shares[(place + 1) % 4, place ^ 1 : place ^ 1 + 2] = 200
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


# ---- whole matrices ----


def check(weight: np.ndarray) -> np.ndarray:
    """Encode with both encoders; returns the index entries without offsets."""
    payload, entries = encode_plainly(weight)
    encoded = encode_matrix(weight)
    index = encoded.index.view(np.uint64) & np.uint64(0xFFFFFFFF)
    assert index.tolist() == entries.tolist()
    assert encoded.weight.tobytes() == payload.tobytes()
    return entries


@settings(max_examples=150, deadline=None)
@given(matrices(), st.sampled_from([0, 1, 100, 128, 250]))
def test_any_matrix(weight: np.ndarray, shift: int) -> None:
    """Of any shape and content, and with any byte where zeros were."""
    weight = weight[: weight.shape[0] // 128 * 128 or 128]  # no tile may overlap: noise would outgrow the matrix
    check(np.ascontiguousarray((weight.view(np.uint8) + np.uint8(shift)).view(np.int8)))


def test_a_common_byte_that_changes_from_tile_to_tile() -> None:
    """Every guess is wrong, and far bytes are common in some tiles."""
    random = np.random.default_rng(0)
    tiles = [
        np.where(random.random((128, 256)) < 0.6, common, random.integers(-9, 9, (128, 256)))
        for common in (5, 0, 100, -128, -14, 14, 13, -15, 0, 0, 127)
    ]
    entries = check(np.concatenate(tiles, axis=1).astype(np.int8))
    assert all(int(entry) >> 15 for entry in entries)


def test_a_guess_that_hides_far_bytes() -> None:
    """100 is common in the first tile. In the second one it is not, but frequent: too many far bytes."""
    random = np.random.default_rng(1)
    first = np.full((128, 256), 100)
    second = random.choice([0, 100, 3, -5], p=[0.45, 0.4, 0.1, 0.05], size=(128, 256))
    check(np.concatenate([first, second, second, first, second], axis=1).astype(np.int8))


@pytest.mark.parametrize("far", [0.08, 0.11, 0.124, 0.126, 0.15, 0.5, 1.0])
def test_tiles_of_few_and_many_far_bytes_in_turn(far: float) -> None:
    """Whatever the tile before was like: a tile is coded by one coder or the other, and nothing shows which."""
    random = np.random.default_rng(2)
    tiles = []
    for number in range(8):
        tile = random.integers(-3, 4, (128, 256))
        if number in (1, 2, 3, 6):
            tile = np.where(random.random((128, 256)) < far, random.choice([-128, 60, 61, 62], (128, 256)), tile)
        tiles.append(tile)
    check(np.concatenate(tiles, axis=1).astype(np.int8))


def test_bypass_decided_at_any_time() -> None:
    """Noise in the last columns of a tile makes one engine's stream too long only at its end."""
    random = np.random.default_rng(3)
    bypass = []
    for columns in range(0, 257, 16):
        tile = random.integers(-14, 14, (128, 256))
        tile[:, 256 - columns :] = random.integers(-128, 128, (128, columns))
        bypass.append(int(check(np.concatenate([tile, tile], axis=1).astype(np.int8))[0]) >> 15 == 0)
    assert not bypass[0] and bypass[-1]


@pytest.mark.parametrize("kind", ["low", "runs", "constant", "noise"])
def test_large_matrices(kind: str) -> None:
    shape = (400, 1100)
    weight = {
        "low": lambda: sparse(shape, 1, 0.3, 3.0, 0.02),
        "runs": lambda: runs(shape, 2, 20),
        "constant": lambda: np.full(shape, -77, np.int8),
        "noise": lambda: sparse(shape, 3, 0.0, 60.0, 0.3)[:384],
    }[kind]()
    check(np.ascontiguousarray(weight))


# ---- what it may touch ----

GUARDED = """
import ctypes, json, mmap, sys
import numpy as np
from w8a8sc_tool.codec import encode
from w8a8sc_tool.codec.format import TILE_BYTES

libc = ctypes.CDLL(None, use_errno=True)
kept = []

def before_a_guard(size):
    "uint8 [size] that ends where a page begins that must not be touched."
    page = mmap.PAGESIZE
    whole = -(-size // page) * page
    memory = mmap.mmap(-1, whole + page)
    kept.append(memory)
    array = np.frombuffer(memory, np.uint8)
    address = ctypes.c_void_p(array.ctypes.data + whole)
    assert libc.mprotect(address, ctypes.c_size_t(page), 0) == 0  # PROT_NONE
    return array[whole - size : whole]

def run(rows, tiles, dictionaries, high=0):
    source = before_a_guard(128 * 256 * tiles).reshape(128, -1)
    source[:] = rows.view(np.uint8)
    target = before_a_guard(TILE_BYTES * tiles + encode.TARGET_SLACK)
    target[:] = 0xCC
    scratch = before_a_guard(encode.SCRATCH_BYTES)
    index = np.zeros(tiles, np.uint64)
    used = encode.encode_tiles(source.ctypes.data, 256 * tiles, 0, 128, 256 * tiles, 0, 1, high, dictionaries,
                               target.ctypes.data, index, scratch.ctypes.data)
    assert used <= TILE_BYTES * tiles
    return int((target[TILE_BYTES * tiles:] != 0xCC).sum()), [int(entry) >> 15 & 1 for entry in index]

random = np.random.default_rng(0)
none = np.empty((0, 36), np.uint8)
foreign = np.tile(np.array([0, *range(100, 135)], np.uint8), (2, 1))  # no other byte near 0 has a code of its own
near = random.integers(-14, 14, (128, 512)).astype(np.int8)
long = random.integers(1, 14, (128, 512)).astype(np.int8)  # after 5/8 of the last tile, bypass is not quite due
long[:8, 256:288] = 0
noise = random.integers(-128, 128, (128, 512)).astype(np.int8)
late = noise.copy()  # the first tile fills the target; the last one's bypass, due to one engine, is decided late
late[:, 256:] = random.integers(-9, 9, (128, 256))
far = np.where(random.random((32, 160)) < 0.75, random.integers(14, 242, (32, 160)), 5)
late[np.arange(128) % 8 >= 6, 352:] = far.astype(np.uint8).view(np.int8)
print(json.dumps([run(near, 2, none), run(late, 2, none), run(noise, 2, none), run(long, 2, foreign)]
                 + [run(rows, 2, none, high=1) for rows in (near, late, noise, np.where(near < 12, 0, near))]))
"""


def test_nothing_outside_of_the_buffers_is_touched() -> None:
    """Source, target and scratch memory end where a page begins that may not be touched: a fault would end the process.

    A payload grows past the tile's end before bypass is decided, so TARGET_SLACK is needed; the fourth case, in which
    every byte takes 12 bits, needs the most.
    """
    result = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    (near, coded), (late, bypass), (_, raw), (most, foreign), *high = json.loads(result.stdout)
    assert (coded, bypass, raw, foreign) == ([1, 1], [0, 0], [0, 0], [0, 0])
    assert near == 0 and late > 0
    assert 0.75 * TARGET_SLACK < most <= TARGET_SLACK
    assert [tiles for _, tiles in high] == [[1, 1], [0, 0], [0, 0], [1, 1]]


# ---- processors with narrower vectors ----

OTHER_PROCESSOR = """
import json, re, time
import numpy as np
from tests.codec.plain_kernel import encode_plainly
from tests.codec.weights import sparse
from w8a8sc_tool.codec import encode
from w8a8sc_tool.codec.intrinsics import address_of
from w8a8sc_tool.codec.tiling import Tiling

def encode_fast(weight):
    tiling = Tiling(*weight.shape)
    target = np.empty(tiling.coded_bytes + encode.TARGET_SLACK, np.int8)
    index = np.zeros(tiling.tiles, np.uint64)
    scratch = np.empty(encode.SCRATCH_BYTES, np.uint8)
    used = encode.encode_tiles(address_of(weight), weight.strides[0], 0, *weight.shape, 0, tiling.n_tiles, 0,
                               np.empty((0, 36), np.uint8), address_of(target), index, address_of(scratch))
    return target[:used], index

def seconds(function, weight):
    started = time.thread_time()
    function(weight)
    return time.thread_time() - started

same = True
for weight in (
    sparse((300, 500), 0, 0.3, 3.0, 0.01),
    sparse((16, 32), 1, 0.5, 1.0, 0.0),
    sparse((128, 1000), 2, 0.9, 3.0, 0.02),
    sparse((256, 256), 3, 0.0, 60.0, 0.3),
):
    same &= all(np.array_equal(a, b) for a, b in zip(encode_fast(weight), encode_plainly(weight)))
weight = sparse((512, 1024), 9, 0.1, 3.0, 0.01)
best = {function: min(seconds(function, weight) for _ in range(9)) for function in (encode_plainly, encode_fast)}
code = encode.encode_tiles.compiled().inspect_asm(encode.encode_tiles.compiled().signatures[0])
print(json.dumps([same, best[encode_plainly] / best[encode_fast], sorted(set(re.findall("[xyz]mm", code)))]))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names x86-64 processors")
@pytest.mark.parametrize(
    ("name", "features", "registers"),
    [
        ("nehalem", "+sse4.2,+popcnt,+cx16,+sahf", ["xmm"]),
        ("haswell", "+sse4.2,+popcnt,+cx16,+sahf,+avx,+avx2,+bmi,+bmi2,+lzcnt,+movbe,+fma,+f16c", ["xmm", "ymm"]),
    ],
)
def test_processors_with_narrower_vectors(tmp_path: Path, name: str, features: str, registers: list[str]) -> None:
    """Code for SSE4.2 and for AVX2 alone: the same bytes, and no slower than the plain coder."""
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": name,
        "NUMBA_CPU_FEATURES": features,
        "W8A8SC_CACHE_DIR": str(tmp_path),
    }
    result = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESSOR], env=environment, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stderr
    same, ratio, used = json.loads(result.stdout)
    assert same
    assert used == registers
    assert ratio > 1
