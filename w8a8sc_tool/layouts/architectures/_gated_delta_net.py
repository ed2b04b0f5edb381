"""Attention in Qwen3.5 and its relatives: linear (GatedDeltaNet) in most decoder layers, gated softmax in some."""

from __future__ import annotations

from ..words import (
    HEAD_DIM,
    HEADS,
    HIDDEN,
    QUERY_ROWS,
    Constant,
    Deal,
    Dealt,
    Leaf,
    Norm,
    Part,
    Row,
    Size,
    Whole,
    by_kv_heads,
    columns,
    fused,
)

# Qwen3_5TextConfig, the same in vLLM 0.18.0's and 0.23.0's copy and in transformers 5.14.1.
SIZES = {
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
}


def _size(key: str, text: str) -> Size:
    return Size(text, lambda config: config.further[f"linear_{key}"])


_KEY_HEADS = _size("num_key_heads", "{} key heads of linear attention")
_VALUE_HEADS = _size("num_value_heads", "{} value heads of linear attention")
_KEY_DIM = _size("key_head_dim", "a key head size of {}")
_VALUE_DIM = _size("value_head_dim", "a value head size of {}")
_KERNEL = _size("conv_kernel_dim", "a convolution of {}")
_KEYS = Size("{} key rows of linear attention", lambda config: _KEY_HEADS.of(config) * _KEY_DIM.of(config))
_VALUES = Size("{} value rows of linear attention", lambda config: _VALUE_HEADS.of(config) * _VALUE_DIM.of(config))
_ONE = Size("{}", lambda config: 1)
_GATED_QUERY_ROWS = Size("{} query and gate rows", lambda config: 2 * QUERY_ROWS.of(config))

# Queries, keys and values lie one below the other, in the projection and in the convolution behind it.
_QKV = (Deal(_KEYS, _KEY_HEADS), Deal(_KEYS, _KEY_HEADS), Deal(_VALUES, _VALUE_HEADS))
_PER_VALUE = (Deal(_VALUES, _VALUE_HEADS),)
_PER_VALUE_HEAD = (Deal(_VALUE_HEADS, _VALUE_HEADS),)

INPUT_NORM = Norm("input_layernorm", HIDDEN, gemma=True)
POST_NORM = Norm("post_attention_layernorm", HIDDEN, gemma=True)

LINEAR_ATTENTION: tuple[Row, ...] = (
    INPUT_NORM,
    fused("linear_attn.in_proj_qkvz", (Part("in_proj_qkv", _QKV), Part("in_proj_z", _PER_VALUE)), k=HIDDEN),
    fused("linear_attn.in_proj_ba", (Part("in_proj_b", _PER_VALUE_HEAD), Part("in_proj_a", _PER_VALUE_HEAD)), k=HIDDEN),
    Dealt("linear_attn.conv1d", (Leaf("weight", _QKV, (_ONE, _KERNEL)),)),
    # vLLM 0.18 makes A_log in the model's dtype, 0.23 in float32.
    Dealt("linear_attn", (Leaf("A_log", _PER_VALUE_HEAD, float32_from="0.23"), Leaf("dt_bias", _PER_VALUE_HEAD))),
    Whole("linear_attn.norm", (("weight", (_VALUE_DIM,)),)),
    columns("linear_attn.out_proj", n=HIDDEN, k=_VALUES, dealt=_VALUE_HEADS),
    POST_NORM,
)

# Of every head, q_proj has the rows of the query and then those of its gate: dealt by heads they stay together.
GATED_ATTENTION: tuple[Row, ...] = (
    INPUT_NORM,
    fused(
        "self_attn.qkv_proj",
        (Part("q_proj", (Deal(_GATED_QUERY_ROWS, HEADS),)), by_kv_heads("k_proj"), by_kv_heads("v_proj")),
        k=HIDDEN,
    ),
    Norm("self_attn.q_norm", HEAD_DIM, gemma=True),
    Norm("self_attn.k_norm", HEAD_DIM, gemma=True),
    Constant("self_attn.attn", ("_q_scale", "_k_scale", "_v_scale", "_prob_scale")),
    columns("self_attn.o_proj", n=HIDDEN, k=QUERY_ROWS, dealt=HEADS),
    POST_NORM,
)
