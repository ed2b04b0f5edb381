"""Qwen2: Qwen1.5, 2 and 2.5, QwQ, and the R1 distillations into them. Queries, keys and values always have a bias."""

from ..words import HIDDEN, Architecture, Embedding, Norm, always
from ._decoder import dense_layer

ARCHITECTURE = Architecture(
    "Qwen2ForCausalLM",
    before=(Embedding("model.embed_tokens", dropped_if_tied=True),),
    layer=dense_layer(bias=always),
    behind=(Norm("model.norm", HIDDEN), Embedding("lm_head", tied_to="model.embed_tokens")),
    # Qwen2Config, the same in transformers 4.57.6 and 5.19.0.
    defaults={
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
        "sliding_window": 4096,
    },
    config={
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 32768,
        "model_type": "qwen2",
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 131072,
        "use_sliding_window": False,
    },
    own_head_dim=False,
    refused={"qk_norm": "vLLM would build norms that the layout does not have"},
)
