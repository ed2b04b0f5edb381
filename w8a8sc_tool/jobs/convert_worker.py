"""What a conversion's worker does: make a module's tensors for all ranks and write them where it is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from .. import hashing
from ..backends.native import CompressedShard, compress_shards
from ..checkpoint import SourceTensor
from ..checkpoint.reader import SourceReader
from ..errors import WorkError
from ..layouts import Output
from ..plan import Fallback, PlannedModule
from ..plan.produce import blocks
from ..safetensors_file import TensorInfo
from ..sharded_state import tensor_info

Key = tuple[int, str]  # rank, tensor name


class Made(msgspec.Struct, frozen=True):
    """What came of a module: hashes of the tensors written, bytes of those too small to have a place yet, and for a
    compressed weight the tensors that need a place (per rank), the ratio over all ranks and each rank's."""

    hashes: dict[Key, str]
    small: dict[Key, bytes]
    sources: dict[str, str]
    variable: tuple[tuple[TensorInfo, ...], ...] = ()
    ratio: float | None = None
    ratios: tuple[float, ...] = ()
    fallback: Fallback | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes that wait in the worker for their place."""
        return 0 if self.fallback else sum(tensor.nbytes for rank in self.variable for tensor in rank)


class Converter:
    """Works on one module at a time; results whose place is not known yet wait here until `place` is called."""

    def __init__(self, files: list[str], max_ratio: float) -> None:
        """files: the rank files, by rank; they exist already."""
        self._paths = [Path(file) for file in files]
        self._fds: dict[int, int] = {}
        self._max_ratio = max_ratio
        self._reader = SourceReader()
        self._waiting: dict[str, tuple[PlannedModule, list[CompressedShard] | None]] = {}

    def make(self, planned: PlannedModule, offsets: dict[Key, int]) -> Made:
        """Make a module's tensors and write all that have an offset; a compressed weight waits for its place."""
        hashes: dict[Key, str] = {}
        small: dict[Key, bytes] = {}
        for output in planned.fixed:
            found, kept = self._write_output(output, planned, offsets)
            hashes |= found
            small |= kept
        if not planned.compress:
            return Made(hashes, small, self._source_hashes(planned))
        module = planned.module
        shards = compress_shards(module, planned.sources, self._reader)
        sources = self._source_hashes(planned)
        ratios = tuple(shard.nbytes / (module.n * module.k) for shard in shards or ())
        pays = bool(ratios) and max(ratios) < self._max_ratio
        self._waiting[module.name] = (planned, shards if pays else None)
        ratio = sum(ratios) / len(ratios) if ratios else None
        if not pays:
            raw = tensor_info(module.weight.name, "I8", module.weight.shape)
            return Made(hashes, small, sources, ((raw,),) * len(module.weight.slices), ratio, ratios, "ratio")
        variable = tuple(shard_tensors(module.name, shard) for shard in shards or ())
        return Made(hashes, small, sources, variable, ratio, ratios)

    def place(self, name: str, offsets: dict[Key, int]) -> dict[Key, str]:
        """Write the tensors of a module that waited; returns their hashes."""
        planned, shards = self._waiting.pop(name)
        if shards is None:
            hashes, _ = self._write_output(planned.module.weight, planned, offsets)
            return hashes
        hashes = {}
        for rank, shard in enumerate(shards):
            for leaf, pieces in (("weight", shard.weight), ("index", [shard.index]), ("info", [shard.info])):
                state, position = hashing.new(), offsets[rank, f"{name}.{leaf}"]
                for piece in pieces:
                    self._write(rank, position, piece)
                    state.update(as_bytes(piece))
                    position += piece.nbytes
                hashes[rank, f"{name}.{leaf}"] = hashing.text(state)
        return hashes

    def hash_sources(self, sources: list[SourceTensor]) -> dict[str, str]:
        """Hashes of source tensors that no module uses."""
        return {source.name: self._reader.hash_of(source) for source in sources}

    def _source_hashes(self, planned: PlannedModule) -> dict[str, str]:
        return self.hash_sources(list(planned.sources.values()))

    def _write_output(
        self, output: Output, planned: PlannedModule, offsets: dict[Key, int]
    ) -> tuple[dict[Key, str], dict[Key, bytes]]:
        """Write an uncompressed output on all ranks: hashes of all, bytes of those that have no offset."""
        states: dict[int, Any] = {}
        small: dict[Key, bytes] = {}
        for rank, position, values in blocks(output, planned.sources, self._reader):
            state = states.setdefault(rank, hashing.new())
            state.update(as_bytes(values))
            offset = offsets.get((rank, output.name))
            if offset is None:
                small[rank, output.name] = small.get((rank, output.name), b"") + values.tobytes()
            else:
                self._write(rank, offset + position, values)
        return {(rank, output.name): hashing.text(state) for rank, state in states.items()}, small

    def _write(self, rank: int, offset: int, values: npt.NDArray[Any]) -> None:
        if rank not in self._fds:
            self._fds[rank] = os.open(self._paths[rank], os.O_WRONLY | os.O_CLOEXEC)
        view = as_bytes(values)
        while view:
            try:
                count = os.pwrite(self._fds[rank], view, offset)
            except OSError as error:
                raise WorkError(f"writing failed ({error.strerror})", str(self._paths[rank])) from None
            view = view[count:]
            offset += count


def as_bytes(values: npt.NDArray[Any]) -> memoryview:
    """The bytes of a C-contiguous array."""
    return memoryview(values.reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def shard_tensors(module: str, shard: CompressedShard) -> tuple[TensorInfo, ...]:
    """The three tensors of a compressed shard, not placed yet."""
    return (
        tensor_info(f"{module}.weight", "I8", (shard.weight_bytes,)),
        tensor_info(f"{module}.index", "I8", shard.index.shape),
        tensor_info(f"{module}.info", "I64", shard.info.shape),
    )
