"""The native backend: weights compressed by the project's own codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ..checkpoint import SourceTensor
from ..checkpoint.reader import SourceReader
from ..codec import EncodedTiles, MatrixEncoder, TooLargeError
from ..codec.format import TILE_COLUMNS
from ..codec.matrix import BLOCK_BYTES
from ..layouts import Module, Output, Slice
from .produce import columns_of, joined_rows, rank_groups
from .shards import CompressedShard
from .tiles import Run, TileStore, rows_of_tile

Shards = list[CompressedShard] | None
"""A module's shards by rank; None: one would be larger than the original, so the layer cannot be compressed."""


def compress_shards(
    modules: Sequence[Module],
    sources: Mapping[str, SourceTensor],
    reader: SourceReader,
    store: TileStore | None = None,
) -> list[Shards]:
    """Compress one linear layer's weight for every rank, at one or several tensor-parallel sizes.

    modules: the layer at each size. Source rows are read once where ranks share them, and every tile is encoded once:
    sizes whose cuts lie between tiles are made of the same tiles. store: tiles that are there already.
    """
    if store is None and len(modules) == 1:
        return [_one_size(modules[0], sources, reader)]
    store = store or TileStore()
    # The larger the shards, the fewer cuts: what the smallest size encodes serves the others.
    order = sorted(range(len(modules)), key=lambda number: len(modules[number].weight.slices))
    made = {number: _from_store(modules[number], sources, reader, store) for number in order}
    return [made[number] for number in range(len(modules))]


def _one_size(module: Module, sources: Mapping[str, SourceTensor], reader: SourceReader) -> Shards:
    encoders: dict[int, MatrixEncoder] = {}
    for ranks, slices in rank_groups(module.weight):
        group = [MatrixEncoder(module.n, module.row_bytes, sparsity=module.sparsity) for _ in ranks]
        for first, last in group[0].blocks():
            rows = joined_rows(module.weight, slices, first, last, sources, reader)
            for rank, encoder in zip(ranks, group):
                encoder.feed(rows[:, columns_of(module.weight, rank)])
        encoders |= zip(ranks, group)
    return _finished(encoders)


def _from_store(module: Module, sources: Mapping[str, SourceTensor], reader: SourceReader, store: TileStore) -> Shards:
    """A module's shards out of stored tiles; those that are missing are encoded and stored."""
    encoders: dict[int, MatrixEncoder] = {}
    for ranks, slices in rank_groups(module.weight):
        group = {rank: MatrixEncoder(module.n, module.row_bytes, sparsity=module.sparsity) for rank in ranks}
        tiling = group[ranks[0]].tiling
        for first, last in tiling.n_tile_ranges(BLOCK_BYTES):
            block = _Block(module.weight, slices, tiling.row_range(first, last), sources, reader)
            for n_tile in range(first, last):
                for rank, encoder in group.items():
                    _append_row(encoder, n_tile, slices, columns_of(module.weight, rank), block, store)
        encoders |= group
    return _finished(encoders)


class _Block:
    """A block of joined source rows that is read when, and if, it is needed."""

    def __init__(
        self,
        output: Output,
        slices: Sequence[Slice],
        rows: tuple[int, int],
        sources: Mapping[str, SourceTensor],
        reader: SourceReader,
    ) -> None:
        self._arguments = (output, slices, *rows, sources, reader)
        self._first = rows[0]
        self._rows: npt.NDArray[np.int8] | None = None

    def rows(self, first: int, last: int) -> npt.NDArray[np.int8]:
        if self._rows is None:
            self._rows = joined_rows(*self._arguments)
        return self._rows[first - self._first : last - self._first]


def _append_row(
    encoder: MatrixEncoder, n_tile: int, slices: Sequence[Slice], columns: slice, block: _Block, store: TileStore
) -> None:
    """Append one row of tiles, from the store as far as it has them."""
    tiling = encoder.tiling
    key = rows_of_tile(slices, tiling, n_tile)
    left = columns.start or 0
    for first, last, known in list(store.find(key, left, left + tiling.k)):
        tiles: EncodedTiles | None = known
        if tiles is None:
            begin, end = left + first * TILE_COLUMNS, min(left + last * TILE_COLUMNS, left + tiling.k)
            rows = block.rows(*tiling.row_range(n_tile, n_tile + 1))[:, begin:end]
            tiles = encoder.encode(rows, n_tile, n_tile + 1, first, last)
            store.add(key, Run(begin, end, tiles))
        encoder.append(tiles)


def _finished(encoders: Mapping[int, MatrixEncoder]) -> Shards:
    try:
        return [CompressedShard(*encoders[rank].finish()) for rank in sorted(encoders)]
    except TooLargeError:
        return None
