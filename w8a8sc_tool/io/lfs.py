"""Git LFS pointers: small texts that stand in place of files which were never fetched."""

from __future__ import annotations

from typing import Final

from ..errors import InputError

# How every pointer begins, by the specification of Git LFS; a pointer is smaller than 1024 bytes.
_BEGINNING: Final = b"version https://git-lfs.github.com/spec/"
LARGEST: Final = 1023
WHAT: Final = "a Git LFS pointer, not the file itself"


def is_pointer(data: bytes) -> bool:
    """Whether a file's first bytes, at least 40 of them, are a pointer's."""
    return data.startswith(_BEGINNING)


def refuse_pointer(data: bytes, where: str) -> None:
    """Raises InputError if a file's first bytes are a pointer's."""
    if is_pointer(data):
        raise InputError(WHAT, where, "fetch what it stands for: git lfs pull, or download the file")
