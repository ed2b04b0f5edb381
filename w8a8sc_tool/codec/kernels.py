"""The kernels as the codec calls them: object code, loaded by llvmlite alone; compiled before if they are not kept."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from . import kernel_cache
from .kernel_cache import ObjectCode

_LOG: Final = logging.getLogger(__name__)
_LOCK: Final = threading.Lock()


class Kernel:
    """A function of integers that releases the interpreter's lock; sizes: by name, what its callers need to know."""

    def __init__(self, code: ObjectCode, address: int) -> None:
        self.name = code.name
        self.sizes = code.sizes
        # numba's convention: a status, 0 if nothing was raised; where the result goes, and what was raised; arguments.
        pointers, integers = [ctypes.c_void_p] * 2, [ctypes.c_int64] * code.arguments
        self._function = ctypes.CFUNCTYPE(ctypes.c_int32, *pointers, *integers)(address)

    def __call__(self, *arguments: int) -> int:
        result, raised = ctypes.c_int64(), ctypes.c_void_p()
        status = self._function(ctypes.byref(result), ctypes.byref(raised), *arguments)
        if status:
            raise RuntimeError(f"kernel {self.name} ended with status {status}")
        return result.value


@dataclass(frozen=True)
class Kernels:
    """All of them."""

    encode_tiles: Kernel
    count_tiles: Kernel
    rank_counts: Kernel
    decode_tiles: Kernel
    bfloat16_to_float16: Kernel
    _memory: Any  # as of `in_memory`


_loaded: Kernels | None = None


def load() -> Kernels:
    """The kernels: from the folder that keeps them, or else compiled now; only the first call does anything.

    Says that it compiles, as that takes half a minute. Processes that are started afterwards find the kernels.
    """
    global _loaded  # noqa: PLW0603
    if _loaded is None:
        with _LOCK:
            if _loaded is None:
                _loaded = _all_of(kernel_cache.read() or _compile())
    return _loaded


def load_kept() -> bool:
    """Load the kernels if that takes no compiling; returns whether they are loaded."""
    global _loaded  # noqa: PLW0603
    with _LOCK:
        if _loaded is None:
            code = kernel_cache.read()
            if code is not None:
                _loaded = _all_of(code)
    return _loaded is not None


def address_of(array: Any) -> int:
    """Where a numpy array's first element lies. The caller keeps the array alive and its layout in mind."""
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


def _compile() -> list[ObjectCode]:
    folder = kernel_cache.writable_folder()
    _announce(folder)
    from .decode import decode_tiles
    from .encode import count_tiles, encode_tiles, rank_counts
    from .float16_vectors import bfloat16_to_float16
    from .jit import object_code

    kernels = encode_tiles, count_tiles, rank_counts, decode_tiles, bfloat16_to_float16
    code = [object_code(kernel) for kernel in kernels]
    if folder is not None:
        kernel_cache.write(code, folder)
    return code


def _announce(folder: Path | None) -> None:
    """One line for whoever wonders why the first start takes long; who uses the codec decides where it goes.

    A warning, which Python prints on standard error where nobody has set up logging.
    """
    if folder is None:
        _LOG.warning("compiling kernels (no folder to keep them can be written) ...")
    else:
        _LOG.warning("compiling kernels, once for this version, into %s ...", folder)


def _all_of(code: Sequence[ObjectCode]) -> Kernels:
    kernels, memory = in_memory(code)
    return Kernels(**{kernel.name: kernel for kernel in kernels}, _memory=memory)


def in_memory(code: Sequence[ObjectCode]) -> tuple[list[Kernel], Any]:
    """Have LLVM put kernels into memory and resolve their references; returns them, and what holds that memory."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_triple(binding.get_process_triple()).create_target_machine()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    for each in code:
        engine.add_object_file(binding.ObjectFileRef.from_data(each.code))
    engine.finalize_object()
    return [Kernel(each, engine.get_function_address(each.symbol)) for each in code], engine
