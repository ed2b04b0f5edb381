"""A dense decoder on one rank, Llama's, Qwen2's or Qwen3's, or Qwen3-VL's for text: prefill and a KV cache."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...checkpoint import ModelConfig
from ...errors import InputError
from ...layouts import architecture_of
from ..directory import check_runnable
from ..group import Alone, Group
from ..linear import Linear
from ..ops import new_cache, ops, placed
from ..rotation import rotations


class Weights:
    """A rank's tensors by module, on a device."""

    def __init__(self, state: Mapping[str, Tensor], group: Group, device: torch.device, eps: float) -> None:
        self._modules: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            module, _, leaf = name.rpartition(".")
            self._modules.setdefault(module, {})[leaf] = tensor
        self._group = group
        self.device = device
        self._eps = eps

    def has(self, module: str) -> bool:
        return module in self._modules

    def tensor(self, module: str, leaf: str = "weight") -> Tensor:
        """Raises InputError if the rank has no such tensor."""
        stored = self._modules.get(module, {}).get(leaf)
        if stored is None:
            raise InputError(f"{module}.{leaf} is missing", remedy="see w8a8sc verify")
        return stored.to(self.device)

    def linear(self, module: str, *, sum_over_ranks: bool = False) -> Linear:
        self.tensor(module)
        tensors, rank = self._modules[module], self._group.rank
        return Linear(module, tensors, sum_over_ranks=sum_over_ranks, rank=rank, device=self.device)

    def norm(self, module: str) -> RMSNorm:
        bias = self.tensor(module, "bias") if "bias" in self._modules.get(module, {}) else None
        return RMSNorm(self.tensor(module), bias, self._eps)


class RMSNorm:
    """An RMSNorm with or without a bias."""

    def __init__(self, weight: Tensor, bias: Tensor | None, eps: float) -> None:
        self._weight, self._bias, self._eps = weight, bias, eps

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = ops.rms_norm(x, self._weight, self._bias, self._eps)
        return out

    def after(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """The norm of x + residual, and that sum."""
        out, total = ops.add_rms_norm(x, residual, self._weight, self._bias, self._eps)
        return out, total


class Layer:
    """One decoder layer with its part of the KV cache."""

    def __init__(self, config: ModelConfig, weights: Weights, group: Group, prefix: str, room: int) -> None:
        attention = f"{prefix}self_attn."
        self._group = group
        self._heads = config.heads // group.size
        self._kv_heads = max(1, config.kv_heads // group.size)
        self._size = config.head_dim
        self._input_norm = weights.norm(f"{prefix}input_layernorm")
        self._qkv = weights.linear(f"{attention}qkv_proj")
        self._head_norms = None
        if "self_attn.q_norm" in architecture_of(config).layer_names:
            self._head_norms = weights.norm(f"{attention}q_norm"), weights.norm(f"{attention}k_norm")
        self._o = weights.linear(f"{attention}o_proj", sum_over_ranks=True)
        self._post_norm = weights.norm(f"{prefix}post_attention_layernorm")
        self._gate_up = weights.linear(f"{prefix}mlp.gate_up_proj")
        self._down = weights.linear(f"{prefix}mlp.down_proj", sum_over_ranks=True)
        self._cache = new_cache(room, self._kv_heads, self._size, weights.device)

    def __call__(
        self, x: Tensor, residual: Tensor | None, start: int, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x float16 [m, hidden] at positions start, ..., to be added to residual: what comes out, likewise."""
        if residual is None:
            normed, residual = self._input_norm(x), x
        else:
            normed, residual = self._input_norm.after(x, residual)
        x = self._group.sum(self._o(self._attend(self._qkv(normed), start, cos, sin)))
        normed, residual = self._post_norm.after(x, residual)
        return self._group.sum(self._down(ops.swiglu(self._gate_up(normed)))), residual

    def _attend(self, qkv: Tensor, start: int, cos: Tensor, sin: Tensor) -> Tensor:
        sizes = [self._heads * self._size, self._kv_heads * self._size, self._kv_heads * self._size]
        q, k, v = (part.reshape(len(qkv), -1, self._size) for part in qkv.split(sizes, dim=-1))
        if self._head_norms is not None:
            q, k = self._head_norms[0](q), self._head_norms[1](k)
        query, key = ops.rotary(q, k, cos, sin)
        out: Tensor = ops.attention(query, key, v, self._cache, start, self._size**-0.5)
        return out


class Model:
    """A rank's part of a model, for one sequence at a time."""

    def __init__(
        self,
        config: ModelConfig,
        state: Mapping[str, Tensor],
        group: Group | None = None,
        *,
        room: int = 4096,
        device: torch.device | None = None,
    ) -> None:
        """state: the rank's tensors as a sharded_state directory names them; room: the longest sequence, in tokens.

        Raises InputError if a tensor is missing or config.json asks for something that is not here.
        """
        check_runnable(config)
        self._group = group or Alone()
        self.room = room
        weights = Weights(state, self._group, device or torch.device("cpu"), config.norm_eps)
        table = architecture_of(config)
        model, head = table.layers.rpartition(".")[0], table.behind[-1].name
        tied = not weights.has(f"{model}.embed_tokens")
        self._embedding = weights.tensor(head if tied else f"{model}.embed_tokens")
        self._head = placed(weights.tensor(head), weights.device)
        self._vocabulary = config.vocabulary
        self._layers = [
            Layer(config, weights, self._group, f"{table.layers}.{number}.", room) for number in range(config.layers)
        ]
        self._norm = weights.norm(f"{model}.norm")
        self._cos, self._sin = rotations(config.rope, config.head_dim, room, weights.device)
        self.length = 0

    def reset(self) -> None:
        """Forget the sequence."""
        self.length = 0

    def forward(self, tokens: Tensor, *, last: bool = False) -> Tensor:
        """Append tokens (int64 [m]) to the sequence; float16 logits [m, vocabulary], the same on every rank.

        last: only those of the last token, [1, vocabulary].
        """
        start, end = self.length, self.length + len(tokens)
        if end > self.room:
            raise InputError(f"a sequence of {end} tokens is longer than the {self.room} there is room for")
        cos, sin = self._cos[start:end], self._sin[start:end]
        x, residual = self._group.sum(self._embed(tokens)), None
        for layer in self._layers:
            x, residual = layer(x, residual, start, cos, sin)
        self.length = end
        if last:
            x, residual = x[-1:], None if residual is None else residual[-1:]
        normed = self._norm(x) if residual is None else self._norm.after(x, residual)[0]
        logits: Tensor = ops.linear(normed, self._head)
        return self._group.join(logits)[:, : self._vocabulary]

    def _embed(self, tokens: Tensor) -> Tensor:
        """Rows of the embedding that this rank has, zeros for the others."""
        rows = len(self._embedding)
        local = tokens.to(self._embedding.device) - self._group.rank * rows
        mine = (local >= 0) & (local < rows)
        return self._embedding[local.clamp(0, rows - 1)] * mine.unsqueeze(1)
