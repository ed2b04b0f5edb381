"""A tile coded under a dictionary by the fast coder of a mode and by its plain one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from w8a8sc_tool.codec.encode import TARGET_SLACK
from w8a8sc_tool.codec.kernels import address_of
from w8a8sc_tool.codec.shares import SHARE_BYTES

from .test_symbols import Tile


def payload_of_both(code: Callable[..., tuple[int, int]], shares: np.ndarray, dictionary: np.ndarray) -> bytes | None:
    """The payload, nothing for bypass; fails if the coders differ. None if the fast one refuses the tile.

    code: compiled; takes the addresses of the tile's shares for either coder, their length, the dictionary (uint8), and
    the addresses of both targets; returns both sizes, -1 for a tile that is refused. shares: uint8 [4, length].
    """
    fast, plain = Tile(shares), Tile(shares)
    target, other = (np.zeros(4 * SHARE_BYTES + TARGET_SLACK, np.uint8) for _ in range(2))
    size, expected = code(
        address_of(fast.memory),
        address_of(plain.memory),
        fast.length,
        dictionary,
        address_of(target),
        address_of(other),
    )
    if size < 0:
        return None
    assert size == expected
    assert target[:size].tobytes() == other[:size].tobytes()
    return target[:size].tobytes()
