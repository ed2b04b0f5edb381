"""Qwen3 with a mixture of experts in every layer."""

from ..words import HIDDEN, Architecture, Embedding, Norm
from ._decoder import attention
from ._experts import RELEASED, mixture

_DENSE = "vLLM would build layers without experts, which the layout does not have"

ARCHITECTURE = Architecture(
    "Qwen3MoeForCausalLM",
    before=(Embedding("model.embed_tokens", dropped_if_tied=True),),
    layer=(
        Norm("input_layernorm", HIDDEN),
        *attention(head_norms=True, bias=lambda config: config.attention_bias),
        Norm("post_attention_layernorm", HIDDEN),
        *mixture(looked_up=True),
    ),
    behind=(Norm("model.norm", HIDDEN), Embedding("lm_head", tied_to="model.embed_tokens")),
    # Qwen3MoeConfig, the same in transformers 4.57.6 and 5.14.1.
    defaults={
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "sliding_window": 4096,
    },
    sizes={"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
    config={
        "attention_bias": False,
        "attention_dropout": 0.0,
        "decoder_sparse_step": 1,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 40960,
        "mlp_only_layers": [],
        "model_type": "qwen3_moe",
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.001,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    refused={
        "mlp_only_layers": _DENSE,
        "shared_expert_intermediate_size": "vLLM would build an expert that the layout does not have",
    },
    needed={"decoder_sparse_step": (1, _DENSE)},
    since="0.23",  # vLLM Ascend documents 30B-A3B on 310P from 0.22.1rc1 on
    released=RELEASED,
)
