"""What a checkpoint's tensor is to everybody else: a name, a dtype, a shape, and rows that a reader gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy.typing as npt

from ..io.files import as_bytes

if TYPE_CHECKING:
    from .reader import SourceReader


class SourceTensor(Protocol):
    """A tensor of a checkpoint, wherever its rows come from.

    path: the file or folder that errors name. in_file: whether its bytes lie in one piece in a file, so that `hash` is
    the hash of its bytes. It travels to workers, so it holds no open files: what reading needs, a reader keeps.
    """

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def in_file(self) -> bool: ...

    def read_into(self, reader: SourceReader, first: int, rows: npt.NDArray[Any]) -> None:
        """Fill a C-contiguous two-dimensional array with the rows from `first` on.

        Raises WorkError or InputError if they cannot be had, or are not what they were.
        """

    def hash(self, reader: SourceReader) -> str:
        """A hash that changes with the content; what nobody has read of it yet may be read for that."""


class FileTensor(msgspec.Struct, frozen=True):
    """A tensor in a file: its size when the checkpoint was opened, and the tensor's bytes [begin, end) in it."""

    name: str
    path: str
    file_size: int
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.begin

    @property
    def in_file(self) -> bool:
        return True

    def read_into(self, reader: SourceReader, first: int, rows: npt.NDArray[Any]) -> None:
        reader.read_file(self, self.offset(first, rows), as_bytes(rows))

    def offset(self, first: int, rows: npt.NDArray[Any]) -> int:
        """Where the rows from `first` on begin, in bytes from the tensor's beginning; rows: an array for them."""
        offset: int = first * rows.shape[1] * rows.itemsize
        if self.begin + offset + rows.nbytes > self.end:
            raise ValueError(f"rows beyond the end of {self.name}")
        return offset

    def hash(self, reader: SourceReader) -> str:
        return reader.hash_file(self)
