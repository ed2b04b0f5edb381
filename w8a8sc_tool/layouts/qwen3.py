"""Qwen3 dense: Qwen3ForCausalLM."""

from __future__ import annotations

from ..checkpoint.config import ModelConfig
from .table import Constant, Embedding, Entry, Linear, Norm, Rows

ARCHITECTURE = "Qwen3ForCausalLM"


def layer(config: ModelConfig, prefix: str) -> tuple[Entry, ...]:
    """The modules of one decoder layer; `prefix` ends with a dot."""
    q_rows = config.heads * config.head_dim
    kv_rows = config.kv_heads * config.head_dim
    hidden, inner = config.hidden_size, config.intermediate_size
    attention, mlp = f"{prefix}self_attn.", f"{prefix}mlp."
    return (
        Norm(f"{prefix}input_layernorm", hidden),
        Linear(
            f"{attention}qkv_proj",
            of=(
                Rows(f"{attention}q_proj", q_rows, config.heads),
                Rows(f"{attention}k_proj", kv_rows, config.kv_heads),
                Rows(f"{attention}v_proj", kv_rows, config.kv_heads),
            ),
            k=hidden,
            cut="rows",
            bias=config.attention_bias,
        ),
        Norm(f"{attention}q_norm", config.head_dim),
        Norm(f"{attention}k_norm", config.head_dim),
        Constant(f"{attention}attn", ("_q_scale", "_k_scale", "_v_scale", "_prob_scale")),
        Linear(f"{attention}o_proj", of=(Rows(f"{attention}o_proj", hidden, hidden),), k=q_rows, cut="columns"),
        Norm(f"{prefix}post_attention_layernorm", hidden),
        Linear(
            f"{mlp}gate_up_proj",
            of=(Rows(f"{mlp}gate_proj", inner, inner), Rows(f"{mlp}up_proj", inner, inner)),
            k=hidden,
            cut="rows",
        ),
        Linear(f"{mlp}down_proj", of=(Rows(f"{mlp}down_proj", hidden, hidden),), k=inner, cut="columns"),
    )


def outside(config: ModelConfig) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """The modules before and behind the decoder layers."""
    size = (config.vocabulary, config.hidden_size)
    if config.tied:
        # vLLM saves shared memory once, under the name that sorts first: lm_head.
        return (), (Norm("model.norm", config.hidden_size), Embedding("lm_head", "model.embed_tokens", *size))
    return (
        (Embedding("model.embed_tokens", "model.embed_tokens", *size),),
        (Norm("model.norm", config.hidden_size), Embedding("lm_head", "lm_head", *size)),
    )
