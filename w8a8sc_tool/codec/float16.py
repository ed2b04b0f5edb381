"""bfloat16 to float16: no code of weights, but by a kernel like those."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .kernels import address_of, load


def convert_bfloat16(values: npt.NDArray[np.uint16], result: npt.NDArray[np.float16]) -> bool:
    """Convert bfloat16, by their bits; both arrays are C-contiguous and of one size, 32 or more.

    Returns whether float16 can hold all of them; an infinity or a NaN counts as one that it cannot. Raises ValueError
    for other arrays.
    """
    kernel = load().bfloat16_to_float16
    contiguous = values.flags.c_contiguous and result.flags.c_contiguous
    if not contiguous or not kernel.sizes["values"] <= values.size == result.size:
        raise ValueError("these are not two C-contiguous arrays of one size that is large enough")
    return not kernel(address_of(values), address_of(result), values.size)
