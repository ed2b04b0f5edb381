"""Vectors of unsigned integers for the kernels: a numba type with operators.

A vector type has a number of lanes of so many bits, as `U8x64`; in a kernel, `load(U8x64, address)` makes a vector and
`(a << b) & 31` works lane by lane, where an integer stands for a vector with that value in every lane. Arithmetic wraps
around; a shift by as many bits as a lane has, or more, gives no defined value. Everything becomes ordinary LLVM
instructions on vectors, which exist for every processor: LLVM cuts a vector that is wider than the registers. Nothing
outside of compiled code can hold a vector.
"""

from __future__ import annotations

import operator
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, overload, register_model

_U1: Final = ir.IntType(1)
_U8: Final = ir.IntType(8)
_U32: Final = ir.IntType(32)
_U64: Final = ir.IntType(64)


class VectorType(types.Type):
    """`lanes` unsigned integers of `bits` bits each."""

    def __init__(self, bits: int, lanes: int) -> None:
        self.bits = bits
        self.lanes = lanes
        super().__init__(name=f"U{bits}x{lanes}")

    def llvm(self) -> ir.VectorType:
        return ir.VectorType(ir.IntType(self.bits), self.lanes)


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector_type: VectorType) -> None:
        super().__init__(manager, vector_type, vector_type.llvm())


U8x64: Final = VectorType(8, 64)
U16x32: Final = VectorType(16, 32)
U32x32: Final = VectorType(32, 32)
U64x4: Final = VectorType(64, 4)
U64x8: Final = VectorType(64, 8)


def _has_truth_registers() -> bool:
    """Whether the processor that numba compiles for has registers for a truth value per byte of a vector (AVX-512)."""
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    return "+avx512bw" in features.split(",")


def _in_every_lane(builder: Any, value: Any, vector: ir.VectorType) -> Any:
    """An LLVM integer of any width in every lane of a vector, cut or extended with zeros to the lane's width."""
    if value.type.width > vector.element.width:
        value = builder.trunc(value, vector.element)
    elif value.type.width < vector.element.width:
        value = builder.zext(value, vector.element)
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_U32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_U32, vector.count), [0] * vector.count))


def _lanes(builder: Any, vector: Any, first: int, count: int) -> Any:
    """`count` lanes of a vector from lane `first` on."""
    numbers = ir.Constant(ir.VectorType(_U32, count), [first + number for number in range(count)])
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), numbers)


def _to_bitmap(builder: Any, truth: Any) -> Any:
    """Truth values of up to 64 lanes as the bits of an integer, lane 0's lowest."""
    bits = builder.bitcast(truth, ir.IntType(truth.type.count))
    return bits if truth.type.count == 64 else builder.zext(bits, _U64)


def _truths(builder: Any, bitmap: Any, lanes: int) -> Any:
    """The lowest bits of a bitmap (64 bits) as truth values of up to 64 lanes."""
    if lanes < 64 or _has_truth_registers():
        bits = bitmap if lanes == 64 else builder.trunc(bitmap, ir.IntType(lanes))
        return builder.bitcast(bits, ir.VectorType(_U1, lanes))
    # LLVM would move these 64 bits into a vector one by one. Instead, every lane gets the byte that its bit is in.
    octets = builder.bitcast(bitmap, ir.VectorType(_U8, 8))
    numbers = ir.Constant(ir.VectorType(_U32, lanes), [number // 8 for number in range(lanes)])
    spread = builder.shuffle_vector(octets, ir.Constant(octets.type, ir.Undefined), numbers)
    bits = ir.Constant(ir.VectorType(_U8, lanes), [1 << number % 8 for number in range(lanes)])
    return builder.icmp_unsigned("==", builder.and_(spread, bits), bits)


@intrinsic
def load(typing_context: Any, vector: Any, address: Any) -> Any:
    """The vector of this type at `address` (int64, any alignment)."""
    result = vector.instance_type

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[1], result.llvm().as_pointer()), align=1)

    return result(vector, types.int64), generate


