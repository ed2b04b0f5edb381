"""What an index tensor says about the length of its weight (docs/format.md), without decoding anything."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

_LENGTH_BITS: Final = 0x1FF  # of an entry: the payload's length in units; its offset in units is the high half
_UNIT: Final = 128  # bytes


def payload_end(index: npt.NDArray[Any]) -> int:
    """The byte behind the last payload that an index int8 [8 t] points to: what its weight must have at least."""
    entries = index.view("<u4").reshape(-1, 2).astype(np.int64)
    return int(((entries[:, 1] + (entries[:, 0] & _LENGTH_BITS)) * _UNIT).max(initial=0))
