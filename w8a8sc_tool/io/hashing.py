"""The project's content hash: BLAKE3, written as "blake3:" and 64 hexadecimal digits."""

from __future__ import annotations

import os
from pathlib import Path

from blake3 import blake3

from . import reading

PREFIX = "blake3:"


def new() -> blake3:
    """A hash to update piece by piece; `text` makes it readable."""
    return blake3()


def text(state: blake3) -> str:
    return PREFIX + state.hexdigest()


def of_bytes(data: bytes | memoryview) -> str:
    return text(blake3(data))


def of_file(path: str | os.PathLike[str]) -> tuple[int, str]:
    """Size and hash of a file, read in pieces."""
    state = blake3()
    size = 0
    for piece in reading.pieces(Path(path), reading.PIECE_BYTES):
        state.update(piece)
        size += len(piece)
    return size, text(state)


def of_range(path: str | os.PathLike[str], begin: int, end: int) -> str | None:
    """Hash of the bytes [begin, end) of a file; None if it does not have them.

    Raises AccessError or WorkError if the file system does not give them: that says nothing about them.
    """
    file = Path(path)
    if not reading.is_file(file):
        return None
    state = blake3()
    fd = reading.open_file(file)
    try:
        if reading.size_of(fd, file) < end:
            return None
        piece = bytearray(min(reading.PIECE_BYTES, end - begin))
        while begin < end:
            view = memoryview(piece)[: end - begin]
            reading.read_at(fd, file, view, begin)
            state.update(view)
            begin += len(view)
    finally:
        os.close(fd)
    return text(state)
