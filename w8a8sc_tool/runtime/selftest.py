"""The device's operators against the CPU's, on shapes at the documented limits and those of real models."""

# Runs in a process of its own: importing torch_npu may hang or crash. What the device may differ by is not documented;
# the tolerances are those of float16 results computed by other roundings: products to 0.2 % of the largest value,
# quantized values to one step, sums and functions to 1 % of the largest value.

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import msgspec
import numpy as np
import torch
from torch import Tensor

from ..codec import encode_matrix
from . import cpu, npu

# (n, k): the smallest allowed, an overlapping last tile, and layers of Qwen3-8B and 32B at TP 1 and 4.
PRODUCTS: Final = ((128, 320), (192, 512), (6144, 4096), (4096, 4096), (24576, 4096), (12800, 5120))
ROWS: Final = (1, 16, 256, 512)  # above 256 is not documented, but vLLM Ascend does it
_HEADS, _KV_HEADS, _SIZE = 32, 8, 128  # of Qwen3-8B
_HIDDEN: Final = 4096
_PRODUCT: Final = 2e-3
_FUNCTION: Final = 1e-2


class Outcome(msgspec.Struct, frozen=True):
    """One operator on one shape: the largest difference, what is allowed, and the error if it failed."""

    operator: str
    shape: str
    difference: float
    allowed: float
    error: str = ""

    @property
    def ok(self) -> bool:
        return not self.error and self.difference <= self.allowed


