"""The kernel of float16.py: 32 values at a time."""

from __future__ import annotations

import numpy as np

from .jit import kernel
from .vectors import U16x32, U32x32, above, add_as_floats, choose, load, resize, splat, store

VALUES = 32  # that a step converts: no array may have fewer

_SIGN = 0x8000
_MAGNITUDE = 0x7FFF
_LARGEST = 0x477F  # 65280.0, the largest bfloat16 that float16 can hold
_BIAS = (127 - 15) << 10  # of the exponents of the two, where float16 has its own
_SUBNORMAL = 0x387F  # the largest bfloat16 below 2**-14, from where on float16 has fewer bits
# 0.5 as a float32, whose last bit stands for 2**-24, as that of a small float16 does: adding it rounds to such a bit,
# and what was added to its bits is the float16.
_HALF = 0x3F000000


@kernel({"values": VALUES})
def bfloat16_to_float16(source, target, count):
    """Convert the `count` bfloat16 at address `source`, at least VALUES of them, to float16 at address `target`.

    Rounded to nearest even. Returns how many steps met a value that float16 cannot hold, an infinity or a NaN, for
    which what is written is not defined. The two do not overlap.
    """
    lost = np.int64(0)
    largest = splat(U16x32, _LARGEST)
    subnormal = splat(U16x32, _SUBNORMAL)
    for begin in range(0, count, VALUES):
        position = 2 * min(begin, count - VALUES)
        values = load(U16x32, source + position)
        magnitudes = values & _MAGNITUDE
        lost += np.int64(above(magnitudes, largest) != np.uint64(0))
        wide = resize(U32x32, magnitudes)
        normal = resize(U16x32, (wide << 3) - _BIAS)
        small = resize(U16x32, add_as_floats(wide << 16, _HALF) - _HALF)
        halves = choose(above(magnitudes, subnormal), normal, small)
        store(target + position, halves | (values & _SIGN))
    return lost