@intrinsic
def store(typing_context: Any, address: Any, vector: Any) -> Any:
    """Write a vector to `address` (int64, any alignment)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], arguments[1].type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, vector), generate


@intrinsic
def splat(typing_context: Any, vector: Any, value: Any) -> Any:
    """A vector of this type with `value` (an integer, of which the low bits count) in every lane."""
    result = vector.instance_type

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _in_every_lane(builder, arguments[1], result.llvm())

    return result(vector, value), generate


@intrinsic
def lane(typing_context: Any, vector: Any, number: Any) -> Any:
    """Lane `number` (below the number of lanes) of a vector, as a uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.extract_element(arguments[0], builder.trunc(arguments[1], _U32))
        return value if vector.bits == 64 else builder.zext(value, _U64)

    return types.uint64(vector, types.int64), generate


@intrinsic
def lane_numbers(typing_context: Any, vector: Any) -> Any:
    """A vector of this type whose lanes hold their own numbers: 0, 1, 2, ..."""
    result = vector.instance_type

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(result.llvm(), list(range(result.lanes)))

    return result(vector), generate


@intrinsic
def sum_of_lanes(typing_context: Any, vector: Any) -> Any:
    """The sum of a vector's lanes, modulo 2 to the power of a lane's bits, as a uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result = ir.IntType(vector.bits)
        name = f"llvm.vector.reduce.add.v{vector.lanes}i{vector.bits}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [vector.llvm()]), name)
        value = builder.call(function, arguments)
        return value if vector.bits == 64 else builder.zext(value, _U64)

    return types.uint64(vector), generate


@intrinsic
def equal(typing_context: Any, a: Any, b: Any) -> Any:
    """Where two vectors are equal: a bitmap (uint64) with a bit per lane, lane 0's lowest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _to_bitmap(builder, builder.icmp_unsigned("==", *arguments))

    return types.uint64(a, a), generate


@intrinsic
def above(typing_context: Any, a: Any, b: Any) -> Any:
    """Where the lanes of a are larger than those of b: a bitmap (uint64) as of `equal`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _to_bitmap(builder, builder.icmp_unsigned(">", *arguments))

    return types.uint64(a, a), generate


@intrinsic
def choose(typing_context: Any, bitmap: Any, yes: Any, no: Any) -> Any:
    """The lanes of `yes` where the bitmap (uint64) has a 1, those of `no` elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(_truths(builder, arguments[0], yes.lanes), arguments[1], arguments[2])

    return yes(types.uint64, yes, yes), generate


@intrinsic
def reinterpret(typing_context: Any, to: Any, vector: Any) -> Any:
    """The same bytes as a vector of another type of the same size."""
    result = to.instance_type
    if result.bits * result.lanes != vector.bits * vector.lanes:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[1], result.llvm())

    return result(to, vector), generate


@intrinsic
def resize(typing_context: Any, to: Any, vector: Any) -> Any:
    """The same lanes as a vector of another type: cut to fewer bits, or extended with zeros."""
    result = to.instance_type
    if result.lanes != vector.lanes:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        change = builder.trunc if result.bits < vector.bits else builder.zext
        return change(arguments[1], result.llvm())

    return result(to, vector), generate


@intrinsic
def add_as_floats(typing_context: Any, vector: Any, number: Any) -> Any:
    """The bits of float32 values, each plus the one whose bits `number` (an integer) is, rounded to nearest even."""
    if vector.bits != 32:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        floats = ir.VectorType(ir.FloatType(), vector.lanes)
        other = _in_every_lane(builder, arguments[1], vector.llvm())
        total = builder.fadd(builder.bitcast(arguments[0], floats), builder.bitcast(other, floats))
        return builder.bitcast(total, vector.llvm())

    return vector(vector, number), generate


