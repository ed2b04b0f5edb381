"""The device's operators against the CPU's, on shapes at the documented limits and those of real models."""

# Runs in a process of its own: importing torch_npu may hang or crash. What the device may differ by is not documented;
# the tolerances are those of float16 results computed by other roundings: products and quantized values to 1 step,
# sums and functions to 1 % of the largest value.

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import torch

from ..codec import encode_matrix
from . import cpu, npu

# (n, k): the smallest allowed, an overlapping last tile, and layers of Qwen3-8B and 32B at TP 1 and 4.
PRODUCTS = ((128, 320), (192, 512), (6144, 4096), (4096, 4096), (24576, 4096), (12800, 5120))
ROWS = (1, 16, 256, 512)  # above 256 is not documented, but vLLM Ascend does it


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
            self._others(m)
        return self._outcomes

    def _products(self, m: int, n: int, k: int) -> None:
        random = np.random.default_rng(n + k)
        weight = random.choice(np.arange(-8, 8, dtype=np.int8), (n, k), p=_near_zero())
        encoded = encode_matrix(weight)
        x = torch.from_numpy(random.integers(-128, 128, (m, k)).astype(np.int8))
        bias = torch.from_numpy(random.integers(-1000, 1000, n).astype(np.int32))
        scale = random.uniform(1e-5, 1e-4, n).astype(np.float32)
        deq = torch.from_numpy(scale.view(np.int32).astype(np.int64))
        shape = f"m {m}, n {n}, k {k}"
        parts = (torch.from_numpy(encoded.weight), torch.from_numpy(encoded.index))
        self._compare("matmul_compress_dequant", shape, 2e-3, x, *parts, bias, deq)
        self._compare("quant_matmul", shape, 2e-3, x, torch.from_numpy(weight), bias, deq)

    def _others(self, m: int) -> None:
        x = torch.randn(m, 4096).half()
        ones = torch.full((4096,), 16.0).half()
        self._compare("quantize", f"m {m}, k 4096", 1.0, x, ones, ones, relative=False)
        self._compare("rms_norm", f"m {m}, h 4096", 1e-2, x, ones, None, 1e-6)
        self._compare("swiglu", f"m {m}, h 2048", 1e-2, x)
        query, keys = torch.randn(m, 32, 128).half(), torch.randn(m, 8, 128).half()
        self._compare("rotary", f"m {m}, heads 32", 1e-2, query, torch.randn(m, 128).half(), torch.randn(m, 128).half())
        self._compare("attention", f"m {m}, heads 32 / 8", 1e-2, query, keys, keys, 128**-0.5)

    def _compare(self, name: str, shape: str, allowed: float, *arguments: Any, relative: bool = True) -> None:
        wanted = getattr(cpu, name)(*arguments).float()
        try:
            placed = [a.to(self._device) if isinstance(a, torch.Tensor) else a for a in arguments]
            operator: Callable[..., torch.Tensor] = getattr(npu, name)
            found = operator(*placed).cpu().float()
            difference = float((found - wanted).abs().max())
        except Exception as error:
            self._outcomes.append(Outcome(name, shape, 0.0, allowed, f"{type(error).__name__}: {str(error)[:200]}"))
            return
        largest = float(wanted.abs().max()) if relative else 1.0
        self._outcomes.append(Outcome(name, shape, difference / max(largest, 1e-6), allowed))


def _near_zero() -> np.ndarray[Any, np.dtype[np.float64]]:
    weights = np.exp(-np.abs(np.arange(-8, 8)) / 2.5)
    return np.asarray(weights / weights.sum())
