"""The runtime's operators with what torch.compile needs: the form of their results."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import register_fake

from ...runtime.ops import ops

__all__ = ["ops"]


@register_fake("w8a8sc::quantize")  # type: ignore[untyped-decorator]
def _quantize(x: Tensor, reciprocal: Tensor, offset: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=torch.int8)


@register_fake("w8a8sc::quant_matmul")  # type: ignore[untyped-decorator]
def _quant_matmul(x: Tensor, weight: Tensor, bias: Tensor | None, deq_scale: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0]), dtype=torch.float16)


@register_fake("w8a8sc::dynamic_matmul")  # type: ignore[untyped-decorator]
def _dynamic_matmul(x: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0]))


@register_fake("w8a8sc::linear")  # type: ignore[untyped-decorator]
def _linear(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0]))
