"""Compressing through msmodelslim: a helper process per worker, and no result believed before it is decoded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ...checkpoint import SourceTensor
from ...checkpoint.reader import SourceReader
from ...codec import CodecError, MatrixDecoder, Tiling
from ...errors import InputError, W8A8SCError, WorkError
from ...io import files, reading
from ...layouts import Module
from ...workers.pool import Pool
from .. import native
from ..native import Shards
from ..produce import columns_of, joined_rows, rank_groups
from ..shards import CompressedShard
from .installed import builtin_script, environment

_HANDLER: Final = "w8a8sc_tool.backends.msmodelslim.helper:Helper"
_TEMPORARY: Final = "w8a8sc-msmodelslim-"
_REMEDY: Final = 'backend="native" does without it'
# msmodelslim kills its executor after 600 s; a helper that says nothing for longer is hanging itself.
_TIMEOUT_SECONDS: Final = 660.0


class VendorCompressor:
    """Compresses shards one at a time through msmodelslim, in a process of its own that lives as long as this."""

    def __init__(self, folder: str, executor: str) -> None:
        """folder: for temporary files, one's own is made in it; executor: vendor, builtin, or a program's path."""
        self._folder = Path(folder) / str(os.getpid())
        files.make_folder(self._folder)
        self._log = self._folder / "log"
        if executor == "builtin":
            script = self._folder / "executor"
            files.write_program(script, builtin_script())
            executor = str(script)
        self._arguments = (str(self._folder), executor)
        self._pool: Pool | None = None

    def compress_shards(
        self, modules: Sequence[Module], sources: Mapping[str, SourceTensor], reader: SourceReader
    ) -> list[Shards]:
        """As backends.native.compress_shards; a WorkError names the tensor and carries the vendor's output."""
        if modules[0].sparsity == "high":  # msmodelslim wants a whole W16A16S model for that
            return native.compress_shards(modules, sources, reader)
        return [self._module(module, sources, reader) for module in modules]

    def _module(self, module: Module, sources: Mapping[str, SourceTensor], reader: SourceReader) -> Shards:
        shards: dict[int, CompressedShard] = {}
        for ranks, slices in rank_groups(module.weight):
            rows = joined_rows(module.weight, slices, 0, module.n, sources, reader)
            for rank in ranks:
                weight = np.ascontiguousarray(rows[:, columns_of(module.weight, rank)])
                shards[rank] = self._shard(weight, f"{module.name}.weight, rank {rank} of {len(module.weight.slices)}")
        largest = Tiling(module.n, module.k).largest_weight
        if any(shard.weight_bytes > largest for shard in shards.values()):
            return None
        return [shards[rank] for rank in sorted(shards)]

    def _shard(self, weight: npt.NDArray[np.int8], task: str) -> CompressedShard:
        source, target = self._folder / "source", self._folder / "result"
        files.write_plain(source, weight.data)
        info = self._call(task, str(source), *weight.shape, "W8A8S", str(target))
        parts = [np.fromfile(f"{target}.{leaf}", np.int8) for leaf in ("weight", "index")]
        shard = CompressedShard([parts[0]], parts[1], np.array(info, np.int64))
        _prove(shard, weight, task)
        return shard

    def _call(self, task: str, *arguments: object) -> list[int]:
        if self._pool is None:
            self._pool = Pool(1, _HANDLER, *self._arguments, environment=environment(), log=self._log)
        try:
            self._pool.call(0, task, "compress", *arguments)
            for _, result in self._pool.wait(_TIMEOUT_SECONDS):
                return list(result)
        except W8A8SCError as error:
            self._abandon()
            raise type(error)(error.problems[0].message, task, self._remedy()) from None
        self._abandon()
        raise WorkError(f"msmodelslim did not answer within {_TIMEOUT_SECONDS:.0f} s", task, self._remedy())

    def _abandon(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _remedy(self) -> str:
        try:
            lines = reading.tail(self._log, 4000).decode("utf-8", "replace").strip().splitlines()
        except InputError:
            lines = []
        last_lines = " | ".join(line.strip() for line in lines[-4:])
        return f"{_REMEDY}{'; its last words: ' + last_lines if last_lines else ''}"


def _prove(shard: CompressedShard, weight: npt.NDArray[np.int8], task: str) -> None:
    """Decode a result and compare it with its source; raises WorkError unless they agree."""
    (payload,) = shard.weight
    try:
        decoder = MatrixDecoder(shard.index, shard.info, weight_bytes=payload.nbytes, sparsity="low")
        if (decoder.tiling.n, decoder.tiling.k) != weight.shape:
            raise WorkError("msmodelslim's result is for another shape", task, _REMEDY)
        for block in decoder.blocks():
            out = np.empty((block.last_row - block.first_row, weight.shape[1]), np.int8)
            decoder.decode(block, payload[block.first_byte : block.last_byte], out)
            if not np.array_equal(out, weight[block.first_row : block.last_row]):
                raise WorkError("msmodelslim's result decodes to other values", task, _REMEDY)
    except CodecError as error:
        raise WorkError(f"msmodelslim's result breaks the format: {error}", task, _REMEDY) from None


def _temporary_root() -> Path:
    """A folder for temporary files whose name msmodelslim accepts: it refuses spaces and many other characters."""
    root = files.temporary_root()
    plain = all(character.isascii() and (character.isalnum() or character in "/_-.") for character in str(root))
    return root if plain else Path("/tmp")


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for temporary files, removed at the end; removes what runs left that were killed."""
    prefix = f"{_TEMPORARY}{os.getuid()}-"
    for folder in reading.matching(_temporary_root(), f"{prefix}*"):
        _remove_unless_locked(folder)
    folder = files.new_temporary_folder(prefix, _temporary_root())
    held = files.lock(folder)  # tells other runs that somebody uses it
    try:
        yield folder
    finally:
        files.discard(folder)
        if held is not None:
            os.close(held)


def _remove_unless_locked(folder: Path) -> None:
    try:
        held = files.lock(folder, surely=True)
    except WorkError:
        return
    if held is not None:
        files.discard(folder)
        os.close(held)
