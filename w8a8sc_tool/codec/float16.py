"""bfloat16 to float16: no code of weights, but by a kernel like those."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .kernels import address_of, load

VALUES: Final = 32  # that a step of the kernel converts: no array may have fewer


def convert_bfloat16(values: npt.NDArray[np.uint16], result: npt.NDArray[np.float16]) -> bool:
    """Convert bfloat16, by their bits; both arrays are C-contiguous and of one size, at least VALUES.

    Returns whether float16 can hold all of them; an infinity or a NaN counts as one that it cannot.
    """
    return not load().bfloat16_to_float16(address_of(values), address_of(result), values.size)
