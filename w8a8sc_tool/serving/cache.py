"""What vLLM keeps of sequences on 310P: keys and values of every token, and states of linear attention."""

# Models with states: vLLM's KV cache groups (v1/core/kv_cache_utils.py) and vLLM Ascend 0.23's page sizes and
# allocation on 310P (patch_mamba_config_310.py, _310p/model_runner_310p.py).

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..checkpoint import ModelConfig

BLOCK: Final = 128  # tokens per block of the KV cache; with states, a multiple of it
_FLOAT16: Final = 2  # bytes; of states as well: 310P's kernels take no other


@dataclass(frozen=True)
class Cache:
    """The cache of one rank.

    per_token: bytes of keys and values in all layers. block: tokens per block. state_blocks: blocks that a sequence's
    states take at any length; state: their bytes in use. allocations: how many times vLLM Ascend allocates the cache.
    width: values that a token has inside the widest attention layer.
    """

    per_token: int
    block: int
    state_blocks: int
    state: int
    allocations: int
    width: int


def cache_of(config: ModelConfig, tp: int) -> Cache:
    """The cache of a model at a tensor-parallel size."""
    heads, kv_heads = config.heads // tp, max(1, config.kv_heads // tp)
    of_layer = 2 * kv_heads * config.head_dim * _FLOAT16
    linear = config.linear_layers
    full = config.layers - linear
    if not linear:
        return Cache(full * of_layer, BLOCK, 0, 0, 1, (heads + 2 * kv_heads) * config.head_dim)
    key_heads, value_heads, key_dim, value_dim, kernel = (
        config.further[f"linear_{key}"]
        for key in ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim", "conv_kernel_dim")
    )
    keys, values = key_heads * key_dim // tp, value_heads * value_dim // tp
    state = ((2 * keys + values) * (kernel - 1) + values * key_dim) * _FLOAT16
    # A block of keys and values is at least as large as the states of a layer, which take a block each.
    block = BLOCK * -(-state // (BLOCK * of_layer))
    group = _layers_in_a_group(full, linear)
    return Cache(
        per_token=max(1, -(-full // group)) * group * of_layer,
        block=block,
        state_blocks=-(-linear // group),
        state=linear * state,
        allocations=2,  # for states, and for keys and values, each as large as the cache
        width=max((2 * heads + 2 * kv_heads) * config.head_dim, 2 * keys + 2 * values),
    )


def _layers_in_a_group(full: int, linear: int) -> int:
    """Layers that share blocks, in groups of one kind and of equal size."""
    fewer, more = sorted((full, linear))
    return more if more < fewer * 1.5 or not fewer else fewer
