"""Unaligned loads and stores, bit searches and arrays on the stack for the kernels, which numba cannot express.

Addresses are plain integers: a kernel that takes an address accepts a read-only, memory-mapped or strided array without
being compiled a second time for it. Both operations are ordinary LLVM instructions with alignment 1, so they work on
every architecture; the format is little endian, and so must the machine be.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("the codec needs a little-endian machine")

_U64 = ir.IntType(64)
_U32 = ir.IntType(32)
_U16 = ir.IntType(16)
_U8 = ir.IntType(8)
_STACK_ALIGNMENT = 64  # bytes: of a cache line


@intrinsic
def load64(typing_context: Any, address: Any) -> Any:
    """The 8 bytes at `address` (int64) as a uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _U64.as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(types.int64), generate


@intrinsic
def load8(typing_context: Any, address: Any) -> Any:
    """The byte at `address` (int64) as an int64, 0 to 255."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _U8.as_pointer())
        return builder.zext(builder.load(pointer, align=1), _U64)

    return types.int64(types.int64), generate


@intrinsic
def load32(typing_context: Any, address: Any) -> Any:
    """The 4 bytes at `address` (int64) as an int64, 0 to 2**32 - 1."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _U32.as_pointer())
        return builder.zext(builder.load(pointer, align=1), _U64)

    return types.int64(types.int64), generate


@intrinsic
def load16(typing_context: Any, address: Any) -> Any:
    """The 2 bytes at `address` (int64) as an int64, 0 to 2**16 - 1."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _U16.as_pointer())
        return builder.zext(builder.load(pointer, align=1), _U64)

    return types.int64(types.int64), generate


@intrinsic
def store64(typing_context: Any, address: Any, value: Any) -> Any:
    """Write `value` (uint64) to the 8 bytes at `address` (int64)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _U64.as_pointer())
        builder.store(arguments[1], pointer, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint64), generate


@intrinsic
def store8(typing_context: Any, address: Any, value: Any) -> Any:
    """Write the low 8 bits of `value` (int64) to `address` (int64)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _U8.as_pointer())
        builder.store(builder.trunc(arguments[1], _U8), pointer, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def store32(typing_context: Any, address: Any, value: Any) -> Any:
    """Write the low 32 bits of `value` (int64) to the 4 bytes at `address` (int64)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _U32.as_pointer())
        builder.store(builder.trunc(arguments[1], _U32), pointer, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def store16(typing_context: Any, address: Any, value: Any) -> Any:
    """Write the low 16 bits of `value` (int64) to the 2 bytes at `address` (int64)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _U16.as_pointer())
        builder.store(builder.trunc(arguments[1], _U16), pointer, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def highest_bit(typing_context: Any, word: Any) -> Any:
    """The position of the highest 1 in `word` (uint64, not 0) as an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zeros = builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))
        return builder.sub(ir.Constant(_U64, 63), zeros)

    return types.int64(types.uint64), generate


@intrinsic
def lowest_bit(typing_context: Any, word: Any) -> Any:
    """The position of the lowest 1 in `word` (uint64) as an int64, 64 if there is none."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def bits_set(typing_context: Any, word: Any) -> Any:
    """How many bits of `word` (uint64) are 1, as an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


def stack_array(element: Any, *shape: int) -> Any:
    """What a kernel calls for an array of a numba type and shape on its stack, with any content: it has no other memory
    than that and its arguments."""
    array = types.Array(element, len(shape), "C")

    @intrinsic
    def allocate(typing_context: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            memory = ir.ArrayType(context.get_data_type(element), math.prod(shape))
            pointer = cgutils.alloca_once(builder, memory)
            pointer.align = _STACK_ALIGNMENT
            return _array(context, builder, array, shape, pointer)

        return array(), generate

    return allocate


def array_at(element: Any, *shape: int) -> Any:
    """What a kernel calls for the array of a numba type and shape at an address (int64), aligned to its elements."""
    array = types.Array(element, len(shape), "C")

    @intrinsic
    def view(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], context.get_data_type(element).as_pointer())
            return _array(context, builder, array, shape, pointer)

        return array(types.int64), generate

    return view


def _array(context: Any, builder: Any, array: Any, shape: tuple[int, ...], pointer: Any) -> Any:
    """The value of a contiguous array whose elements are at `pointer`."""
    size = context.get_abi_sizeof(context.get_data_type(array.dtype))
    strides = [size * math.prod(shape[dimension + 1 :]) for dimension in range(len(shape))]
    value = make_array(array)(context, builder)
    populate_array(
        value,
        data=builder.bitcast(pointer, context.get_data_type(array.dtype).as_pointer()),
        shape=[context.get_constant(types.intp, extent) for extent in shape],
        strides=[context.get_constant(types.intp, stride) for stride in strides],
        itemsize=context.get_constant(types.intp, size),
        meminfo=None,
    )
    return value._getvalue()
