"""The checkpoint that a sharded_state directory was made of, put together from its ranks as far as it is there."""

# Every rank's tensor was cut out of source tensors as the layout says; the same table read backwards says where each
# part of a source tensor lies. Padding is left out, heads that several ranks hold are taken from the first. Compressed
# weights are decoded as they are read; their tiles can also be had as they are.

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from ..checkpoint import Checkpoint, Description, ModelConfig, SourceTensor
from ..checkpoint.beside import named_files, side_files_of
from ..checkpoint.reader import SourceReader
from ..codec import CodecError, EncodedTiles, MatrixDecoder, Tiling
from ..codec.format import TILE_ROWS
from ..errors import InputError, WorkError
from ..io import hashing, reading
from ..io.files import as_bytes
from ..io.safetensors import DTYPES, StoredTensor
from ..layouts import UNCOMPRESSED, Module, Output, Slice
from ..sharded_state.reader import ShardedState

_REMEDY: Final = "see w8a8sc verify"


class Part(msgspec.Struct, frozen=True):
    """Rows and columns of a source tensor, as a slice, and where they begin in a rank's tensor.

    columns: elements of a row of the rank's tensor. spare: another rank holds the same. index, info: of a compressed
    weight.
    """

    slice: Slice
    row: int
    columns: int
    stored: StoredTensor
    index: StoredTensor | None = None
    info: StoredTensor | None = None
    spare: bool = False


class ShardedTensor(msgspec.Struct, frozen=True):
    """A source tensor in parts on the ranks of a directory, which `path` is."""

    name: str
    path: str
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * DTYPES[self.dtype].itemsize

    @property
    def in_file(self) -> bool:
        return False

    def read_into(self, reader: SourceReader, first: int, rows: npt.NDArray[Any]) -> None:
        """Raises InputError if a rank's tensor is not what was written, WorkError if it cannot be read."""
        ranks = reader.keep(Ranks)
        last = first + len(rows)
        for part in self.parts:
            begin, end = max(first, part.slice.first_row), min(last, part.slice.last_row)
            if part.spare or begin >= end:
                continue
            values = ranks.rows(part, part.row + begin - part.slice.first_row, end - begin)
            if part.index is not None:  # decoded bytes
                values = values.view(rows.dtype)
            columns = slice(part.slice.first_column, part.slice.last_column or None)
            rows[begin - first : end - first, columns] = values  # an int8 offset becomes the float it was

    def hash(self, reader: SourceReader) -> str:
        parts = [(part.stored.info.name, *(_known_hash(s) for s in _all_of(part))) for part in self.parts]
        return hashing.of_bytes(msgspec.json.encode(parts))


def _all_of(part: Part) -> list[StoredTensor]:
    return [stored for stored in (part.stored, part.index, part.info) if stored is not None]


def _known_hash(stored: StoredTensor) -> str:
    value = stored.hash or hashing.of_range(stored.path, stored.info.begin, stored.info.end)
    if value is None:
        raise WorkError("cannot be read", stored.where)
    return value


