"""The fast decoder: what it decodes is what decoding one code at a time gives, damage included."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w8a8sc_tool.codec import MatrixDecoder, TileError, encode_matrix
from w8a8sc_tool.codec import decode as decoder
from w8a8sc_tool.codec import decode_groups as groups
from w8a8sc_tool.codec.format import HIGH, LOW, MODES, Mode, Sparsity
from w8a8sc_tool.codec.kernels import address_of
from w8a8sc_tool.codec.tables import GROUP_UNITS, escape_codes, group_sizes

from . import reference
from .damage import coded_tiles, damaged, decoded, repair_checksums
from .test_rejections import Tile
from .test_tables import codes_at_the_start
from .weights import matrices, sparse

# ------------------------------------------------------------------------------------------------------- equal results


@settings(max_examples=100, deadline=None)
@given(matrices(), st.sampled_from(["low", "high"]))
def test_nothing_that_the_encoder_writes_is_decoded_slowly(weight: np.ndarray, sparsity: Sparsity) -> None:
    """Else the results would be right, and late."""
    weight = weight[:128]
    tile = encode_matrix(weight, sparsity=sparsity)
    work = MatrixDecoder(tile.index, tile.info, weight_bytes=tile.weight.nbytes)
    out = np.empty_like(weight)
    for block in work.blocks():
        work.decode(block, tile.weight, out)
    assert work.plain_tiles == 0
    np.testing.assert_array_equal(out, weight)


def test_damage_is_judged_as_one_code_at_a_time_is() -> None:
    """With checksums made right, so that the other rules have to decide; some of it is no error then."""
    chance = np.random.default_rng(0)
    tiles = coded_tiles(0)
    accepted = 0
    for number in range(3000):
        tile = tiles[number % len(tiles)]
        payload = damaged(tile.weight, chance)
        if number % 3:
            repair_checksums(tile, payload)
        (error, out), (plain_error, plain_out) = (decoded(tile, payload, plain=plain) for plain in (False, True))
        assert error == plain_error
        if not error:
            accepted += 1
            np.testing.assert_array_equal(out, plain_out)
    assert 100 < accepted < 2000


def test_a_packet_of_64_bytes_does_not_end_with_ones() -> None:
    """Ones are for a next code that did not fit; wherever in the stream the packet is, and with few of them, too."""
    counts = [1, 1, 1, 3, 1, 4, 4, 4, 9, 9, 9, 9, 9]
    packet = "".join(reference.bits(*HIGH.runs[count]) for count in counts)
    assert sum(counts) == 64 and len(packet) == 54
    weight = np.zeros((128, 256), np.int8)
    for begin in (40, 48, 40 + 8 * 127):
        for filler in "01":
            tile = Tile(high=True, weight=weight)
            tile.streams[2][begin : begin + 8] = int(packet.ljust(64, filler)[::-1], 2).to_bytes(8, "little")
            if filler == "0" and begin < 1000:
                np.testing.assert_array_equal(tile.decode(), weight)
            else:
                tile.rejects("unused end of a packet" if begin < 1000 else "end mark is missing")


def test_no_packet_ends_a_stream_with_more_than_64_bytes() -> None:
    """Eight runs of 9 and the end mark fit into a packet; where 72 bytes are left, they still are more than 64."""
    counts = [9, 9, 9, 9, 1, 4, 1, 4, 1, 3, 1, 3, 1, 1]  # a packet filled with 56 bytes
    full, filled, last = ("".join(reference.bits(*HIGH.runs[n]) for n in c) for c in ([9] * 7 + [1], counts, [9] * 8))
    assert 126 * 64 + sum(counts) + 72 == 128 * 64 and len(filled) == 54
    tile = Tile(high=True, weight=np.zeros((128, 256), np.int8))
    packets = [full.ljust(64, "0")] * 126 + [filled.ljust(64, "1"), last + reference.END_MARK]
    tile.replace_stream(2, packets)
    tile.rejects("a run goes beyond")


# ------------------------------------------------------------------------------------------------ the table of groups


@numba.njit
def fill(high, dictionary, table):  # type: ignore[no-untyped-def]
    groups.fill_symbols(high, dictionary, table)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_every_group_stands_for_its_codes(mode: Mode) -> None:
    dictionary = np.random.default_rng(1).permutation(256).astype(np.uint8)[:36]
    whole = np.full(groups.TABLE_BYTES, 0xEE, np.uint8)
    fill(mode is HIGH, dictionary, address_of(whole))
    table = whole[groups._GROUPS_AT :]
    words: dict[str, list[int]] = {reference.bits(*code): [int(dictionary[0])] * n for n, code in mode.runs.items()}
    words |= {reference.bits(*code): [int(dictionary[rank])] for rank, code in enumerate(mode.codes, 1)}
    words |= {reference.bits(int(code), 12): [byte] for byte, code in enumerate(escape_codes())}
    sizes = group_sizes(mode)
    for group in np.flatnonzero(sizes).tolist():
        text, expected = reference.bits(group, 3 * GROUP_UNITS), []
        for bits, _, _ in codes_at_the_start(mode, group):
            expected += words[text[:bits]]
            text = text[bits:]
        count = min(8, int(sizes[group]) >> 8)
        assert table[8 * group : 8 * group + count].tolist() == expected[:count]
        # What is behind them is already common: of a run of 9, more than 8 bytes.
        assert all(byte == dictionary[0] for byte in expected[8 : int(sizes[group]) >> 8])
    assert table[:8].tolist() == [dictionary[0]] * 8


# --------------------------------------------------------------------------------------- nothing beyond what was given


class Fenced:
    """Memory between two pages that nobody may touch."""

    def __init__(self, size: int) -> None:
        page = mmap.PAGESIZE
        room = -(-size // page) * page
        self._map = mmap.mmap(-1, room + 2 * page)
        self._all = np.frombuffer(self._map, np.int8)
        self._room = self._all[page : page + room]
        for fence in (self._all[:page], self._all[page + room :]):
            if ctypes.CDLL(None).mprotect(ctypes.c_void_p(fence.ctypes.data), ctypes.c_size_t(page), 0) != 0:
                raise OSError("mprotect")

    def before_fence(self, size: int) -> np.ndarray:
        return self._room[self._room.size - size :]

    def behind_fence(self, size: int) -> np.ndarray:
        return self._room[:size]


def test_memory_that_is_not_the_decoders_is_not_touched() -> None:
    """Payload, matrix and scratch memory in turn lie right before and right behind a forbidden page."""
    chance = np.random.default_rng(2)
    payloads, targets, scratch = Fenced(1 << 16), Fenced(1 << 15), Fenced(decoder.SCRATCH_BYTES)
    for number, tile in enumerate(coded_tiles(1) * 40):
        size, shape = tile.weight.nbytes, (int(tile.info[3]), int(tile.info[2]))
        at = ("before_fence", "behind_fence")[number % 2]
        payload, out = getattr(payloads, at)(size), getattr(targets, at)(shape[0] * shape[1]).reshape(shape)
        payload[:] = tile.weight if number < 100 else damaged(tile.weight, chance)
        work = MatrixDecoder(tile.index, tile.info, weight_bytes=size, plain=number % 7 == 0)
        work._scratch = getattr(scratch, at)(decoder.SCRATCH_BYTES).view(np.uint8)
        work._scratch[:] = 0xEE
        try:
            work.decode(work.block(0, 1), payload, out)
        except TileError:
            assert number >= 100


def test_a_damaged_stream_does_not_reach_the_next_share() -> None:
    """Most bytes for a packet's bits: runs of 9, and pairs; at the end of the first engine's share."""
    for mode, code in ((HIGH, reference.bits(5, 6)), (LOW, reference.bits(4, 3))):
        tile = Tile(high=mode is HIGH, weight=sparse((128, 256), 3, 0.4, 3.0, 0.01))
        stream = tile.streams[0]
        packet = int((code * 22)[:64][::-1], 2).to_bytes(8, "little")
        for begin in range(40, len(stream) - 8, 8):
            harmed = Tile(high=mode is HIGH, weight=tile.weight)
            harmed.streams[0][begin : begin + 8] = packet
            with pytest.raises(TileError) as error:
                harmed.decode()
            assert error.value.engine == 0


# ------------------------------------------------------------------------------------------------- other processors

RESULTS = """
import hashlib
import numpy as np
from tests.codec.test_decode_groups import results
print(results())
"""
_HASWELL = "+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+bmi,+bmi2,+lzcnt,+movbe,+fma,+f16c"


def results() -> str:
    """A digest of what many tiles, sound and damaged, decode to, and of the errors."""
    digest = hashlib.sha256()
    chance = np.random.default_rng(3)
    for tile in coded_tiles(2) * 8:
        for payload in (tile.weight, damaged(tile.weight, chance)):
            error, out = decoded(tile, payload, plain=False)
            digest.update(error.encode() + (b"" if error else out.tobytes()))
    return digest.hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "features"), [("x86-64", ""), ("haswell", _HASWELL)], ids=["SSE2", "AVX2"])
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="forces code for x86 processors")
def test_code_for_older_processors_gives_the_same(name: str, features: str, tmp_path: Path) -> None:
    forced = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features, "W8A8SC_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", RESULTS],
        env={**os.environ, **forced},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == results()
