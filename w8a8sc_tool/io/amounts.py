"""Amounts of bytes for people: one way to write them, wherever they are shown, and one way to read them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_SIZE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?(?:([KMGT]?)(I?)B)?", re.IGNORECASE)


def size(count: float) -> str:
    """Bytes for people, in powers of 1000 as disks are sold."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def parsed_size(text: str) -> int:
    """Bytes of a size as people write it: 500MB and 5GB by powers of 1000, 500MiB and 5GiB by powers of 1024.

    A number alone is bytes; capitals do not matter; fractions of a byte are dropped. Raises ValueError for other text.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match[3] and not match[2]):
        raise ValueError(f"{text[:40]!r} is not a size")
    power = " KMGT".index(match[2].upper() or " ") if match[2] is not None else 0
    return int(Decimal(match[1]) * (1024 if match[3] else 1000) ** power)
