"""Source values to runtime values."""

from __future__ import annotations

import numpy as np
import pytest

from w8a8sc_tool.checkpoint import FileTensor
from w8a8sc_tool.checkpoint.values import to_float16, to_offset, to_scale_bits
from w8a8sc_tool.errors import InputError


def source(dtype: str) -> FileTensor:
    return FileTensor("layer.weight", "/models/x.safetensors", 0, dtype, (), 0, 0)


def bfloat16(values: list[float]) -> np.ndarray:
    return (np.array(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def test_bfloat16_becomes_float16() -> None:
    values = to_float16(bfloat16([1.0, -2.5, 0.0, 3e-7, 65280.0]), "BF16", source("BF16"))
    assert values.tolist() == [1.0, -2.5, 0.0, np.float16(bfloat16_value(3e-7)), 65280.0]


def bfloat16_value(value: float) -> float:
    return float((np.array([value], np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)[0])


def test_every_bfloat16_that_fits_is_rounded_to_nearest() -> None:
    bits = np.arange(65536, dtype=np.uint16)
    wide = (bits.astype(np.uint32) << 16).view(np.float32)
    fits = np.abs(wide) < 65520
    np.testing.assert_array_equal(to_float16(bits[fits], "BF16", source("BF16")), wide[fits].astype(np.float16))


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_overflow_is_an_error_that_names_tensor_and_value(dtype: str) -> None:
    values = bfloat16([1.0, 131072.0]) if dtype == "BF16" else np.array([1.0, 131072.0], np.float32)
    with pytest.raises(InputError, match=r"layer.weight holds 131072.*/models/x.safetensors"):
        to_float16(values, dtype, source(dtype))


@pytest.mark.parametrize("position", [0, 1 << 14, 40_000, -1])
def test_one_large_bfloat16_is_seen_wherever_it_is(position: int) -> None:
    values = np.tile(bfloat16([1.0, -0.5]), 25_000)
    values[position] = bfloat16([-131072.0])[0]
    with pytest.raises(InputError, match=r"layer.weight holds -131072"):
        to_float16(values, "BF16", source("BF16"))


@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (2, 20_000)])
def test_bfloat16_of_any_shape(shape: tuple[int, ...]) -> None:
    bits = np.random.default_rng(0).integers(0, 0x4780, shape).astype(np.uint16)
    values = to_float16(bits, "BF16", source("BF16"))
    assert values.shape == shape and values.flags.c_contiguous
    np.testing.assert_array_equal(values, (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float16))


def test_infinities_and_nans_of_the_source_stay() -> None:
    values = to_float16(np.array([np.inf, np.nan, -np.inf], np.float32), "F32", source("F32"))
    assert np.isinf(values).tolist() == [True, False, True]


def test_float16_is_not_touched() -> None:
    values = np.arange(65536, dtype=np.uint16).view(np.float16)
    assert to_float16(values, "F16", source("F16")).tobytes() == values.tobytes()


def test_float32_scales_are_reinterpreted_not_cast() -> None:
    scales = to_scale_bits(np.array([3e-5, 1.0, -1.0], np.float32), "F32")
    assert scales.dtype == np.int64
    assert (scales & 0xFFFFFFFF).astype(np.uint32).view(np.float32).tolist() == [np.float32(3e-5), 1.0, -1.0]
    already = np.array([0x3F800000], np.int64)
    assert to_scale_bits(already, "I64") is already


@pytest.mark.parametrize("value", [-128, -1, 0, 127])
def test_offsets_become_int8(value: int) -> None:
    assert to_offset(np.array([value], np.float32), "F32", source("F32")).tolist() == [value]


@pytest.mark.parametrize("value", [130, -129, 0.5, np.nan, np.inf])
def test_offsets_that_vllm_would_wrap_are_refused(value: float) -> None:
    with pytest.raises(InputError, match="layer.weight is"):
        to_offset(np.array([value], np.float32), "F32", source("F32"))


def test_every_bfloat16_is_the_same_by_the_kernel_and_by_numpy() -> None:
    """Each of those that fit at every position of a step; the last step overlaps the one before it."""
    magnitudes = np.arange(0x4780, dtype=np.uint16)
    for shift in (0, 1, 31):
        bits = np.concatenate([magnitudes[shift:], magnitudes | 0x8000, magnitudes[: shift + 5]])
        wide = (bits.astype(np.uint32) << 16).view(np.float32)
        converted = to_float16(bits, "BF16", source("BF16"))
        np.testing.assert_array_equal(converted.view(np.uint16), wide.astype(np.float16).view(np.uint16))
