"""What has just been written is read back at once, from the page cache, and compared; weights are decoded as well."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..backends.shards import CompressedShard
from ..codec import CodecError, MatrixDecoder, Sparsity
from ..errors import WorkError
from ..io import reading
from ..io.files import as_bytes
from .messages import DAMAGE_REMEDY


class _Memory(threading.local):
    """What a thread reads into, anew each time."""

    def __init__(self) -> None:
        self.piece = np.empty(reading.PIECE_BYTES, np.uint8)


class ReadBack:
    """Any number of threads may compare at the same time."""

    def __init__(self) -> None:
        self._memory = _Memory()

    def compare(self, fd: int, path: Path, values: npt.NDArray[Any], offset: int, tensor: str) -> None:
        """Raises WorkError unless a file holds a C-contiguous array's bytes at `offset`."""
        memory = self._memory.piece
        expected = values.reshape(-1).view(np.uint8)
        for begin in range(0, expected.size, memory.size):
            piece = expected[begin : begin + memory.size]
            actual = memory[: piece.size]
            reading.read_at(fd, path, as_bytes(actual), offset + begin, tensor)
            words = np.uint64 if piece.size % 8 == 0 else np.uint8  # a truth value for every word is less to write
            if not np.array_equal(actual.view(words), piece.view(words)):
                raise _failure("its bytes are not those that were written", path, tensor)

    def decode(self, shard: CompressedShard, path: Path, module: str, mode: Sparsity) -> None:
        """Raises WorkError unless a compressed weight decodes.

        It is decoded from memory: the file, at `path`, has been compared with that.
        """
        try:
            decoder = MatrixDecoder(shard.index, shard.info, weight_bytes=shard.weight_bytes, sparsity=mode)
            ends = np.cumsum([piece.nbytes for piece in shard.weight])
            for block in decoder.blocks():
                decoder.check(block, _part(shard.weight, ends, block.first_byte, block.last_byte))
        except CodecError as problem:
            raise _failure(str(problem), path, f"{module}.weight") from None


def _part(
    pieces: Sequence[npt.NDArray[np.int8]], ends: npt.NDArray[np.int64], begin: int, end: int
) -> npt.NDArray[np.int8]:
    """Bytes [begin, end) of pieces that follow each other, by where they end; not copied if they lie in one."""
    first, last = np.searchsorted(ends, (begin + 1, end)).tolist()
    joined = pieces[first] if first == last else np.concatenate(pieces[first : last + 1])
    start = int(ends[first]) - pieces[first].nbytes
    return joined[begin - start : end - start]


def _failure(problem: str, path: Path, tensor: str) -> WorkError:
    return WorkError(f"reading back what was written found an error: {problem}", f"{path} ({tensor})", DAMAGE_REMEDY)