@intrinsic
def lower_half(typing_context: Any, vector: Any) -> Any:
    """The first half of a vector's lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _lanes(builder, arguments[0], 0, vector.lanes // 2)

    return VectorType(vector.bits, vector.lanes // 2)(vector), generate


@intrinsic
def upper_half(typing_context: Any, vector: Any) -> Any:
    """The second half of a vector's lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _lanes(builder, arguments[0], vector.lanes // 2, vector.lanes // 2)

    return VectorType(vector.bits, vector.lanes // 2)(vector), generate


@intrinsic
def floor_log2(typing_context: Any, vector: Any) -> Any:
    """The position of the highest 1 in every 64-bit lane; a lane must be below 2**52, and 0 gives 0xFFF...FC01.

    By way of the exponent of a double, because few processors count leading zeros in lanes: 2**52 + x, minus 2**52, is
    x exactly, as IEEE 754 has 52 bits of fraction and an exponent that exceeds the logarithm by 1023.
    """
    if vector.bits != 64:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        doubles = ir.VectorType(ir.DoubleType(), vector.lanes)
        to_52 = ir.Constant(vector.llvm(), [0x433 << 52] * vector.lanes)  # 2.0**52 as a double
        above_52 = builder.bitcast(builder.or_(arguments[0], to_52), doubles)
        exact = builder.fsub(above_52, ir.Constant(doubles, [2.0**52] * vector.lanes))
        exponent = builder.lshr(builder.bitcast(exact, vector.llvm()), ir.Constant(vector.llvm(), [52] * vector.lanes))
        return builder.sub(exponent, ir.Constant(vector.llvm(), [1023] * vector.lanes))

    return vector(vector), generate


def _prefetch(to_write: bool) -> Any:
    @intrinsic
    def prefetch(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = _U8.as_pointer()
            function_type = ir.FunctionType(ir.VoidType(), [pointer, _U32, _U32, _U32])
            function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], function_type)
            write, keep, data = (ir.Constant(_U32, value) for value in (int(to_write), 3, 1))
            builder.call(function, [builder.inttoptr(arguments[0], pointer), write, keep, data])
            return context.get_dummy_value()

        return types.void(types.int64), generate

    return prefetch


# Ask the processor to fetch the cache line at an address (int64) for reading or for writing; any address will do.
prefetch, prefetch_for_writing = _prefetch(False), _prefetch(True)


def _like(builder: Any, signature: Any, values: Any) -> tuple[Any, Any]:
    """Two operands as vectors: one of them may be an integer."""
    a, b = values
    if not isinstance(signature.args[0], VectorType):
        return _in_every_lane(builder, a, b.type), b
    if not isinstance(signature.args[1], VectorType):
        return a, _in_every_lane(builder, b, a.type)
    return a, b


def _add_operator(operation: Any, instruction: str) -> None:
    """Let kernels use a Python operator on two vectors, or on a vector and an integer."""

    @intrinsic
    def apply(typing_context: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*_like(builder, signature, arguments))

        return (a if isinstance(a, VectorType) else b)(a, b), generate

    @overload(operation)
    def operate(a, b):  # numba compares these names, without annotations, with those of what is returned
        vectors = [operand for operand in (a, b) if isinstance(operand, VectorType)]
        if not vectors or not all(operand == vectors[0] or isinstance(operand, types.Integer) for operand in (a, b)):
            return None
        return lambda a, b: apply(a, b)  # noqa: PLW0108


for _operators, _instruction in (
    ((operator.add, operator.iadd), "add"),
    ((operator.sub, operator.isub), "sub"),
    ((operator.and_, operator.iand), "and_"),
    ((operator.or_, operator.ior), "or_"),
    ((operator.xor, operator.ixor), "xor"),
    ((operator.lshift, operator.ilshift), "shl"),
    ((operator.rshift, operator.irshift), "lshr"),
):
    for _operator in _operators:
        _add_operator(_operator, _instruction)


@overload(operator.invert)
def _invert(a):
    if not isinstance(a, VectorType):
        return None
    return lambda a: a ^ -1