class SelfTest:
    """Runs on one device."""

    def __init__(self, device: str = "npu:0") -> None:
        if device.startswith("npu"):
            importlib.import_module("torch_npu")
        self._device = torch.device(device)
        self._outcomes: list[Outcome] = []

    def run(self, products: tuple[tuple[int, int], ...] = PRODUCTS, rows: tuple[int, ...] = ROWS) -> list[Outcome]:
        """Every operator on its shapes."""
        torch.manual_seed(0)
        for n, k in products:
            for m in rows:
                self._products(m, n, k)
        for m in rows:
            self._functions(m)
            self._attention(m)
        return self._outcomes

    def _products(self, m: int, n: int, k: int) -> None:
        random = np.random.default_rng(n + k)
        weight = random.choice(np.arange(-8, 8, dtype=np.int8), (n, k), p=_near_zero())
        encoded = encode_matrix(weight)
        x = torch.from_numpy(random.integers(-128, 128, (m, k)).astype(np.int8))
        bias = torch.from_numpy(random.integers(-1000, 1000, n).astype(np.int32))
        scale = random.uniform(1e-5, 1e-4, n).astype(np.float32)
        deq = torch.from_numpy(scale.view(np.int32).astype(np.int64))
        plain = torch.from_numpy(weight)
        parts = (torch.from_numpy(encoded.weight), torch.from_numpy(encoded.index))
        shape = f"m {m}, n {n}, k {k}"
        self._operator("matmul_compress_dequant", shape, _PRODUCT, x, *parts, bias, deq)
        self._lengths(shape, x, *parts, bias, deq)
        self._operator("quant_matmul", shape, _PRODUCT, x, plain, bias, deq)
        self._operator("dynamic_matmul", shape, _FUNCTION, torch.randn(m, k).half(), plain, torch.from_numpy(scale))

    def _lengths(self, shape: str, x: Tensor, weight: Tensor, index: Tensor, bias: Tensor, deq: Tensor) -> None:
        """A weight of its own length, as our plugin for vLLM allocates it, against one as vLLM Ascend does.

        The second has n k bytes, the compressed ones in front. The device's results have to be equal bit for bit.
        """
        padding = torch.full((deq.numel() * x.shape[1] - weight.numel(),), -1, dtype=torch.int8)

        def product(given: Tensor) -> Tensor:
            tensors = (tensor.to(self._device) for tensor in (x, given, index, bias, deq))
            return npu.matmul_compress_dequant(*tensors)

        padded = torch.cat([weight, padding])
        self._judge("exact and padded weight", shape, 0.0, lambda: product(padded), lambda: product(weight))

    def _functions(self, m: int) -> None:
        x, other = torch.randn(m, _HIDDEN).half(), torch.randn(m, _HIDDEN).half()
        weight = torch.full((_HIDDEN,), 16.0).half()
        shape = f"m {m}, k {_HIDDEN}"
        self._operator("quantize", shape, 1.0, x, weight, weight, relative=False)
        self._operator("linear", f"{shape}, n 512", _FUNCTION, x, torch.randn(512, _HIDDEN).half())
        self._operator("rms_norm", shape, _FUNCTION, x, weight, None, 1e-6)
        self._operator("add_rms_norm", shape, _FUNCTION, x, other, weight, weight, 1e-6)
        self._operator("swiglu", shape, _FUNCTION, x)
        query, key = torch.randn(m, _HEADS, _SIZE).half(), torch.randn(m, _KV_HEADS, _SIZE).half()
        angles = torch.randn(m, _SIZE)
        rotation = angles.cos().half(), angles.sin().half()
        self._operator("rotary", f"m {m}, heads {_HEADS} and {_KV_HEADS}", _FUNCTION, query, key, *rotation)

    def _attention(self, m: int) -> None:
        """A prompt, then more positions behind it: one, and as many again."""
        query, key = torch.randn(2 * m + 1, _HEADS, _SIZE).half(), torch.randn(2 * m + 1, _KV_HEADS, _SIZE).half()

        def sequence(operators: ModuleType, device: torch.device) -> list[Tensor]:
            cache = operators.new_cache(len(query), _KV_HEADS, _SIZE, device)
            cases = []
            for begin, end in ((0, m), (m, m + 1), (m + 1, 2 * m + 1)):
                new = [tensor[begin:end].to(device) for tensor in (query, key, key)]
                cases.append(operators.attention(*new, cache, begin, _SIZE**-0.5))
            return cases

        self._compare("attention", f"m {m}, 1, {m}, heads {_HEADS} and {_KV_HEADS}", _FUNCTION, sequence)

    def _operator(self, name: str, shape: str, allowed: float, *arguments: Any, relative: bool = True) -> None:
        def run(operators: ModuleType, device: torch.device) -> Any:
            return getattr(operators, name)(*(a.to(device) if isinstance(a, Tensor) else a for a in arguments))

        self._compare(name, shape, allowed, run, relative=relative)

    def _compare(
        self,
        name: str,
        shape: str,
        allowed: float,
        run: Callable[[ModuleType, torch.device], Any],
        *,
        relative: bool = True,
    ) -> None:
        def reference() -> Any:
            return run(cpu, torch.device("cpu"))

        self._judge(name, shape, allowed, reference, lambda: run(npu, self._device), relative=relative)

    def _judge(
        self,
        name: str,
        shape: str,
        allowed: float,
        reference: Callable[[], Any],
        result: Callable[[], Any],
        *,
        relative: bool = True,
    ) -> None:
        """Record how far a result is from its reference; an exception of the device is a result, too."""
        try:
            wanted, computed = _flat(reference()), _flat(result())
        except Exception as error:
            self._outcomes.append(Outcome(name, shape, 0.0, allowed, f"{type(error).__name__}: {str(error)[:200]}"))
            return
        difference = float((computed - wanted).abs().max())
        largest = float(wanted.abs().max()) if relative else 1.0
        # A device that returns NaN must not pass for one without a difference.
        difference = difference / max(largest, 1e-6) if np.isfinite(difference) else float("inf")
        self._outcomes.append(Outcome(name, shape, difference, allowed))


def _flat(result: Tensor | tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    parts = [result] if isinstance(result, Tensor) else result
    return torch.cat([part.detach().cpu().float().flatten() for part in parts])


def _near_zero() -> np.ndarray[Any, np.dtype[np.float64]]:
    weights = np.exp(-np.abs(np.arange(-8, 8)) / 2.5)
    return np.asarray(weights / weights.sum())
