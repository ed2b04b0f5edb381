"""The bytes that outputs are made of: source rows read in blocks, joined, cut and converted as the plan says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..checkpoint import SourceTensor
from ..checkpoint.convert import to_float16, to_offset, to_scale_bits
from ..checkpoint.reader import SourceReader
from ..layouts import Output, Slice
from ..safetensors_file import DTYPES

BLOCK_BYTES: Final = 8 << 20


def blocks(
    output: Output, sources: Mapping[str, SourceTensor], reader: SourceReader
) -> Iterator[tuple[int, int, npt.NDArray[Any]]]:
    """Pieces of an uncompressed output on all ranks: rank, position in bytes, C-contiguous values.

    Every source byte is read once, however many ranks use it. The pieces of a rank come in order.
    """
    if output.conversion == "ones":
        for rank in range(len(output.slices)):
            yield rank, 0, np.ones((), np.float32)
        return
    row_bytes = _row_bytes(output)
    for shared, users in _shared_slices(output):
        source = sources[shared.source]
        step = max(1, BLOCK_BYTES * shared.rows // max(1, source.nbytes))
        for first in range(shared.first_row, shared.last_row, step):
            last = min(first + step, shared.last_row)
            rows = reader.read_rows(source, first, last)
            for columns, ranks in users.items():
                values = convert(rows[:, slice(*columns)] if columns[1] else rows, source, output)
                for rank, start in ranks:
                    yield rank, (start + first - shared.first_row) * row_bytes, values
    for rank, pieces in enumerate(output.slices):
        yield from _padding(rank, output, sum(piece.rows for piece in pieces))


def convert(rows: npt.NDArray[Any], source: SourceTensor, output: Output) -> npt.NDArray[Any]:
    """Source rows as the output has them, C-contiguous."""
    rows = np.ascontiguousarray(rows)
    if output.conversion == "float16":
        return to_float16(rows, source.dtype, source)
    if output.conversion == "scale_bits":
        return to_scale_bits(rows, source.dtype)
    if output.conversion == "offset":
        return to_offset(rows, source.dtype, source)
    return rows


def joined_rows(
    slices: Sequence[Slice], first: int, last: int, sources: Mapping[str, SourceTensor], reader: SourceReader
) -> npt.NDArray[np.int8]:
    """Rows [first, last) of int8 slices laid one below the other, in their sources' full width."""
    columns = sources[slices[0].source].shape[1]
    rows = np.empty((last - first, columns), np.int8)
    top = 0
    for piece in slices:
        begin, end = max(first, top), min(last, top + piece.rows)
        if begin < end:
            reader.read_into(sources[piece.source], piece.first_row + begin - top, rows[begin - first : end - first])
        top += piece.rows
    return rows


def rank_groups(output: Output) -> Iterator[tuple[list[int], Sequence[Slice]]]:
    """Ranks that are made of the same source rows, so that these are read once: all of them for a cut along k."""
    groups: dict[tuple[tuple[str, int, int], ...], list[int]] = {}
    for rank, slices in enumerate(output.slices):
        groups.setdefault(tuple((s.source, s.first_row, s.last_row) for s in slices), []).append(rank)
    for ranks in groups.values():
        yield ranks, output.slices[ranks[0]]


def columns_of(output: Output, rank: int) -> slice:
    """The columns of its sources that a rank takes."""
    piece = output.slices[rank][0]
    return slice(piece.first_column, piece.last_column) if piece.last_column else slice(None)


def _row_bytes(output: Output) -> int:
    return int(np.prod(output.shape[1:], dtype=np.int64)) * DTYPES[output.dtype].itemsize


def _shared_slices(
    output: Output,
) -> Iterator[tuple[Slice, dict[tuple[int, int], list[tuple[int, int]]]]]:
    """Each range of source rows once, with the columns it is cut into and the (rank, first output row) that take them.

    Ordered by position within the ranks' tensors, so that each rank's pieces come in order.
    """
    shared: dict[tuple[int, str, int, int], dict[tuple[int, int], list[tuple[int, int]]]] = {}
    for rank, pieces in enumerate(output.slices):
        top = 0
        for number, piece in enumerate(pieces):
            key = (number, piece.source, piece.first_row, piece.last_row)
            columns = (piece.first_column, piece.last_column)
            shared.setdefault(key, {}).setdefault(columns, []).append((rank, top))
            top += piece.rows
    for number, source, first, last in sorted(shared, key=lambda key: (key[0], key[2])):
        yield Slice(source, first, last), shared[number, source, first, last]


def _padding(rank: int, output: Output, rows: int) -> Iterator[tuple[int, int, npt.NDArray[Any]]]:
    """Zeros from row `rows` to the end of the shape."""
    row_bytes = _row_bytes(output)
    begin, end = rows * row_bytes, (output.shape[0] if output.shape else 1) * row_bytes
    for position in range(begin, end, BLOCK_BYTES):
        yield rank, position, np.zeros(min(BLOCK_BYTES, end - position), np.uint8)
