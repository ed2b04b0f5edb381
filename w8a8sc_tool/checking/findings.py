"""What a verification and its workers tell each other: where to look, and what was found."""

from __future__ import annotations

import msgspec

from ..io.safetensors import TensorInfo


class Place(msgspec.Struct, frozen=True):
    """A tensor in a directory: its file, where in it, and the hash it should have (None: unknown)."""

    path: str
    info: TensorInfo
    hash: str | None = None


class Finding(msgspec.Struct, frozen=True):
    """Something wrong: what, and where (file and tensor)."""

    what: str
    where: str
