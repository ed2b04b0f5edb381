"""Linear layers of every type a directory may hold, made from the tensors of a rank file."""

# The loading rules are vLLM's: a compressed weight is shorter than its parameter and fills its front; quant_bias is
# whole on every rank, but a row-parallel layer adds it on rank 0 alone, since the ranks' results are summed. A float
# bias beside a quant_bias is loaded and not added: quant_bias contains it.

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError
from .ops import ops, placed

Kind = Literal["W16A16SC", "W8A8SC", "W8A8S", "W8A8", "W8A8_DYNAMIC", "FLOAT"]


class Linear:
    """y = x Wt with whatever scales the type has; `sum_over_ranks` says that the ranks' results have to be added."""

    def __init__(
        self, name: str, tensors: Mapping[str, Tensor], *, sum_over_ranks: bool, rank: int, device: torch.device
    ) -> None:
        """tensors: the layer's, by leaf. Raises InputError if they make no layer."""
        self.kind = _kind(name, tensors)
        parts = {leaf: tensor.to(device) for leaf, tensor in tensors.items()}
        self._weight = parts["weight"]
        self._index = parts.get("index")
        self._bias = parts.get("quant_bias")
        self._float_bias = parts.get("bias") if self._bias is None else None
        if self._bias is not None and sum_over_ranks and rank > 0:
            # The compressed product cannot do without a bias, so it is zeros rather than none.
            self._bias = torch.zeros_like(self._bias)
        if self.kind in ("W8A8SC", "W8A8S", "W8A8"):
            self._deq_scale = parts["deq_scale"]
            k = int(parts["info"][2]) if self.kind == "W8A8SC" else self._weight.shape[1]
            self._reciprocal = (1 / parts["input_scale"].half()).expand(k)
            self._offset = parts["input_offset"].half().expand(k)
        if self.kind == "W8A8_DYNAMIC":
            self._weight_scale = parts["weight_scale"].flatten()
        if self.kind == "W16A16SC":
            self._n = int(parts["info"][3])
        elif self.kind != "W8A8SC":
            self._weight = placed(self._weight, device)

    def __call__(self, x: Tensor) -> Tensor:
        """x float16 [m, k] -> float16 [m, n], this rank's share of it."""
        out: Tensor
        if self.kind == "FLOAT":
            out = ops.linear(x, self._weight)
        elif self.kind == "W16A16SC":
            out = ops.linear_compressed(x, self._weight, self._index, self._n)
        elif self.kind == "W8A8_DYNAMIC":
            out = ops.dynamic_matmul(x, self._weight, self._weight_scale)
        else:
            q = ops.quantize(x, self._reciprocal, self._offset)
            if self.kind == "W8A8SC":
                out = ops.matmul_compress_dequant(q, self._weight, self._index, self._bias, self._deq_scale)
            else:
                out = ops.quant_matmul(q, self._weight, self._bias, self._deq_scale)
        return out if self._float_bias is None else out + self._float_bias


def _kind(name: str, tensors: Mapping[str, Tensor]) -> Kind:
    leaves = set(tensors)
    if {"weight", "index", "info", "deq_scale", "quant_bias", "input_scale", "input_offset"} <= leaves:
        return "W8A8SC"
    if {"weight", "deq_scale", "quant_bias", "input_scale", "input_offset"} <= leaves:
        return "W8A8" if "weight_scale" in leaves else "W8A8S"
    if {"weight", "index", "info"} <= leaves:
        return "W16A16SC"
    if {"weight", "weight_scale"} <= leaves:
        return "W8A8_DYNAMIC"
    if leaves <= {"weight", "bias"} and "weight" in leaves and tensors["weight"].dtype == torch.float16:
        return "FLOAT"
    raise InputError(f"the tensors of {name} make no linear layer", ", ".join(sorted(leaves)))
