"""Reading tensors of a checkpoint in blocks of rows, hashing every byte once on the way."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import InputError, WorkError
from ..io import hashing, reading
from ..io.files import as_bytes
from ..io.safetensors import DTYPES
from .tensors import FileTensor, SourceTensor

T = TypeVar("T")

_READERS: Final = 2  # threads that read a large tensor: one of them alone takes longer than hashing does
_AHEAD: Final = 6  # pieces that are being read, hashed, or wait


class SourceReader:
    """Reads source tensors with pread, from files opened once, and knows the hash of all it has read whole."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._hashes: dict[str, tuple[Any, int]] = {}  # name -> state, bytes hashed so far
        self._known: dict[str, str] = {}  # name -> hash of the whole tensor
        self._kept: dict[Callable[[], Any], Any] = {}  # by what made it

    def close(self) -> None:
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()
        self._kept.clear()

    def keep(self, make: Callable[[], T]) -> T:
        """What a kind of tensor keeps between calls, made when it is first asked for."""
        if make not in self._kept:
            self._kept[make] = make()
        kept: T = self._kept[make]
        return kept

    def read_rows(self, source: SourceTensor, first: int, last: int) -> npt.NDArray[Any]:
        """Rows [first, last) of a tensor as a two-dimensional array, BF16 as its bits; a scalar has one row."""
        rows = _empty_rows(source, first, last)
        source.read_into(self, first, rows)
        return rows

    def read_ahead(
        self, source: SourceTensor, ranges: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Ranges of rows, one after the other, each with its first row, read while the caller works on those before.

        A tensor in a file is read by several threads and hashed by another one; any other by a single one.
        """
        with ThreadPoolExecutor(_READERS) as readers, ThreadPoolExecutor(1) as hasher:

            def start(first: int, last: int) -> Future[npt.NDArray[Any]]:
                if not isinstance(source, FileTensor):
                    return hasher.submit(self.read_rows, source, first, last)
                unhashed = readers.submit(self._read_unhashed, source, first, last)
                return hasher.submit(self._hashed, source, first, unhashed)

            if isinstance(source, FileTensor):
                self._open(source)
            waiting: deque[Future[npt.NDArray[Any]]] = deque(start(*rows) for rows in ranges[:_AHEAD])
            for number, (first, _) in enumerate(ranges):
                rows = waiting.popleft().result()
                if number + _AHEAD < len(ranges):
                    waiting.append(start(*ranges[number + _AHEAD]))
                yield first, rows

    def _read_unhashed(self, source: FileTensor, first: int, last: int) -> npt.NDArray[Any]:
        rows = _empty_rows(source, first, last)
        begin = source.begin + source.offset(first, rows)
        reading.read_at(self._open(source), Path(source.path), as_bytes(rows), begin, source.name)
        return rows

    def _hashed(self, source: FileTensor, first: int, unhashed: Future[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        rows = unhashed.result()
        self._hash(source, source.offset(first, rows), as_bytes(rows))
        return rows

    def read_file(self, source: FileTensor, offset: int, view: memoryview) -> None:
        """Fill a buffer with a tensor's bytes from `offset` on.

        Raises WorkError if the file fails or is not what it was when the checkpoint was opened.
        """
        reading.read_at(self._open(source), Path(source.path), view, source.begin + offset, source.name)
        self._hash(source, offset, view)

    def hash_file(self, source: FileTensor) -> str:
        """The hash of a tensor; what no one has read of it yet is read now."""
        if source.name in self._known:
            return self._known[source.name]
        state, done = self._hashes.pop(source.name, (hashing.new(), 0))
        piece = np.empty(min(source.nbytes - done, reading.PIECE_BYTES), np.uint8)
        fd = self._open(source)
        while done < source.nbytes:
            view = memoryview(piece)[: source.nbytes - done]  # type: ignore[arg-type]
            reading.read_at(fd, Path(source.path), view, source.begin + done, source.name)
            state.update(view)
            done += len(view)
        self._known[source.name] = hashing.text(state)
        return self._known[source.name]

    def _hash(self, source: FileTensor, offset: int, view: memoryview) -> None:
        """Hash rows as they are read in order; rows that were read before are not hashed again."""
        if source.name in self._known:
            return
        state, done = self._hashes.get(source.name, (None, 0))
        if state is None:
            state = hashing.new()
        if offset <= done < offset + len(view):
            state.update(view[done - offset :])
            done = offset + len(view)
        self._hashes[source.name] = (state, done)

    def _open(self, source: FileTensor) -> int:
        if source.path not in self._files:
            path = Path(source.path)
            try:
                fd = reading.open_file(path)
            except InputError as error:  # it could be opened when the checkpoint was
                raise WorkError(
                    f"{source.name} cannot be read any more: {error.problems[0].message}", str(path)
                ) from None
            self._files[source.path] = fd
            if reading.size_of(fd, path) != source.file_size:
                raise WorkError(
                    f"{source.name} is not where it was: the file was changed during the work",
                    *(str(path), "run the command again"),
                )
        return self._files[source.path]


def _empty_rows(source: SourceTensor, first: int, last: int) -> npt.NDArray[Any]:
    """Memory for rows [first, last) of a tensor, two-dimensional."""
    return np.empty((last - first, int(np.prod(source.shape[1:], dtype=np.int64))), DTYPES[source.dtype])
