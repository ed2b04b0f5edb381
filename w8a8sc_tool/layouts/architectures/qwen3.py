"""Qwen3 dense."""

from ..words import HIDDEN, Architecture, Embedding, Norm
from ._decoder import dense_layer

ARCHITECTURE = Architecture(
    "Qwen3ForCausalLM",
    before=(Embedding("model.embed_tokens", dropped_if_tied=True),),
    layer=dense_layer(head_norms=True, bias=lambda config: config.attention_bias),
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
    config={
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 40960,
        "model_type": "qwen3",
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "use_sliding_window": False,
    },
)
