"""bfloat16 to float16: what arrays it takes. Its values: tests/checkpoint/test_values.py."""

from __future__ import annotations

import numpy as np
import pytest

from w8a8sc_tool.codec.float16 import convert_bfloat16


@pytest.mark.parametrize("count", [32, 33, 63, 64, 65])
def test_nothing_beside_the_result_is_written(count: int) -> None:
    memory = np.full(count + 64, 7, np.float16)
    assert convert_bfloat16(np.full(count, 0x3F80, np.uint16), memory[32:-32])
    assert memory.tolist() == [7.0] * 32 + [1.0] * count + [7.0] * 32


@pytest.mark.parametrize(
    ("values", "result"),
    [
        (np.zeros(31, np.uint16), np.zeros(31, np.float16)),
        (np.zeros(64, np.uint16), np.zeros(63, np.float16)),
        (np.zeros(128, np.uint16)[::2], np.zeros(64, np.float16)),
        (np.zeros(64, np.uint16), np.zeros(128, np.float16)[::2]),
    ],
)
def test_arrays_of_another_form_are_refused(values: np.ndarray, result: np.ndarray) -> None:
    with pytest.raises(ValueError, match="C-contiguous"):
        convert_bfloat16(values, result)
