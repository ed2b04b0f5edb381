"""Norms with a bias, which vLLM's RMSNorm does not have: only in models whose description asks for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from vllm.config import get_current_vllm_config
from vllm.model_executor.layers.layernorm import RMSNorm

from .config import W8A8SCConfig


def replace_norms() -> None:
    """Have vLLM make `Norm` wherever a model asks for RMSNorm."""
    RMSNorm.register_oot(Norm, name=RMSNorm.__name__)


class Norm(RMSNorm):
    """RMSNorm itself, unless the model being built has biases: then every norm adds one to its result."""

    _forward_method: Any

    def __init__(self, hidden_size: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(hidden_size, *args, **kwargs)
        config = get_current_vllm_config().quant_config
        if isinstance(config, W8A8SCConfig) and config.norm_bias:
            # Zeros: a checkpoint may lack the biases of some norms, a directory has all of them.
            self.bias = Parameter(torch.zeros(hidden_size, dtype=self.weight.dtype), requires_grad=False)
            self._without_bias = self._forward_method
            self._forward_method = self._with_bias

    def _with_bias(self, x: Tensor, residual: Tensor | None = None) -> Any:
        result = self._without_bias(x, residual)
        return result + self.bias if residual is None else (result[0] + self.bias, result[1])
