"""What a verification finds."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """Something wrong: what, and where (file and tensor)."""

    message: str
    where: str
