"""How a compressed weight was coded, where the format leaves a choice: found out by looking at its tiles.

The choices are those that docs/format.md, section 16, lists as not determined.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .format import (
    COMPRESSED,
    FRACTAL_COLUMNS,
    FRACTAL_ROWS,
    HEADER_BYTES,
    LENGTH_BITS,
    MODES,
    PAYLOAD_UNIT,
    STREAM_UNIT,
    TILE_COLUMNS,
    TILE_FRACTALS,
    TILE_ROWS,
    Sparsity,
)
from .matrix import EncodedMatrix, MatrixDecoder, decode_matrix, encode_matrix

Int8 = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Coding:
    """What the tiles of one weight show.

    scope: what dictionaries were counted over: tile, matrix or unknown. ties: whether equally frequent bytes stand in
    the order of the vendor's sort: vendor, other or unknown. filler: what repeated fractals of overlapping last tiles
    hold: copies, zeros, other or none (nothing overlaps). bypass: tiles stored raw.
    """

    scope: str
    ties: str
    filler: str
    tiles: int
    bypass: int


def coding_of(weight: Int8, index: Int8, info: npt.NDArray[np.int64], *, sparsity: Sparsity = "low") -> Coding:
    """Look at every tile of a compressed weight; raises a CodecError if it cannot be decoded."""
    matrix = decode_matrix(weight, index, info, sparsity=sparsity)
    decoder = MatrixDecoder(index, info, weight_bytes=weight.nbytes, sparsity=sparsity)
    tiling = decoder.tiling
    entries = np.array(index).view(np.uint64)
    whole = encode_matrix(matrix, sparsity=sparsity, dictionary="matrix")
    by_matrix = _dictionaries(whole, sparsity)
    rows = tiling.tile_n_fractals * FRACTAL_ROWS
    scopes: set[str] = set()
    ties: set[str] = set()
    fillers: set[str] = set()
    begin = 0
    for number, entry in enumerate(entries.tolist()):
        length = (entry & LENGTH_BITS) * PAYLOAD_UNIT
        payload = weight[begin : begin + length]
        begin += length
        n_tile, k_tile = divmod(number, tiling.k_tiles)
        tile = _tile(payload, entry, rows, tiling.tile_k_fractals(k_tile) * FRACTAL_COLUMNS)
        if entry & COMPRESSED:
            scope, tie = _dictionary_of(payload, tile, by_matrix[tile.shape[1]], sparsity)
            scopes.add(scope)
            ties.add(tie)
        repeated = tiling.repeated_n_fractals(n_tile) * FRACTAL_ROWS
        if repeated:
            fillers.add(_filler_of(tile[:repeated], matrix, n_tile * TILE_ROWS - repeated, k_tile * TILE_COLUMNS))
    return Coding(
        scope=_one(scopes - {"either"}, "either" if "either" in scopes else "unknown"),
        ties=_one(ties - {"none"}, "unknown"),
        filler=_one(fillers, "none"),
        tiles=len(entries),
        bypass=decoder.bypass_tiles,
    )


def _one(values: set[str], otherwise: str) -> str:
    return next(iter(values)) if len(values) == 1 else "mixed" if values else otherwise


def _tile(payload: Int8, entry: int, rows: int, columns: int) -> Int8:
    """A tile with all its fractals, those that repeat the neighbour included: a matrix of its own."""
    index = np.array([entry & 0xFFFFFFFF], np.uint64).view(np.int8)
    return decode_matrix(payload, index, np.array([8, 8, columns, rows, 1], np.int64), strict=False)


def _header_dictionary(payload: Int8, sparsity: Sparsity) -> bytes:
    """The dictionary in the first engine's header: bytes 2, 3, 6..39 of its stream (low-sparse) or 6..39."""
    header = np.concatenate(
        [payload[:STREAM_UNIT], payload[PAYLOAD_UNIT : PAYLOAD_UNIT + HEADER_BYTES - STREAM_UNIT]]
    ).tobytes()
    return header[2:4] + header[6:] if sparsity == "low" else header[6:]


def _dictionaries(whole: EncodedMatrix, sparsity: Sparsity) -> dict[int, bytes | None]:
    """The dictionaries of matrix scope by the columns of a tile, from the first coded tile of each width."""
    k_tiles = -(-int(whole.info[2]) // TILE_COLUMNS)
    last = (-(-int(whole.info[2]) // FRACTAL_COLUMNS) - TILE_FRACTALS * (k_tiles - 1)) * FRACTAL_COLUMNS
    dictionaries: dict[int, bytes | None] = {TILE_COLUMNS: None, last: None}
    begin = 0
    for number, entry in enumerate(whole.index.view(np.uint64).tolist()):
        length = (entry & LENGTH_BITS) * PAYLOAD_UNIT
        width = last if number % k_tiles == k_tiles - 1 else TILE_COLUMNS
        if entry & COMPRESSED and dictionaries[width] is None:
            dictionaries[width] = _header_dictionary(whole.weight[begin : begin + length], sparsity)
        begin += length
    return dictionaries


def _dictionary_of(payload: Int8, tile: Int8, by_matrix: bytes | None, sparsity: Sparsity) -> tuple[str, str]:
    """Scope and order of ties of a coded tile's dictionary."""
    dictionary = _header_dictionary(payload, sparsity)
    again = encode_matrix(tile, sparsity=sparsity)
    coded = bool(again.index.view(np.uint64)[0] & np.uint64(COMPRESSED))
    by_tile = _header_dictionary(again.weight, sparsity) if coded else None
    if dictionary in (by_tile, by_matrix):
        return "either" if by_tile == by_matrix else "tile" if dictionary == by_tile else "matrix", "vendor"
    counts = np.bincount(tile.reshape(-1).view(np.uint8), minlength=256)
    listed_counts = counts[np.frombuffer(dictionary, np.uint8)]
    best = np.sort(counts)[::-1][: MODES[sparsity].dictionary_size]
    if np.array_equal(listed_counts, best):
        return "tile", "other"
    if by_matrix is not None and set(dictionary) == set(by_matrix):
        return "matrix", "other"
    return "unknown", "none"


def _filler_of(repeated: Int8, matrix: Int8, first_row: int, first_column: int) -> str:
    neighbour = matrix[first_row : first_row + len(repeated), first_column : first_column + repeated.shape[1]]
    if np.array_equal(repeated[:, : neighbour.shape[1]], neighbour):
        return "copies"
    return "zeros" if not repeated.any() else "other"
