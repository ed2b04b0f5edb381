"""The bytes that outputs are made of: source rows read in blocks, joined, cut and converted as the plan says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ..checkpoint import SourceTensor
from ..checkpoint.reader import SourceReader
from ..checkpoint.values import to_float16, to_float32, to_offset, to_scale_bits
from ..io.reading import PIECE_BYTES
from ..io.safetensors import DTYPES
from ..layouts import Output, Slice


def blocks(
    outputs: Sequence[Output], sources: Mapping[str, SourceTensor], reader: SourceReader, *, ahead: bool = False
) -> Iterator[tuple[int, int, int, npt.NDArray[Any]]]:
    """Pieces of one tensor, uncompressed: number of the output, rank, position in bytes, C-contiguous values.

    outputs: the same tensor at several tensor-parallel sizes. Every source byte is read once, however many ranks of
    however many outputs use it. The pieces of a rank come in order.

    ahead: of a large tensor, have threads read and hash the next pieces while the caller works on this one, which
    takes less time on cores that are free, and a little more of the processors'.
    """
    if outputs[0].conversion in ("ones", "zeros"):
        for number, output in enumerate(outputs):
            for rank in range(len(output.slices)):
                yield number, rank, 0, np.full(output.shape, output.conversion == "ones", DTYPES[output.dtype])
        return
    row_bytes = [output.columns * DTYPES[output.dtype].itemsize for output in outputs]
    for name, first, last, users in _shared_rows(outputs):
        source = sources[name]
        for begin, rows in _read(reader, source, first, last, ahead=ahead):
            for columns, takers in users.items():
                values = convert(rows[:, slice(*columns)] if columns[1] else rows, source, outputs[0])
                for number, rank, top in takers:
                    yield number, rank, (top + begin - first) * row_bytes[number], values
    for number, output in enumerate(outputs):
        for rank, pieces in enumerate(output.slices):
            for position, zeros in _padding(output, sum(piece.rows for piece in pieces)):
                yield number, rank, position, zeros


def unchanged_source(output: Output, rank: int, sources: Mapping[str, SourceTensor]) -> SourceTensor | None:
    """The source tensor whose bytes are exactly those of an output on a rank, if there is one."""
    if len(output.slices[rank]) != 1:
        return None
    piece = output.slices[rank][0]
    source = sources[piece.source]
    if not source.in_file:
        return None
    rows = source.shape[0] if source.shape else 1
    whole = (piece.first_row, piece.last_row) == (0, rows) and piece.last_column - piece.first_column in (
        0,
        int(np.prod(source.shape[1:], dtype=np.int64)),
    )
    same_size = source.nbytes == int(np.prod(output.shape, dtype=np.int64)) * DTYPES[output.dtype].itemsize
    return source if whole and same_size and source.dtype == output.dtype else None


def convert(rows: npt.NDArray[Any], source: SourceTensor, output: Output) -> npt.NDArray[Any]:
    """Source rows as the output has them, C-contiguous."""
    rows = np.ascontiguousarray(rows)
    if output.conversion == "float16":
        return to_float16(rows, source.dtype, source)
    if output.conversion == "float32":
        return to_float32(rows, source.dtype)
    if output.conversion == "scale_bits":
        return to_scale_bits(rows, source.dtype)
    if output.conversion == "offset":
        return to_offset(rows, source.dtype, source)
    return rows


def joined_rows(
    output: Output,
    slices: Sequence[Slice],
    first: int,
    last: int,
    sources: Mapping[str, SourceTensor],
    reader: SourceReader,
) -> npt.NDArray[np.int8]:
    """Rows [first, last) of a weight's slices laid one below the other, in their sources' full width, as bytes."""
    columns = sources[slices[0].source].shape[1] * DTYPES[output.dtype].itemsize
    rows = np.empty((last - first, columns), np.int8)
    top = 0
    for piece in slices:
        begin, end = max(first, top), min(last, top + piece.rows)
        if begin < end:
            source, row, target = (
                sources[piece.source],
                piece.first_row + begin - top,
                rows[begin - first : end - first],
            )
            if output.conversion == "int8":
                source.read_into(reader, row, target)
            else:
                target[:] = convert(reader.read_rows(source, row, row + end - begin), source, output).view(np.int8)
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
    """The columns of its sources that a rank takes, in bytes."""
    piece, size = output.slices[rank][0], DTYPES[output.dtype].itemsize
    return slice(piece.first_column * size, piece.last_column * size) if piece.last_column else slice(None)


def _read(
    reader: SourceReader, source: SourceTensor, first: int, last: int, *, ahead: bool
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Rows [first, last) in pieces, with the row that each begins with; ahead: as of `blocks`."""
    step = max(1, PIECE_BYTES * source.shape[0] // source.nbytes) if source.shape and source.nbytes else 1
    pieces = [(begin, min(begin + step, last)) for begin in range(first, last, step)]
    if not ahead or len(pieces) < 2:
        for begin, end in pieces:
            yield begin, reader.read_rows(source, begin, end)
        return
    yield from reader.read_ahead(source, pieces)


def _shared_rows(
    outputs: Sequence[Output],
) -> Iterator[tuple[str, int, int, dict[tuple[int, int], list[tuple[int, int, int]]]]]:
    """Every range of source rows that is used as a whole, once: source, first and last row, and by the columns that are
    taken of it the (output, rank, first output row) that take them.

    Ordered by position within the ranks' tensors, so that each rank's pieces come in order.
    """
    used: dict[tuple[int, str], list[tuple[Slice, int, int, int]]] = {}
    for number, output in enumerate(outputs):
        for rank, pieces in enumerate(output.slices):
            top = 0
            for position, piece in enumerate(pieces):
                used.setdefault((position, piece.source), []).append((piece, number, rank, top))
                top += piece.rows
    for (_, source), pieces_used in sorted(used.items(), key=lambda item: item[0][0]):
        edges = sorted({edge for piece, *_ in pieces_used for edge in (piece.first_row, piece.last_row)})
        for first, last in pairwise(edges):
            users: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
            for piece, number, rank, top in pieces_used:
                if piece.first_row <= first and last <= piece.last_row:
                    columns = (piece.first_column, piece.last_column)
                    users.setdefault(columns, []).append((number, rank, top + first - piece.first_row))
            if users:
                yield source, first, last, users


def _padding(output: Output, rows: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Zeros from row `rows` to the end of the shape."""
    row_bytes = output.columns * DTYPES[output.dtype].itemsize
    begin, end = rows * row_bytes, output.rows * row_bytes
    for position in range(begin, end, PIECE_BYTES):
        yield position, np.zeros(min(PIECE_BYTES, end - position), np.uint8)
