"""Compiling the kernels with numba, to object code that runs without it: only ever done once per installed version.

A kernel is called with integers of 64 bits and returns one; arrays are passed as addresses. It allocates nothing and
raises nothing, so its code needs neither numba's run-time library nor Python, and that it refers to neither is checked.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import numba
from llvmlite import binding
from numba import types

from .kernel_cache import ObjectCode

F = TypeVar("F", bound=Callable[..., Any])

# numba's own annotations differ between the versions admitted here.
_njit: Any = numba.njit

# Without numba's run-time library, so that allocating is an error; without what lets Python or C call a function.
_OPTIONS: Final = {
    "boundscheck": False,
    "error_model": "numpy",
    "_nrt": False,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}

# What LLVM makes of loops that fill or copy. Every process has it; anything else would end the process that loads it.
_LIBC: Final = {"memcpy", "memmove", "memset"}
_SYMBOL: Final = struct.Struct("<IBBHQQ")  # Elf64_Sym: name, info, other, section (0: defined elsewhere), value, size


class Kernel(NamedTuple):
    """A function to be compiled, and sizes, by name, that its callers need to know."""

    function: Callable[..., int]
    sizes: Mapping[str, int]


def kernel(sizes: Mapping[str, int]) -> Callable[[Callable[..., int]], Kernel]:
    """Make a function a kernel."""
    return lambda function: Kernel(function, sizes)


def part(function: F) -> F:
    """A function that kernels call: compiled as a part of each of them, never on its own."""
    return _njit(**_OPTIONS)(function)  # type: ignore[no-any-return]


def copied_part(function: F) -> F:
    """A part that is copied into its only caller before anything is compiled: for one that calls large parts, which
    would all be optimized once more with it."""
    return _njit(inline="always", **_OPTIONS)(function)  # type: ignore[no-any-return]


def compiled(kernel: Kernel) -> Any:
    """The numba function of a kernel, for the processor that numba compiles for; Python cannot call it."""
    return _njit(types.int64(*[types.int64] * _arguments(kernel)), **_OPTIONS)(kernel.function)


def object_code(kernel: Kernel) -> ObjectCode:
    """Compile a kernel. Raises RuntimeError if its code refers to what other processes may lack."""
    (result,) = compiled(kernel).overloads.values()
    _, _, (code, _) = result.library.serialize_using_object_code()
    name = kernel.function.__name__
    foreign = _undefined_symbols(code) - _LIBC
    if foreign:
        raise RuntimeError(f"kernel {name} refers to {', '.join(sorted(foreign))}")
    return ObjectCode(name, result.fndesc.llvm_func_name, _arguments(kernel), dict(kernel.sizes), code)


def _arguments(kernel: Kernel) -> int:
    return kernel.function.__code__.co_argcount


def _undefined_symbols(code: bytes) -> set[str]:
    """The names that object code (ELF, 64 bits, little endian) refers to and does not define."""
    tables = {}
    for section in binding.ObjectFileRef.from_data(code).sections():
        if section.name() in (b".symtab", b".strtab"):
            tables[section.name()] = section.data()
    symbols, names = tables[b".symtab"], tables[b".strtab"]
    starts = {name for name, _, _, section, _, _ in _SYMBOL.iter_unpack(symbols) if name and section == 0}
    return {names[start : names.index(b"\0", start)].decode() for start in starts}
