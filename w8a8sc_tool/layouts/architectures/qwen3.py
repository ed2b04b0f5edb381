"""Qwen3 dense."""

from ..words import (
    HEAD_DIM,
    HEADS,
    HIDDEN,
    INNER,
    QUERY_ROWS,
    Architecture,
    Constant,
    Embedding,
    Norm,
    by_heads,
    by_kv_heads,
    by_rows,
    columns,
    fused,
)

ARCHITECTURE = Architecture(
    "Qwen3ForCausalLM",
    before=(Embedding("model.embed_tokens", dropped_if_tied=True),),
    layer=(
        Norm("input_layernorm", HIDDEN),
        fused(
            "self_attn.qkv_proj",
            (by_heads("q_proj"), by_kv_heads("k_proj"), by_kv_heads("v_proj")),
            k=HIDDEN,
            bias=lambda config: config.attention_bias,
        ),
        Norm("self_attn.q_norm", HEAD_DIM),
        Norm("self_attn.k_norm", HEAD_DIM),
        Constant("self_attn.attn", ("_q_scale", "_k_scale", "_v_scale", "_prob_scale")),
        columns("self_attn.o_proj", n=HIDDEN, k=QUERY_ROWS, dealt=HEADS),
        Norm("post_attention_layernorm", HIDDEN),
        fused("mlp.gate_up_proj", (by_rows("gate_proj", INNER), by_rows("up_proj", INNER)), k=HIDDEN),
        columns("mlp.down_proj", n=HIDDEN, k=INNER),
    ),
    behind=(Norm("model.norm", HIDDEN), Embedding("lm_head", tied_to="model.embed_tokens")),
    # Qwen3Config, the same in transformers 4.57.6 and 5.24.0.
    defaults={
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_position_embeddings": 32768,
        "sliding_window": 4096,
    },
)
