"""What a conversion's worker does: make a module's tensors for all ranks and write them at the offsets it is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ..backends.native import Shards, compress_shards
from ..backends.produce import blocks, unchanged_source
from ..backends.shards import CompressedShard
from ..backends.tiles import Run, TileStore, rows_of_tile
from ..checkpoint import SourceTensor
from ..checkpoint.reader import SourceReader
from ..io import files, hashing
from ..io.files import as_bytes
from ..io.safetensors import StoredTensor, tensor_info
from ..layouts import Output
from ..planning import PlannedModule
from ..resharding.source import ShardedTensor, tiles_of
from .messages import Hashes, ModuleResult, Offsets, RankTensor, Unit, UnitResult
from .read_back import ReadBack
from .write_behind import WriteBehind


class Converter:
    """Works on one unit at a time; a compressed weight waits here for its offsets, until `write` is called."""

    def __init__(
        self,
        paths: list[list[list[str]]],
        max_ratio: float,
        vendor: tuple[str, str] | None = None,
        read_back: bool = False,
        threads: bool = False,
    ) -> None:
        """paths: the rank files, by directory, rank and part; they exist already. read_back: check all that is written.

        vendor: to compress through msmodelslim, a folder for its temporary files and its executor. threads: have some
        read and write what is not compressed, for when there are cores enough.
        """
        self._compress: Any = compress_shards
        if vendor is not None:
            from ..backends.msmodelslim.compressor import VendorCompressor

            self._compress = VendorCompressor(*vendor).compress_shards
        self._paths = [[[Path(path) for path in files] for files in ranks] for ranks in paths]
        self._fds: dict[Path, int] = {}
        self._max_ratio = max_ratio
        self._read_back = ReadBack() if read_back else None
        self._reader = SourceReader()
        self._threads = threads
        self._behind = WriteBehind() if threads else None
        self._waiting: dict[str, tuple[Unit, dict[int, Shards]]] = {}

    def make(self, unit: Unit) -> UnitResult:
        """Make a module's tensors and write all that have an offset; a compressed weight waits for its own."""
        hashes: Hashes = {number: {} for number in unit.planned}
        small: dict[int, dict[RankTensor, bytes]] = {number: {} for number in unit.planned}
        for outputs in _same_tensors(unit):
            self._write_outputs(outputs, unit, unit.offsets, hashes, small)
        compressed = {number: planned for number, planned in unit.planned.items() if planned.compress}
        results = {n: ModuleResult(hashes[n], small[n]) for n in unit.planned if n not in compressed}
        if compressed:
            sources = next(iter(compressed.values())).sources
            modules = [planned.module for planned in compressed.values()]
            shards_of_all = self._compress(modules, sources, self._reader, *self._tiles(sources.values()))
            self._waiting[unit.name] = (unit, {})
            for (number, planned), shards in zip(compressed.items(), shards_of_all):
                results[number] = self._judge(number, planned, shards, hashes[number], small[number])
        return UnitResult(results, self.hash_sources(list(_sources(unit).values())))

    def _judge(
        self,
        number: int,
        planned: PlannedModule,
        shards: Shards,
        hashes: dict[RankTensor, str],
        small: dict[RankTensor, bytes],
    ) -> ModuleResult:
        """Decide whether compression pays, for all ranks together, and keep what will be written."""
        module = planned.module
        ratios = tuple(shard.nbytes / (module.n * module.row_bytes) for shard in shards or ())
        pays = bool(ratios) and max(ratios) < self._max_ratio
        self._waiting[module.name][1][number] = shards if pays else None
        if not pays:
            raw = tensor_info(module.weight.name, module.weight.dtype, module.weight.shape)
            return ModuleResult(hashes, small, ((raw,),) * len(module.weight.slices), ratios, "ratio")
        return ModuleResult(hashes, small, tuple(shard.tensors(module.name) for shard in shards or ()), ratios)

    def _tiles(self, sources: Iterable[SourceTensor]) -> list[TileStore]:
        """The tiles that a directory has of its weights already; nothing for a checkpoint."""
        sharded = [source for source in sources if isinstance(source, ShardedTensor)]
        if not sharded:
            return []
        store = TileStore()
        for slices, left, tiling, n_tile, tiles in tiles_of(sharded, self._reader):
            store.add(rows_of_tile(slices, tiling, n_tile), Run(left, left + tiling.k, tiles))
        return [store]

    def write(self, name: str, offsets: Offsets) -> Hashes:
        """Write the compressed weight of a module that waited, or what stands in its place; returns the hashes."""
        unit, waiting = self._waiting.pop(name)
        hashes: Hashes = {number: {} for number in waiting}
        raw = {number: unit.planned[number].module.weight for number, shards in waiting.items() if shards is None}
        if raw:
            self._write_outputs(raw, unit, offsets, hashes, {})
        for number, shards in waiting.items():
            for rank, shard in enumerate(shards or ()):
                path = self._paths[number][rank][unit.parts[number]]
                hashes[number] |= self._write_shard(unit.planned[number], shard, path, rank, offsets[number])
        return hashes

    def hash_sources(self, sources: list[SourceTensor]) -> dict[str, str]:
        """Hashes of source tensors."""
        return {source.name: source.hash(self._reader) for source in sources}

    def check(
        self, written: list[StoredTensor], sources: list[tuple[SourceTensor, str]]
    ) -> tuple[list[StoredTensor], list[str]]:
        """Written tensors whose bytes are not what they were, and names of source tensors that are not."""
        wrong = [
            tensor
            for tensor in written
            if hashing.of_range(tensor.path, tensor.info.begin, tensor.info.end) != tensor.hash
        ]
        return wrong, [source.name for source, expected in sources if source.hash(self._reader) != expected]

    def _write_outputs(
        self,
        outputs: Mapping[int, Output],
        unit: Unit,
        offsets: Offsets,
        hashes: Hashes,
        small: dict[int, dict[RankTensor, bytes]],
    ) -> None:
        """Write one tensor on all ranks of all directories: hashes of all, bytes of those that have no offset."""
        numbers = list(outputs)
        name = outputs[numbers[0]].name
        sources = _sources(unit)
        same = {
            (number, rank): source
            for number, output in outputs.items()
            for rank in range(len(output.slices))
            if (source := unchanged_source(output, rank, sources)) is not None
        }
        states: dict[tuple[int, int], Any] = {}
        pieces = blocks(list(outputs.values()), sources, self._reader, ahead=self._threads)
        for position_of_output, rank, position, values in pieces:
            number = numbers[position_of_output]
            if (number, rank) not in same:
                states.setdefault((number, rank), hashing.new()).update(as_bytes(values))
            offset = offsets[number].get((rank, name))
            if offset is None:
                small[number][rank, name] = small[number].get((rank, name), b"") + values.tobytes()
                continue
            path = self._paths[number][rank][unit.parts[number]]
            if self._behind is None:
                self._write(path, offset + position, values, name)
            else:
                self._fd(path)  # opened here, by one thread
                self._behind.call(self._write, path, offset + position, values, name)
        if self._behind is not None:
            self._behind.finish()
        for (number, rank), state in states.items():
            hashes[number][rank, name] = hashing.text(state)
        for (number, rank), source in same.items():  # its bytes have been hashed as they were read
            hashes[number][rank, name] = source.hash(self._reader)

    def _write_shard(
        self,
        planned: PlannedModule,
        shard: CompressedShard,
        path: Path,
        rank: int,
        offsets: Mapping[RankTensor, int],
    ) -> dict[RankTensor, str]:
        """Write a rank's compressed weight; returns the hashes of its three tensors."""
        module = planned.module
        hashes: dict[RankTensor, str] = {}
        for leaf in ("weight", "index", "info"):
            name = f"{module.name}.{leaf}"
            end = offsets[rank, name]
            state = hashing.new()
            for piece in shard.pieces(leaf):
                self._write(path, end, piece, name)
                state.update(as_bytes(piece))
                end += piece.nbytes
            hashes[rank, name] = hashing.text(state)
        if self._read_back is not None:
            self._read_back.decode(shard, path, module.name, module.sparsity)
        return hashes

    def _write(self, path: Path, offset: int, values: npt.NDArray[Any], tensor: str) -> None:
        fd = self._fd(path)
        files.write_at(fd, path, as_bytes(values), offset)
        if self._read_back is not None:
            self._read_back.compare(fd, path, values, offset, tensor)

    def _fd(self, path: Path) -> int:
        if path not in self._fds:
            self._fds[path] = files.open_existing(path)
            if self._read_back is not None:
                files.without_read_ahead(self._fds[path])
        return self._fds[path]


def _sources(unit: Unit) -> Mapping[str, SourceTensor]:
    return next(iter(unit.planned.values())).sources


def _same_tensors(unit: Unit) -> list[dict[int, Output]]:
    """The uncompressed tensors of a unit that have a place from the start: each by directory."""
    by_name: dict[str, dict[int, Output]] = {}
    for number, planned in unit.planned.items():
        for output in planned.fixed:
            by_name.setdefault(output.name, {})[number] = output
    return list(by_name.values())
