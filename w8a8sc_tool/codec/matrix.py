"""Whole matrices: an int8 weight to its three tensors and back, at once or in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from .causes import SENTENCES
from .errors import IndexEntryError, MatrixError, TileError, TooLargeError
from .format import (
    COMPRESSED,
    FRACTAL_BYTES,
    FRACTAL_COLUMNS,
    INDEX_ENTRY_BYTES,
    LENGTH_BITS,
    MODES,
    OFFSET_SHIFT,
    PAYLOAD_UNIT,
    RESERVED_BITS,
    TILE_COLUMNS,
    TILE_FRACTALS,
    TILE_ROWS,
    Sparsity,
)
from .kernels import address_of, load
from .tiling import Tiling

Dictionary = Literal["tile", "matrix"]
Int8 = npt.NDArray[np.int8]

# Counts are kept in 32 bits, and a matrix this large has no consumer.
LARGEST_MATRIX: Final = 2**31 - 2**20

# Of matrix rows, the size in which matrices are worked on: rows stay in a core's second-level cache meanwhile.
BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class EncodedMatrix:
    """What replaces an int8 weight [n, k].

    weight: int8 [c], c a multiple of 128; index: int8 [8 * tiles]; info: int64 [5] = tileK, tileN, k, n, order.
    """

    weight: Int8
    index: Int8
    info: npt.NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """Bytes of all three tensors."""
        return self.weight.nbytes + self.index.nbytes + self.info.nbytes


@dataclass(frozen=True)
class EncodedTiles:
    """Tiles that are neighbours in index order: their payloads (int8) and index entries (uint64) without offsets."""

    payload: Int8
    entries: npt.NDArray[np.uint64]

    def part(self, first: int, last: int) -> EncodedTiles:
        """Tiles first to last - 1, as views."""
        ends = np.cumsum(self.entries[:last] & np.uint64(LENGTH_BITS)).astype(np.int64) * PAYLOAD_UNIT
        begin = int(ends[first - 1]) if first else 0
        return EncodedTiles(self.payload[begin : int(ends[-1])], self.entries[first:last])


class MatrixEncoder:
    """Encodes one matrix from blocks of its rows, so that it need not be in memory.

    Feed the rows that `blocks` names, in that order; then `finish`. A tile's bytes depend on nothing but that tile, so
    the result does not depend on how large the blocks are, and tiles that were encoded elsewhere can be appended.
    """

    def __init__(self, n: int, k: int, *, sparsity: Sparsity = "low") -> None:
        self.tiling = _tiling(n, k)
        self._high = int(sparsity == "high")
        self._dictionaries: npt.NDArray[np.uint8] | None = None
        self._parts: list[EncodedTiles] = []
        self._tiles = 0
        self.weight_bytes = 0

    def use_dictionaries(self, full: npt.NDArray[np.uint8], narrow: npt.NDArray[np.uint8]) -> None:
        """Code all tiles under these dictionaries (uint8 [36]): one for full k-tiles, one for a narrower last one."""
        if any(each.dtype != np.uint8 or each.shape != (36,) for each in (full, narrow)):
            raise ValueError("a dictionary is uint8 [36]")
        self._dictionaries = np.ascontiguousarray(np.stack([full, narrow]))

    @cached_property
    def _scratch(self) -> npt.NDArray[np.uint8]:
        return np.empty(load().encode_tiles.sizes["scratch_bytes"], np.uint8)

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, int]]:
        """The row ranges [a, b) to feed, one after the other; a range may repeat rows of the one before."""
        for first, last in self.tiling.n_tile_ranges(block_bytes):
            yield self.tiling.row_range(first, last)

    def feed(self, rows: Int8) -> None:
        """Encode the next block: int8 [b - a, k], columns contiguous; rows may lie apart (a cut along k)."""
        first = self._tiles // self.tiling.k_tiles
        start = self.tiling.row_range(first, first + 1)[0]
        last = self.tiling.n_tiles if start + len(rows) == self.tiling.n else first + len(rows) // TILE_ROWS
        self.append(self.encode(rows, first, last))

    def encode(
        self, rows: Int8, first: int, last: int, first_k_tile: int = 0, last_k_tile: int | None = None
    ) -> EncodedTiles:
        """Encode n-tiles first to last - 1, of these k-tiles first_k_tile to last_k_tile - 1 (all by default).

        rows: int8, the matrix rows of these n-tiles and the columns of these k-tiles. Nothing is appended.
        """
        tiling = self.tiling
        begin, end = tiling.row_range(first, last)
        last_k_tile = tiling.k_tiles if last_k_tile is None else last_k_tile
        columns = min(tiling.k, last_k_tile * TILE_COLUMNS) - first_k_tile * TILE_COLUMNS
        if rows.shape != (end - begin, columns) or rows.dtype != np.int8:
            raise ValueError(f"the block from row {begin} has shape {rows.shape}, dtype {rows.dtype}")
        if columns > 1 and rows.strides[1] != 1:
            raise ValueError("the columns of a block must be contiguous")
        width = -(-columns // FRACTAL_COLUMNS)
        encode_tiles = load().encode_tiles
        room = (last - first) * tiling.tile_n_fractals * width * FRACTAL_BYTES + encode_tiles.sizes["target_slack"]
        target = np.empty(room, np.int8)
        entries = np.zeros((last - first) * (last_k_tile - first_k_tile), np.uint64)
        used = encode_tiles(
            *(address_of(rows), rows.strides[0], begin, tiling.n, columns, first, last, self._high),
            *(0 if self._dictionaries is None else address_of(self._dictionaries), address_of(target)),
            *(address_of(entries), address_of(self._scratch)),
        )
        target.resize(used, refcheck=False)  # in place: only what was written has ever been touched
        return EncodedTiles(target, entries)

    def append(self, tiles: EncodedTiles) -> None:
        """Add tiles, which must be the next ones in index order, encoded here or elsewhere."""
        self._parts.append(tiles)
        self._tiles += len(tiles.entries)
        self.weight_bytes += tiles.payload.nbytes

    def finish(self) -> tuple[list[Int8], Int8, npt.NDArray[np.int64]]:
        """The weight in pieces, the index and the info tensor.

        Raises TooLargeError if consumers would not have room for the weight, which only incompressible matrices with
        an overlapping last tile can bring about.
        """
        if self._tiles != self.tiling.tiles:
            raise ValueError(f"{self._tiles} tiles were fed, {self.tiling.tiles} make the matrix")
        if self.weight_bytes > self.tiling.largest_weight:
            raise TooLargeError(
                f"{self.weight_bytes} compressed bytes are more than the {self.tiling.largest_weight} of the matrix"
            )
        entries = np.concatenate([part.entries for part in self._parts])
        lengths = entries & np.uint64(LENGTH_BITS)
        entries |= (np.cumsum(lengths, dtype=np.uint64) - lengths) << np.uint64(OFFSET_SHIFT)
        return [part.payload for part in self._parts], entries.view(np.int8), self.tiling.info()


def encode_matrix(weight: Int8, *, sparsity: Sparsity = "low", dictionary: Dictionary = "tile") -> EncodedMatrix:
    """Compress an int8 matrix [n, k] (n output features, k input features), C-contiguous.

    sparsity: "low" for W8A8SC; "high" for W16A16SC, where the matrix is the fp16 one viewed as bytes. dictionary:
    "tile" counts byte frequencies per tile; "matrix" over all tiles of equal width, as the vendor's tool can.
    Raises TypeError or ValueError for anything but such a matrix, TooLargeError if the result would outgrow it.
    """
    if not isinstance(weight, np.ndarray) or weight.dtype != np.int8 or weight.ndim != 2:
        raise TypeError("weight must be a two-dimensional numpy array of int8")
    if not weight.flags.c_contiguous:
        raise ValueError("weight must be C-contiguous")
    if sparsity not in MODES:
        raise ValueError(f"sparsity must be 'low' or 'high', not {sparsity!r}")
    if dictionary not in ("tile", "matrix"):
        raise ValueError(f"dictionary must be 'tile' or 'matrix', not {dictionary!r}")
    work = MatrixEncoder(*weight.shape, sparsity=sparsity)
    if dictionary == "matrix":
        work.use_dictionaries(*_matrix_dictionaries(weight, sparsity))
    work.feed(weight)  # at once: pieces would have to be joined
    (payloads,), index, info = work.finish()
    return EncodedMatrix(payloads, index, info)


def decode_matrix(
    weight: Int8,
    index: Int8,
    info: npt.NDArray[np.int64],
    *,
    out: Int8 | None = None,
    sparsity: Sparsity | None = None,
    strict: bool = True,
    canonical: bool = False,
) -> Int8:
    """The int8 matrix [n, k] that three compressed tensors stand for; written to `out` if given (C-contiguous).

    sparsity: reject tiles coded for another one; None accepts what the tiles say. strict: reject padding outside of the
    matrix that is not zero. canonical: also reject tiles that encoding again under their own dictionary would not
    reproduce, which finds more damage, and refuses encoders that make other choices.
    Raises a CodecError that names the tile and the cause; `out` is then partly written.
    """
    work = MatrixDecoder(index, info, weight_bytes=_checked_weight(weight), sparsity=sparsity)
    if out is None:
        out = np.empty((work.tiling.n, work.tiling.k), np.int8)
    elif out.shape != (work.tiling.n, work.tiling.k) or out.dtype != np.int8 or not out.flags.c_contiguous:
        raise ValueError(f"out must be a C-contiguous int8 array of shape {(work.tiling.n, work.tiling.k)}")
    elif not out.flags.writeable:
        raise ValueError("out is read-only")
    for block in work.blocks():
        payload = weight[block.first_byte : block.last_byte]
        work.decode(block, payload, out[block.first_row : block.last_row], strict=strict, canonical=canonical)
    return out


@dataclass(frozen=True)
class DecodedBlock:
    """Some n-tiles of a matrix: the payload bytes they lie in and the rows that are new in them."""

    first_tile: int
    last_tile: int
    first_byte: int
    last_byte: int
    first_row: int
    last_row: int


class MatrixDecoder:
    """Decodes one matrix in blocks of rows from the parts of the weight tensor that hold them.

    index and info are checked whole at construction, against `weight_bytes`, the length of the weight tensor; nothing
    is read or allocated on the word of an unchecked number. `plain` decodes one code at a time, slowly: to prove that
    the fast way makes no difference.
    """

    def __init__(
        self,
        index: Int8,
        info: npt.NDArray[np.int64],
        *,
        weight_bytes: int,
        sparsity: Sparsity | None = None,
        plain: bool = False,
    ) -> None:
        if sparsity is not None and sparsity not in MODES:
            raise ValueError(f"sparsity must be 'low', 'high' or None, not {sparsity!r}")
        self.tiling = _checked_info(info)
        self._index, self._ends = _checked_index(index, self.tiling, weight_bytes)
        self._sparsity = -1 if sparsity is None else int(sparsity == "high")
        self._plain = plain
        self.plain_tiles = 0  # how many were decoded one code at a time: coded as no known encoder does, or damaged

    @cached_property
    def _scratch(self) -> npt.NDArray[np.uint8]:
        return np.empty(load().decode_tiles.sizes["scratch_bytes"], np.uint8)

    @property
    def bypass_tiles(self) -> int:
        """How many tiles are stored raw."""
        return int((self._index & np.uint64(COMPRESSED) == 0).sum())

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[DecodedBlock]:
        """All n-tiles in order, in blocks of about `block_bytes` of decoded rows."""
        for first, last in self.tiling.n_tile_ranges(block_bytes):
            yield self.block(first, last)

    def block(self, first: int, last: int) -> DecodedBlock:
        """The block of n-tiles first to last - 1."""
        tiling = self.tiling
        begin = int(self._ends[first * tiling.k_tiles - 1]) if first else 0
        end = int(self._ends[last * tiling.k_tiles - 1])
        return DecodedBlock(first, last, begin, end, first * TILE_ROWS, min(last * TILE_ROWS, tiling.n))

    def tiles(self, block: DecodedBlock, payload: Int8) -> EncodedTiles:
        """The tiles of one block as they are, to append to another matrix; payload as in `decode`."""
        k_tiles = self.tiling.k_tiles
        entries = self._index[block.first_tile * k_tiles : block.last_tile * k_tiles]
        return EncodedTiles(payload, entries & np.uint64(0xFFFFFFFF))

    def decode(
        self, block: DecodedBlock, payload: Int8, out: Int8, *, strict: bool = True, canonical: bool = False
    ) -> None:
        """Decode one block: payload int8 [last_byte - first_byte] into out int8 [last_row - first_row, k].

        The columns of `out` must be contiguous. Raises TileError, and ValueError for arrays of another form.
        """
        tiling = self.tiling
        rows = block.last_row - block.first_row
        if payload.nbytes != block.last_byte - block.first_byte or out.shape != (rows, tiling.k):
            raise ValueError("payload or out does not have the block's size")
        if out.dtype != np.int8 or not out.flags.writeable or (tiling.k > 1 and out.strides[1] != 1):
            raise ValueError("out must be writable int8 with contiguous columns")
        payload = np.ascontiguousarray(payload)
        first = block.first_tile * tiling.k_tiles
        index = self._index[first : block.last_tile * tiling.k_tiles]
        outcome = np.zeros(3, np.int64)
        cause = load().decode_tiles(
            *(address_of(payload), address_of(index), tiling.n, tiling.k, block.first_tile, block.last_tile),
            *(address_of(out), out.strides[0], block.first_row),
            *(self._sparsity, int(strict), int(canonical), int(self._plain)),
            *(address_of(self._scratch), address_of(outcome)),
        )
        tile, engine, plain = (int(value) for value in outcome)
        self.plain_tiles += plain
        if cause:
            raise TileError(SENTENCES[cause], tile=first + tile, engine=engine)

    def check(self, block: DecodedBlock, payload: Int8, *, strict: bool = True, canonical: bool = False) -> None:
        """Decode one block for its errors alone, which are those of `decode`.

        Rows are written over each other, into memory that stays in a core's nearest cache.
        """
        shape = block.last_row - block.first_row, self.tiling.k
        one_row = np.lib.stride_tricks.as_strided(np.empty(self.tiling.k, np.int8), shape, (0, 1))
        self.decode(block, payload, one_row, strict=strict, canonical=canonical)


def _tiling(n: int, k: int) -> Tiling:
    if n < 1 or k < 1:
        raise ValueError(f"a matrix [{n}, {k}] has no elements")
    tiling = Tiling(n, k)
    if tiling.coded_bytes > LARGEST_MATRIX:
        raise ValueError(f"a matrix [{n}, {k}] is larger than {LARGEST_MATRIX} bytes")
    return tiling


def _matrix_dictionaries(weight: Int8, sparsity: Sparsity) -> list[npt.NDArray[np.uint8]]:
    """Dictionaries of matrix scope: for the full k-tiles and for the narrower last one."""
    kernels = load()
    counts = np.zeros((2, 8, 256), np.int32)
    scratch = np.empty(kernels.count_tiles.sizes["scratch_bytes"], np.uint8)
    n, k = weight.shape
    kernels.count_tiles(address_of(weight), weight.strides[0], n, k, address_of(counts), address_of(scratch))
    dictionaries = []
    for part in counts:
        dictionary = np.zeros(36, np.uint8)
        kernels.rank_counts(address_of(part), MODES[sparsity].dictionary_size, address_of(dictionary))
        dictionaries.append(dictionary)
    return dictionaries


def _checked_weight(weight: Any) -> int:
    if not isinstance(weight, np.ndarray) or weight.dtype != np.int8 or weight.ndim != 1:
        raise MatrixError("the weight is not a one-dimensional int8 tensor")
    return weight.nbytes


def _checked_info(info: Any) -> Tiling:
    if not isinstance(info, np.ndarray) or info.dtype != np.int64 or info.shape != (5,):
        raise MatrixError("the info tensor is not int64 [5]")
    tile_k, tile_n, k, n, order = (int(value) for value in info)
    if (tile_k, tile_n, order) != (TILE_FRACTALS, TILE_FRACTALS, 1) or n < 1 or k < 1:
        raise MatrixError(f"the info tensor {info.tolist()} is not [8, 8, k, n, 1] with k and n above 0")
    try:
        return _tiling(n, k)
    except ValueError as error:
        raise MatrixError(f"the info tensor says that {error}") from None


def _checked_index(
    index: Any, tiling: Tiling, weight_bytes: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """The index entries and the byte in the weight tensor at which each payload ends."""
    if not isinstance(index, np.ndarray) or index.dtype != np.int8 or index.ndim != 1:
        raise MatrixError("the index is not a one-dimensional int8 tensor")
    if index.nbytes != tiling.index_bytes:
        raise MatrixError(
            f"the index has {index.nbytes} bytes; {tiling.tiles} tiles of {INDEX_ENTRY_BYTES} make a matrix "
            f"[{tiling.n}, {tiling.k}]"
        )
    entries = np.array(index, order="C").view(np.uint64)  # a copy: writable and aligned, as the kernels want it
    _check_entries(entries & np.uint64(RESERVED_BITS) != 0, "reserved bits are set in the index entry")
    lengths = (entries & np.uint64(LENGTH_BITS)).astype(np.int64)
    sizes = np.array([tiling.tile_k_fractals(k) for k in range(tiling.k_tiles)], np.int64)
    largest = np.tile(sizes * tiling.tile_n_fractals * (FRACTAL_BYTES // PAYLOAD_UNIT), tiling.n_tiles)
    _check_entries(lengths == 0, "the payload has length 0")
    _check_entries(lengths > largest, "the payload is longer than the tile")
    ends = np.cumsum(lengths)
    offsets = (entries >> np.uint64(OFFSET_SHIFT)).astype(np.int64)
    _check_entries(offsets != ends - lengths, "the payload does not begin where the one before ends")
    _check_entries(ends * PAYLOAD_UNIT > weight_bytes, "the payload ends beyond the weight")
    if int(ends[-1]) * PAYLOAD_UNIT != weight_bytes:
        raise MatrixError(f"the weight has {weight_bytes} bytes, its tiles {int(ends[-1]) * PAYLOAD_UNIT}")
    return entries, ends * PAYLOAD_UNIT


def _check_entries(wrong: npt.NDArray[np.bool_], cause: str) -> None:
    if wrong.any():
        raise IndexEntryError(cause, tile=int(wrong.argmax()))
