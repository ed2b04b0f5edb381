"""Tiles encoded once serve every shard that is cut along the same lines, and only those."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from w8a8sc_tool.backends.tiles import Run, TileStore, rows_of_tile
from w8a8sc_tool.codec import MatrixEncoder, Tiling, encode_matrix
from w8a8sc_tool.layouts import Slice

from ..codec.weights import sparse


@settings(max_examples=60, deadline=None)
@given(
    k=st.integers(1, 1400),
    cuts=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from([0, 0, 32, 100])), min_size=1, max_size=4
    ),
)
def test_any_columns_out_of_a_store(k: int, cuts: list[tuple[int, int, int]]) -> None:
    """A shard assembled from what earlier shards left equals the shard encoded alone."""
    weight = sparse((128, k), 5, 0.4, 3.0, 0.02)
    store = TileStore()
    key = (("w", 0, 128),)
    for first, size, shift in [(0, 6, 0), *cuts]:
        left = min(first * 256 + shift, k - 1)
        right = min(left + 1 + size * 256, k)
        shard = np.ascontiguousarray(weight[:, left:right])
        encoder = MatrixEncoder(*shard.shape)
        for begin, end, tiles in list(store.find(key, left, right)):
            if tiles is None:
                columns = slice(begin * 256, min(end * 256, right - left))
                tiles = encoder.encode(shard[:, columns], 0, 1, begin, end)
                store.add(key, Run(left + columns.start, left + columns.stop, tiles))
            encoder.append(tiles)
        chunks, index, _ = encoder.finish()
        alone = encode_matrix(shard)
        assert np.concatenate(chunks).tobytes() == alone.weight.tobytes()
        assert index.tobytes() == alone.index.tobytes()


def test_what_is_stored_is_found() -> None:
    weight = sparse((128, 1024), 5, 0.4, 3.0, 0.02)
    store = TileStore()
    key = (("w", 0, 128),)
    store.add(key, Run(0, 1024, MatrixEncoder(128, 1024).encode(weight, 0, 1)))
    assert [(a, b, t is None) for a, b, t in store.find(key, 0, 1024)] == [(0, 4, False)]
    assert [(a, b, t is None) for a, b, t in store.find(key, 256, 768)] == [(0, 2, False)]
    assert [(a, b, t is None) for a, b, t in store.find(key, 512, 1000)] == [(0, 1, False), (1, 2, True)]
    assert [(a, b, t is None) for a, b, t in store.find(key, 128, 640)] == [(0, 2, True)]
    assert [(a, b, t is None) for a, b, t in store.find((("w", 128, 256),), 0, 256)] == [(0, 1, True)]


def test_rows_of_tiles() -> None:
    """A tile may join rows of two tensors; an overlapping last tile starts early."""
    slices = (Slice("q", 100, 300), Slice("k", 0, 120))
    tiling = Tiling(320, 256)
    assert rows_of_tile(slices, tiling, 0) == (("q", 100, 228),)
    assert rows_of_tile(slices, tiling, 1) == (("q", 228, 300), ("k", 0, 56))
    assert rows_of_tile(slices, tiling, 2) == (("q", 292, 300), ("k", 0, 120))