class Ranks:
    """Reads from rank files what parts need; compressed weights of one module at a time are kept, checked and ready."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._checked: set[tuple[str, str]] = set()
        self._module = ""
        self._matrices: dict[str, tuple[MatrixDecoder, npt.NDArray[np.int8]]] = {}

    def __del__(self) -> None:
        for fd in self._files.values():
            os.close(fd)

    def rows(self, part: Part, first: int, count: int) -> npt.NDArray[Any]:
        """Rows of a rank's tensor, two-dimensional."""
        if part.index is not None:
            return self._decoded(part, first, count)
        info = part.stored.info
        if (part.stored.path, info.name) not in self._checked:
            self._check(part.stored)
        dtype = DTYPES[info.dtype]
        values = np.empty((count, part.columns), dtype)
        self._read(part.stored, first * part.columns * dtype.itemsize, values)
        return values

    def matrix(self, part: Part) -> tuple[MatrixDecoder, npt.NDArray[np.int8]]:
        """A compressed weight: its decoder and payload, hashed when they are loaded."""
        module = part.stored.info.name
        if module != self._module:
            self._matrices.clear()
            self._module = module
        if part.stored.path not in self._matrices:
            assert part.index is not None and part.info is not None
            payload, index, info = (self._whole(stored) for stored in (part.stored, part.index, part.info))
            try:
                decoder = MatrixDecoder(index, info, weight_bytes=payload.nbytes)
            except CodecError as error:
                raise InputError(str(error), part.stored.where, _REMEDY) from None
            self._matrices[part.stored.path] = decoder, payload
        return self._matrices[part.stored.path]

    def _decoded(self, part: Part, first: int, count: int) -> npt.NDArray[np.int8]:
        decoder, payload = self.matrix(part)
        last_tile = min(-(-(first + count) // TILE_ROWS), decoder.tiling.n_tiles)
        block = decoder.block(min(first // TILE_ROWS, last_tile - 1), last_tile)
        out = np.empty((block.last_row - block.first_row, decoder.tiling.k), np.int8)
        try:
            decoder.decode(block, payload[block.first_byte : block.last_byte], out)
        except CodecError as error:
            raise InputError(str(error), part.stored.where, _REMEDY) from None
        return out[first - block.first_row :][:count]

    def _whole(self, stored: StoredTensor) -> npt.NDArray[Any]:
        values = np.empty(stored.info.shape, DTYPES[stored.info.dtype])
        self._read(stored, 0, values)
        if stored.hash is not None and hashing.of_bytes(as_bytes(values)) != stored.hash:
            raise _damaged(stored)
        return values

    def _check(self, stored: StoredTensor) -> None:
        value = hashing.of_range(stored.path, stored.info.begin, stored.info.end)
        if stored.hash is not None and value != stored.hash:
            raise _damaged(stored)
        self._checked.add((stored.path, stored.info.name))

    def _read(self, stored: StoredTensor, offset: int, values: npt.NDArray[Any]) -> None:
        view = as_bytes(values)
        if offset + len(view) > stored.info.nbytes:
            raise ValueError(f"rows beyond the end of {stored.info.name}")
        position = stored.info.begin + offset
        path = Path(stored.path)
        if stored.path not in self._files:
            self._files[stored.path] = reading.open_file(path)
        reading.read_at(self._files[stored.path], path, view, position, stored.info.name)


def _damaged(stored: StoredTensor) -> InputError:
    return InputError("the bytes are not those that were written", stored.where, _REMEDY)


def tiles_of(
    sources: Iterable[ShardedTensor], reader: SourceReader
) -> Iterable[tuple[list[Slice], int, Tiling, int, EncodedTiles]]:
    """Rows of tiles of a module's compressed weight as the directory has them.

    Yields slices, the first byte of a source row that they take, tiling, n-tile, tiles.
    """
    ranks = reader.keep(Ranks)
    shards: dict[str, list[Part]] = {}
    size = 1
    for source in sources:
        if source.name.endswith(".weight"):
            size = DTYPES[source.dtype].itemsize
        for part in source.parts:
            if part.index is not None:
                shards.setdefault(part.stored.path, []).append(part)
    for parts in shards.values():
        parts.sort(key=lambda part: part.row)
        decoder, payload = ranks.matrix(parts[0])
        for n_tile in range(decoder.tiling.n_tiles):
            block = decoder.block(n_tile, n_tile + 1)
            tiles = decoder.tiles(block, payload[block.first_byte : block.last_byte])
            yield [part.slice for part in parts], parts[0].slice.first_column * size, decoder.tiling, n_tile, tiles


# ------------------------------------------------------------------------------------------------------- opening one


def open_source(
    state: ShardedState, config: ModelConfig, description: Description, planned_modules: Iterable[Module]
) -> Checkpoint:
    """The checkpoint of a directory.

    planned_modules: its modules at its own size; description: as it is in the directory.
    """
    hashes = {}
    if state.manifest is not None:
        hashes = {(file.file, t.name): t.hash for file in state.manifest.rank_files for t in file.tensors}
    stored = [
        {
            info.name: StoredTensor(str(file.path), info, hashes.get((file.path.name, info.name)))
            for file in state.ranks[rank]
            for info in file.tensors.values()
        }
        for rank in range(state.tp)
    ]
    parts: dict[str, list[Part]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    for module in planned_modules:
        wanted = {source.name: source.shape for source in module.sources}
        for output in module.outputs:
            for rank, slices in enumerate(output.slices):
                row = 0
                for piece in slices:
                    parts.setdefault(piece.source, []).append(_part(piece, row, output, module, stored[rank]))
                    dtypes[piece.source] = "F32" if output.conversion == "offset" else output.dtype
                    row += piece.rows
        shapes |= {name: wanted[name] for name in wanted if name in parts}
        for name in wanted:  # of members whose scalars were merged, all have the one that is left
            if name not in parts:
                _take_merged(name, module, parts, shapes, dtypes)
    tensors: dict[str, SourceTensor] = {
        name: _tensor(name, str(state.path), dtypes[name], shapes[name], parts[name]) for name in parts
    }
    named, notes = named_files(state.path, description)
    ranks = {file.path.name for files in state.ranks.values() for file in files}
    side_files, warnings = side_files_of(state.path, named, ranks)
    identity = state.manifest.source if state.manifest is not None else None
    return Checkpoint(state.path, config, restored(description), tensors, side_files, [*notes, *warnings], identity)


def _part(piece: Slice, row: int, output: Output, module: Module, stored: Mapping[str, StoredTensor]) -> Part:
    index = info = None
    if output.name == f"{module.name}.weight":
        index, info = stored.get(f"{module.name}.index"), stored.get(f"{module.name}.info")
    return Part(piece, row, output.columns, stored[output.name], index, info)


def _take_merged(
    name: str,
    module: Module,
    parts: dict[str, list[Part]],
    shapes: dict[str, tuple[int, ...]],
    dtypes: dict[str, str],
) -> None:
    leaf = name.rpartition(".")[2]
    for member in module.members:
        other = f"{member.name}.{leaf}"
        if other in parts:
            parts[name], dtypes[name], shapes[name] = parts[other], dtypes[other], (1,)
            return


def _tensor(name: str, path: str, dtype: str, shape: tuple[int, ...], parts: list[Part]) -> ShardedTensor:
    seen: set[Slice] = set()
    marked = []
    for part in parts:
        marked.append(msgspec.structs.replace(part, spare=part.slice in seen))
        seen.add(part.slice)
    return ShardedTensor(name, path, dtype, shape, tuple(marked))


def restored(description: Description) -> Description:
    """The description that a directory's was made of."""
    content = {
        key: UNCOMPRESSED.get(value, value) if isinstance(value, str) else value
        for key, value in description.content.items()
    }
    types = {key: UNCOMPRESSED.get(value, value) for key, value in description.types.items()}
    return Description(description.path, types, content)
