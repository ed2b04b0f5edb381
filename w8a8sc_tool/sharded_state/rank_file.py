"""A rank's file while it is written: where each tensor goes, and the header that says so in the end."""

# A safetensors file may have neither gaps nor trailing bytes, and sizes of compressed tensors are known only once they
# are encoded. So a file has three parts: tensors of known size, at offsets known from the start; behind them the
# others, in the order of the plan; last the known ones whose size is not a multiple of 8, so that all else is aligned.
# Space for the header is kept by its largest possible size. Nothing here depends on who writes when.

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ..errors import WorkError
from ..io import files, hashing
from ..io.safetensors import DTYPES, TensorInfo, header_for

ALIGNMENT: Final = 8
_LARGEST_OFFSET: Final = 10**15  # 15 digits are kept for every offset in the header


def file_name(rank: int, part: int = 0) -> str:
    """What vLLM's sharded_state loader looks for: it reads all parts of its rank."""
    return f"model-rank-{rank}-part-{part}.safetensors"


def header_room(tensors: Iterable[TensorInfo]) -> int:
    """Bytes that are kept for the header of a file of these tensors: what it needs at the most."""
    return len(
        header_for(
            TensorInfo(tensor.name, tensor.dtype, tensor.shape, _LARGEST_OFFSET, _LARGEST_OFFSET) for tensor in tensors
        )
    )


class RankFile:
    """Announced first, then given out in pieces, then finished: `offset`, `append`, `finish`, in that order.

    Whoever has the bytes of a tensor writes them to `path` at the offset it was given; this object writes the tensors
    announced as small, and the header.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        fixed: Iterable[TensorInfo],
        variable: Iterable[TensorInfo],
        *,
        part: int = 0,
        resume: bool = False,
    ) -> None:
        """fixed: all tensors of known size; variable: the largest forms the others may take, only for their names.

        part: which of the rank's files. resume: go on with the file that an earlier run left.
        """
        self.rank = rank
        self.path = folder / file_name(rank, part)
        known = list(fixed)
        self._fixed = {tensor.name for tensor in known}
        aligned = [tensor for tensor in known if tensor.nbytes % ALIGNMENT == 0]
        self._tail = {tensor.name: tensor for tensor in known if tensor.nbytes % ALIGNMENT}
        self.header_bytes = header_room((*known, *variable))
        self._tensors: dict[str, TensorInfo] = {}
        self._end = 0
        for tensor in aligned:
            self._place(tensor)
        self._tail_bytes: dict[str, bytes] = {}
        self._fd = files.open_existing(self.path) if resume else files.create(self.path)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def offset(self, name: str) -> int | None:
        """Where to write a fixed tensor, counted from the start of the file; None: hand it to `put_small`."""
        return None if name in self._tail else self.header_bytes + self._tensors[name].begin

    def append(self, tensor: TensorInfo) -> int:
        """Place the next variable tensor; returns where to write it, counted from the start of the file."""
        return self.header_bytes + self._place(tensor).begin

    def put_small(self, name: str, data: bytes) -> None:
        """The bytes of a tensor that has no offset yet."""
        if len(data) != self._tail[name].nbytes:
            raise ValueError(f"{name} has {self._tail[name].nbytes} bytes, not {len(data)}")
        self._tail_bytes[name] = data

    def is_fixed(self, name: str) -> bool:
        """Whether a tensor was announced with its size."""
        return name in self._fixed

    def is_small(self, name: str) -> bool:
        """Whether a tensor has no offset before the file is finished."""
        return name in self._tail

    def small(self, name: str) -> bytes | None:
        """The bytes of a tensor that has no offset yet; None for all others."""
        return self._tail_bytes[name] if name in self._tail else None

    def info(self, name: str) -> TensorInfo:
        """A placed tensor, with its offsets from the start of the file."""
        return self._moved(self._tensors[name])

    def sync(self) -> None:
        """Make all that has been written durable, whoever wrote it."""
        files.settle(self._fd, self.path)

    def finish(self) -> tuple[int, str, list[TensorInfo]]:
        """Write the small tensors and the header, sync; the file's size, the header's hash, the tensors as they lie."""
        tail = []
        for tensor in sorted(self._tail.values(), key=_by_alignment):
            tail.append(self._tail_bytes[tensor.name])
            self._place(tensor)
        header = header_for(self._tensors.values(), self.header_bytes)
        size = self.header_bytes + self._end
        files.write_at(self._fd, self.path, b"".join(tail), size - sum(len(data) for data in tail))
        files.write_at(self._fd, self.path, header, 0)
        if os.fstat(self._fd).st_size != size:
            raise WorkError("the file does not have the size it was written with", str(self.path), "check the disk")
        files.settle(self._fd, self.path)
        self.close()
        return size, hashing.of_bytes(header), [self._moved(tensor) for tensor in self._tensors.values()]

    def _moved(self, tensor: TensorInfo) -> TensorInfo:
        begin, end = self.header_bytes + tensor.begin, self.header_bytes + tensor.end
        return TensorInfo(tensor.name, tensor.dtype, tensor.shape, begin, end)

    def _place(self, tensor: TensorInfo) -> TensorInfo:
        if tensor.name in self._tensors:
            raise ValueError(f"{tensor.name} is placed twice")
        placed = TensorInfo(tensor.name, tensor.dtype, tensor.shape, self._end, self._end + tensor.nbytes)
        self._tensors[tensor.name] = placed
        self._end = placed.end
        return placed


def _by_alignment(tensor: TensorInfo) -> int:
    return -DTYPES[tensor.dtype].itemsize
