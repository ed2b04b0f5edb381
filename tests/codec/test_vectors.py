"""The vector type of the kernels: every operation against numpy."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w8a8sc_tool.codec.kernels import address_of
from w8a8sc_tool.codec.vectors import (
    U8x64,
    U16x32,
    U32x32,
    U64x4,
    U64x8,
    VectorType,
    above,
    add_as_floats,
    choose,
    equal,
    floor_log2,
    lane,
    load,
    lower_half,
    prefetch,
    reinterpret,
    resize,
    splat,
    store,
    upper_half,
)

TYPES = {U8x64: np.uint8, U16x32: np.uint16, U64x4: np.uint64, U64x8: np.uint64}
TYPE = pytest.mark.parametrize("vector", TYPES, ids=str)


def values(vector: VectorType, seed: int = 0) -> np.ndarray:
    """Random lanes, some of them extremes, some of them those of another seed."""
    random = np.random.default_rng(seed)
    top = np.iinfo(TYPES[vector]).max
    lanes = random.integers(0, top, vector.lanes, TYPES[vector], endpoint=True)
    common = np.arange(vector.lanes, dtype=np.uint64).astype(TYPES[vector])
    lanes = np.where(random.random(vector.lanes) < 0.4, common, lanes)
    return np.where(random.random(vector.lanes) < 0.2, top, lanes).astype(TYPES[vector])


def run(kernel: Callable[..., Any], result: np.ndarray, *inputs: np.ndarray) -> np.ndarray:
    """Let a function of addresses write a vector: (target, source, source, ...)."""
    numba.njit(kernel)(address_of(result), *(address_of(array) for array in inputs))
    return result


@TYPE
def test_operators(vector: VectorType) -> None:
    """Between vectors and with an integer on the right; shifts below the width of a lane."""
    a, b, counts = values(vector, 1), values(vector, 2), values(vector, 3) % vector.bits
    step = a.nbytes

    def kernel(target, x, y, z):  # type: ignore[no-untyped-def]
        left, right, shifts = load(vector, x), load(vector, y), load(vector, z)
        store(target, left + right)
        store(target + step, left - right)
        store(target + 2 * step, left & right)
        store(target + 3 * step, left | right)
        store(target + 4 * step, left ^ right)
        store(target + 5 * step, left << shifts)
        store(target + 6 * step, left >> shifts)
        store(target + 7 * step, left + 5)
        store(target + 8 * step, left - 5)
        store(target + 9 * step, left & 5)
        store(target + 10 * step, left | 5)
        store(target + 11 * step, left ^ 5)
        store(target + 12 * step, left << 5)
        store(target + 13 * step, left >> 5)

    operations = (operator.add, operator.sub, operator.and_, operator.or_, operator.xor)
    shifts = (operator.lshift, operator.rshift)
    expected = [operation(a, b) for operation in operations] + [shift(a, counts) for shift in shifts]
    expected += [operation(a, TYPES[vector](5)) for operation in (*operations, *shifts)]
    result = run(kernel, np.empty((14, vector.lanes), a.dtype), a, b, counts)
    np.testing.assert_array_equal(result, np.stack(expected))


@TYPE
def test_an_integer_on_the_left_and_not(vector: VectorType) -> None:
    a = values(vector)

    def kernel(target, x):  # type: ignore[no-untyped-def]
        loaded = load(vector, x)
        loaded += 1
        loaded ^= 6
        store(target, (9 - ~loaded) | 1)

    lanes = (a + TYPES[vector](1)) ^ TYPES[vector](6)
    expected = (np.full_like(a, 9) - ~lanes) | TYPES[vector](1)
    np.testing.assert_array_equal(run(kernel, np.empty_like(a), a), expected)


def test_an_integer_wider_than_a_lane_is_cut() -> None:
    def kernel(target, x):  # type: ignore[no-untyped-def]
        store(target, load(U8x64, x) ^ splat(U8x64, 0x1FE))

    a = values(U8x64)
    np.testing.assert_array_equal(run(kernel, np.empty_like(a), a), a ^ 0xFE)


@TYPE
def test_bitmaps(vector: VectorType) -> None:
    a, b = values(vector, 3), values(vector, 4)
    b[: vector.lanes // 2] = a[: vector.lanes // 2]

    def kernel(target, x, y):  # type: ignore[no-untyped-def]
        left, right = load(vector, x), load(vector, y)
        store(target, choose(above(left, right), left, choose(equal(left, right), splat(vector, 7), right)))
        return equal(left, right), above(left, right)

    result = np.empty_like(a)
    same, larger = numba.njit(kernel)(address_of(result), address_of(a), address_of(b))
    assert same == sum(1 << i for i in range(vector.lanes) if a[i] == b[i])
    assert larger == sum(1 << i for i in range(vector.lanes) if a[i] > b[i])
    np.testing.assert_array_equal(result, np.where(a > b, a, np.where(a == b, 7, b)))


@TYPE
def test_a_bitmap_made_by_arithmetic_chooses(vector: VectorType) -> None:
    a, b = values(vector, 5), values(vector, 6)
    bits = 0xA5F0_3C96_1278_E4D1
    chosen = np.array([bits >> i & 1 for i in range(vector.lanes)], bool)

    def kernel(target, x, y):  # type: ignore[no-untyped-def]
        store(target, choose(np.uint64(bits), load(vector, x), load(vector, y)))

    np.testing.assert_array_equal(run(kernel, np.empty_like(a), a, b), np.where(chosen, a, b))


@TYPE
def test_halves_and_lanes(vector: VectorType) -> None:
    a = values(vector, 7)
    size = a.nbytes // 2

    def kernel(target, x):  # type: ignore[no-untyped-def]
        loaded = load(vector, x)
        store(target, upper_half(loaded))
        store(target + size, lower_half(loaded))
        return lane(loaded, 0), lane(loaded, 3)

    result = np.empty_like(a)
    lanes = numba.njit(kernel)(address_of(result), address_of(a))
    assert lanes == (a[0], a[3])
    np.testing.assert_array_equal(result, np.roll(a, vector.lanes // 2))


def test_the_same_bytes_as_wider_lanes_and_any_alignment() -> None:
    def kernel(target, x):  # type: ignore[no-untyped-def]
        prefetch(x + (1 << 40))  # a hint only: nothing needs to be there
        store(target, reinterpret(U16x32, load(U8x64, x + 1)) >> 8)

    memory = np.arange(65, dtype=np.uint8)
    expected = memory[1:].view(np.uint16) >> 8
    np.testing.assert_array_equal(run(kernel, np.empty(32, np.uint16), memory), expected)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 51).flatmap(lambda top: st.integers(1 << top, (2 << top) - 1)), min_size=4, max_size=4))
def test_logarithms(lanes: list[int]) -> None:
    numbers = np.array(lanes, np.uint64)
    result = np.empty_like(numbers)
    _log2(address_of(result), address_of(numbers))
    assert result.tolist() == [value.bit_length() - 1 for value in lanes]


@numba.njit
def _log2(target, x):  # type: ignore[no-untyped-def]
    store(target, floor_log2(load(U64x4, x)))


def test_types_are_told_apart() -> None:
    """A vector goes with its own type or an integer, not with another vector or a float."""

    def kernel(x):  # type: ignore[no-untyped-def]
        return lane(load(U64x4, x) + load(U64x8, x), 0)

    def with_float(x):  # type: ignore[no-untyped-def]
        return lane(load(U64x4, x) + 0.5, 0)

    def of_another_size(x):  # type: ignore[no-untyped-def]
        return lane(reinterpret(U64x4, load(U64x8, x)), 0)

    for wrong in (kernel, with_float, of_another_size):
        with pytest.raises(numba.TypingError):
            numba.njit(wrong)(0)


def test_resize_cuts_or_extends_lanes() -> None:
    narrow = values(U16x32)
    wide = narrow.astype(np.uint32) * 0x10003

    def kernel(target, x, y):  # type: ignore[no-untyped-def]
        store(target, resize(U32x32, load(U16x32, x)))
        store(target + 128, resize(U16x32, load(U32x32, y)))

    result = run(kernel, np.zeros(192, np.uint8), narrow, wide)
    assert np.array_equal(result[:128].view(np.uint32), narrow)
    assert np.array_equal(result[128:].view(np.uint16), wide.astype(np.uint16))


def test_bits_of_floats_are_added_as_floats() -> None:
    """Rounded to nearest even, as numpy does."""
    floats = np.random.default_rng(0).normal(0, 1e-6, 32).astype(np.float32)

    def kernel(target, x):  # type: ignore[no-untyped-def]
        store(target, add_as_floats(load(U32x32, x), 0x3F000000))

    result = run(kernel, np.zeros(32, np.uint32), floats)
    assert np.array_equal(result.view(np.float32), floats + np.float32(0.5))
