"""Llama 2 and 3, and the R1 distillations into them. No linear layer has a bias."""

from ..words import HIDDEN, Architecture, Embedding, Norm
from ._decoder import dense_layer

_BIASES = "vLLM would build biases that the layout does not have"

ARCHITECTURE = Architecture(
    "LlamaForCausalLM",
    before=(Embedding("model.embed_tokens", dropped_if_tied=True),),
    layer=dense_layer(),
    behind=(Norm("model.norm", HIDDEN), Embedding("lm_head", tied_to="model.embed_tokens")),
    # LlamaConfig, the same in transformers 4.57.6 and 5.19.0.
    defaults={
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
    },
    config={
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "model_type": "llama",
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
    },
    refused=dict.fromkeys(("attention_bias", "bias", "qkv_bias", "mlp_bias"), _BIASES),
)
