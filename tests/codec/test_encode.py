"""The encoder's kernel: whichever coder a tile takes, in its buffers alone, on any processor."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w8a8sc_tool.codec import encode_matrix
from w8a8sc_tool.codec.encode import TARGET_SLACK

from .plain_kernel import encode_plainly
from .weights import matrices, runs, sparse

# ---- whole matrices ----


def check(weight: np.ndarray) -> np.ndarray:
    """Encode with both encoders; returns the index entries without offsets."""
    payload, entries = encode_plainly(weight)
    encoded = encode_matrix(weight)
    index = encoded.index.view(np.uint64) & np.uint64(0xFFFFFFFF)
    assert index.tolist() == entries.tolist()
    assert encoded.weight.tobytes() == payload.tobytes()
    return entries


@settings(max_examples=60, deadline=None)
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
    weights: dict[str, Callable[[], np.ndarray]] = {
        "low": lambda: sparse(shape, 1, 0.3, 3.0, 0.02),
        "runs": lambda: runs(shape, 2, 20),
        "constant": lambda: np.full(shape, -77, np.int8),
        "noise": lambda: sparse(shape, 3, 0.0, 60.0, 0.3)[:384],
    }
    check(np.ascontiguousarray(weights[kind]()))


# ---- what it may touch ----

GUARDED = """
import ctypes, json, mmap, sys
import numpy as np
from w8a8sc_tool.codec.format import TILE_BYTES
from w8a8sc_tool.codec.kernels import address_of, load

libc = ctypes.CDLL(None, use_errno=True)
encode_tiles = load().encode_tiles
kept = []

def before_a_guard(size):
    "uint8 [size] that ends where a page begins that must not be touched."
    page = mmap.PAGESIZE
    whole = -(-size // page) * page
    memory = mmap.mmap(-1, whole + page)
    kept.append(memory)
    array = np.frombuffer(memory, np.uint8)
    address = ctypes.c_void_p(address_of(array) + whole)
    assert libc.mprotect(address, ctypes.c_size_t(page), 0) == 0  # PROT_NONE
    return array[whole - size : whole]

def run(rows, tiles, dictionaries, high=0):
    source = before_a_guard(128 * 256 * tiles).reshape(128, -1)
    source[:] = rows.view(np.uint8)
    target = before_a_guard(TILE_BYTES * tiles + encode_tiles.sizes["target_slack"])
    target[:] = 0xCC
    scratch = before_a_guard(encode_tiles.sizes["scratch_bytes"])
    index = np.zeros(tiles, np.uint64)
    used = encode_tiles(address_of(source), 256 * tiles, 0, 128, 256 * tiles, 0, 1, high,
                        0 if dictionaries is None else address_of(dictionaries),
                        address_of(target), address_of(index), address_of(scratch))
    assert used <= TILE_BYTES * tiles
    return int((target[TILE_BYTES * tiles:] != 0xCC).sum()), [int(entry) >> 15 & 1 for entry in index]

random = np.random.default_rng(0)
none = None
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
import json, re
import numpy as np
from tests.codec.plain_kernel import encode_plainly
from tests.codec.weights import sparse
from w8a8sc_tool.codec import encode, jit
from w8a8sc_tool.codec.kernels import address_of, load
from w8a8sc_tool.codec.tiling import Tiling

def encode_fast(weight):
    tiling = Tiling(*weight.shape)
    encode_tiles = load().encode_tiles
    target = np.empty(tiling.coded_bytes + encode_tiles.sizes["target_slack"], np.int8)
    index = np.zeros(tiling.tiles, np.uint64)
    scratch = np.empty(encode_tiles.sizes["scratch_bytes"], np.uint8)
    used = encode_tiles(address_of(weight), weight.strides[0], 0, *weight.shape, 0, tiling.n_tiles, 0, 0,
                        address_of(target), address_of(index), address_of(scratch))
    return target[:used], index

same = True
for weight in (
    sparse((300, 500), 0, 0.3, 3.0, 0.01),
    sparse((16, 32), 1, 0.5, 1.0, 0.0),
    sparse((128, 1000), 2, 0.9, 3.0, 0.02),
    sparse((256, 256), 3, 0.0, 60.0, 0.3),
):
    same &= all(np.array_equal(a, b) for a, b in zip(encode_fast(weight), encode_plainly(weight)))
(code,) = jit.compiled(encode.encode_tiles).inspect_asm().values()
print(json.dumps([same, sorted(set(re.findall("[xyz]mm", code))), code.count("pinsrb")]))
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
    """Code for SSE4.2 and for AVX2 alone: the same bytes, and bitmaps do not become vectors byte by byte.

    That is hundreds of instructions, which once made the fast coder as slow as the plain one.
    """
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
    same, used, insertions = json.loads(result.stdout)
    assert same
    assert used == registers
    assert insertions < 64
