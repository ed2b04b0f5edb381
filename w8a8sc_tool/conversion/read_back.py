"""What has just been written is read back at once, from the page cache: it is compared, and weights are decoded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..codec import CodecError, MatrixDecoder, Sparsity
from ..errors import WorkError
from ..io import reading
from ..io.files import as_bytes
from .messages import DAMAGE_REMEDY


class ReadBack:
    """Reads into memory of its own, which is used anew each time."""

    def __init__(self) -> None:
        self._memory = np.empty(reading.PIECE_BYTES, np.uint8)

    def compare(self, fd: int, path: Path, values: npt.NDArray[Any], offset: int, tensor: str) -> None:
        """Raises WorkError unless a file holds a C-contiguous array's bytes at `offset`."""
        expected = values.reshape(-1).view(np.uint8)
        for begin in range(0, expected.size, self._memory.size):
            piece = expected[begin : begin + self._memory.size]
            actual = self._memory[: piece.size]
            reading.read_at(fd, path, as_bytes(actual), offset + begin, tensor)
            if not np.array_equal(actual, piece):
                raise _failure("its bytes are not those that were written", path, tensor)

    def decode(self, fd: int, path: Path, module: str, offsets: Mapping[str, tuple[int, int]], mode: Sparsity) -> None:
        """Raises WorkError unless a compressed weight decodes. offsets: of "weight", "index", "info": begin and end."""

        def read(leaf: str, first: int, last: int) -> npt.NDArray[np.int8]:
            values = np.empty(last - first, np.int8)
            reading.read_at(fd, path, as_bytes(values), offsets[leaf][0] + first, f"{module}.{leaf}")
            return values

        sizes = {leaf: end - begin for leaf, (begin, end) in offsets.items()}
        try:
            index, info = read("index", 0, sizes["index"]), read("info", 0, sizes["info"]).view(np.int64)
            decoder = MatrixDecoder(index, info, weight_bytes=sizes["weight"], sparsity=mode)
            for block in decoder.blocks():
                payload = read("weight", block.first_byte, block.last_byte)
                out = np.empty((block.last_row - block.first_row, decoder.tiling.k), np.int8)
                decoder.decode(block, payload, out)
        except CodecError as problem:
            raise _failure(str(problem), path, f"{module}.weight") from None


def _failure(problem: str, path: Path, tensor: str) -> WorkError:
    return WorkError(f"reading back what was written found an error: {problem}", f"{path} ({tensor})", DAMAGE_REMEDY)
