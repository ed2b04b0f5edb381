"""Tiles that are encoded already, by what they are made of, so that no tile has to be encoded twice."""

# A tile's bytes depend on nothing but that tile: on the source rows it joins and on the columns it takes of them. A row
# of tiles is therefore known by its source rows, and serves every shard, at any tensor-parallel size, whose tiles are
# cut along the same columns.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..codec import EncodedTiles, Tiling
from ..codec.format import TILE_COLUMNS
from ..layouts import Slice

Rows = tuple[tuple[str, int, int], ...]
"""Source rows joined one below the other: (tensor, first row, last row)."""


class Run(NamedTuple):
    """Neighbouring tiles of one n-tile, encoded: they take the columns [left, right) of their source."""

    left: int
    right: int
    tiles: EncodedTiles


class TileStore:
    """Rows of encoded tiles that shards share."""

    def __init__(self) -> None:
        self._runs: dict[Rows, list[Run]] = {}

    def add(self, rows: Rows, run: Run) -> None:
        self._runs.setdefault(rows, []).append(run)

    def find(self, rows: Rows, left: int, right: int) -> Iterator[tuple[int, int, EncodedTiles | None]]:
        """The k-tiles of the columns [left, right) in order: first, last, and the tiles, None where unknown."""
        known = sorted(
            (*part, number)
            for number, run in enumerate(self._runs.get(rows, ()))
            if (part := _usable(run, left, right)) is not None
        )
        tile, end = 0, -(-(right - left) // TILE_COLUMNS)
        for first, last, number in known:
            if last <= tile:
                continue
            if first > tile:
                yield tile, first, None
                tile = first
            run = self._runs[rows][number]
            skipped = (left + tile * TILE_COLUMNS - run.left) // TILE_COLUMNS
            yield tile, last, run.tiles.part(skipped, skipped + last - tile)
            tile = last
        if tile < end:
            yield tile, end, None


def _usable(run: Run, left: int, right: int) -> tuple[int, int] | None:
    """The k-tiles of [left, right) that are tiles of the run too: on the same grid, and cut short by neither."""
    first, last = max(left, run.left), min(right, run.right)
    if (run.left - left) % TILE_COLUMNS or first >= last:
        return None
    whole = -(-(last - left) // TILE_COLUMNS) if right == run.right else (last - left) // TILE_COLUMNS
    begin = (first - left) // TILE_COLUMNS
    return (begin, whole) if begin < whole else None


def rows_of_tile(slices: Sequence[Slice], tiling: Tiling, n_tile: int) -> Rows:
    """The source rows that an n-tile of a shard is made of, the repeated ones of an overlapping last tile included."""
    first, last = tiling.row_range(n_tile, n_tile + 1)
    rows = []
    top = 0
    for piece in slices:
        begin, end = max(first, top), min(last, top + piece.rows)
        if begin < end:
            rows.append((piece.source, piece.first_row + begin - top, piece.first_row + end - top))
        top += piece.rows
    return tuple(rows)
