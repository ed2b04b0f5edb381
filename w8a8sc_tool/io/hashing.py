"""The project's content hash: BLAKE3, written as "blake3:" and 64 hexadecimal digits."""

from __future__ import annotations

import os
from pathlib import Path

from blake3 import blake3

from ..errors import InputError

PREFIX = "blake3:"
_PIECE = 4 << 20


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
    try:
        with Path(path).open("rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                state.update(piece)
                size += len(piece)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", str(path)) from None
    return size, text(state)


def of_range(path: str | os.PathLike[str], begin: int, end: int) -> str | None:
    """Hash of the bytes [begin, end) of a file; None if it does not have them."""
    state = blake3()
    try:
        with Path(path).open("rb", buffering=0) as file:
            file.seek(begin)
            while begin < end:
                piece = file.read(min(_PIECE, end - begin))
                if not piece:
                    return None
                state.update(piece)
                begin += len(piece)
    except OSError:
        return None
    return text(state)
