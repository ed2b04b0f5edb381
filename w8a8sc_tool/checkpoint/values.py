"""Source values to runtime values: what 310P can hold, and an error for what it cannot."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .tensors import SourceTensor


def to_float32(values: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.float32]:
    """F16, BF16 (as uint16 bits) or F32 values as float32."""
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


_WORTH_A_KERNEL: Final = 1 << 12  # values; fewer are converted by numpy, without a need for compiled kernels


def to_float16(values: npt.NDArray[Any], dtype: str, source: SourceTensor) -> npt.NDArray[np.float16]:
    """F16, BF16 (as uint16 bits) or F32 values as float16, rounded to nearest even.

    310P has no bfloat16. Raises InputError, naming the tensor and the value, for a finite value that becomes infinite.
    """
    if dtype == "F16":
        return values.view(np.float16)
    if dtype == "BF16" and (converted := _by_kernel(values)) is not None:
        return converted
    wide = to_float32(values, dtype)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float16)
    infinite = np.isinf(narrow)
    if infinite.any():
        lost = infinite & np.isfinite(wide)
        if lost.any():
            raise InputError(
                f"{source.name} holds {wide[lost][0]:g}, which float16 cannot hold",
                source.path,
                "310P has no bfloat16: rescale the model before quantizing it",
            )
    return narrow


def _by_kernel(values: npt.NDArray[np.uint16]) -> npt.NDArray[np.float16] | None:
    """Many bfloat16, by their bits, as float16, C-contiguous; None if one is too large for it, infinite or a NaN."""
    if values.size < _WORTH_A_KERNEL:
        return None
    from ..codec.float16 import convert_bfloat16  # only where there is something to convert

    result = np.empty(values.shape, np.float16)
    return result if convert_bfloat16(np.ascontiguousarray(values), result) else None


def to_scale_bits(values: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.int64]:
    """A deq_scale as 310P takes it: int64 with the bits of a float32 in the low half.

    For bfloat16 models the checkpoint holds float32, which is reinterpreted; casting would turn nearly all into 0.
    """
    if dtype == "I64":
        return values
    return values.view(np.int32).astype(np.int64)


def to_offset(values: npt.NDArray[Any], dtype: str, source: SourceTensor) -> npt.NDArray[np.int8]:
    """An input_offset as int8; vLLM would truncate and wrap what is not an integer in that range."""
    wide = to_float32(values, dtype)
    narrow = np.clip(np.nan_to_num(wide), -128, 127).astype(np.int8)
    if not (narrow == wide).all():
        raise InputError(
            f"{source.name} is {wide.ravel()[0]:g}, not an integer from -128 to 127",
            source.path,
            "the checkpoint is damaged or was quantized for another format",
        )
    return narrow
