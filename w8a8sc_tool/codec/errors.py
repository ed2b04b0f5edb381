"""Errors of the codec: which rule of docs/format.md, section 13, a matrix or a tile breaks, and where."""

from __future__ import annotations


class CodecError(ValueError):
    """Compressed tensors that break the format, or a matrix that it cannot hold.

    `cause` says what is wrong; `tile` is the tile's number in index order (n-tile outer, k-tile inner), None for an
    error of the matrix as a whole; `engine` is the number of the stream within the tile, where one is at fault.
    """

    def __init__(self, cause: str, *, tile: int | None = None, engine: int | None = None) -> None:
        self.cause = cause
        self.tile = tile
        self.engine = engine
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        where = "" if self.tile is None else f"tile {self.tile}"
        if self.engine is not None:
            where += f", engine {self.engine}"
        return f"{where}: {self.cause}" if where else self.cause

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.cause, self.tile, self.engine)


class MatrixError(CodecError):
    """The three tensors do not belong together: types, shapes, info, number of tiles, bytes left over (M1 to M4)."""


class IndexEntryError(CodecError):
    """An index entry breaks the format: reserved bits, length or offset (I1 to I4)."""


class TileError(CodecError):
    """A tile's payload cannot be decoded: header, codes, end mark, checksum, padding (T1 to T16, X1)."""


class TooLargeError(CodecError):
    """The compressed matrix would be larger than the 512 * N1 * K1 bytes of its consumers (section 12)."""


def _rebuild(kind: type[CodecError], cause: str, tile: int | None, engine: int | None) -> CodecError:
    return kind(cause, tile=tile, engine=engine)
