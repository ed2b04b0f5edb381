"""Qwen3.5 and 3.6 with a mixture of experts in every layer, and an expert that all tokens share."""

from dataclasses import replace

from ._experts import RELEASED, SHARED_EXPERT, mixture
from ._gated_delta_net import GATED_ATTENTION, LINEAR_ATTENTION
from .qwen3_5 import ARCHITECTURE as DENSE

_MLP = (*mixture(looked_up=False), *SHARED_EXPERT)

# Qwen3_5MoeTextConfig, the same in vLLM 0.18.0's copy and in transformers 5.14.1.
_SIZES = {"num_experts": 256, "num_experts_per_tok": 8, "moe_intermediate_size": 512}
_SHARED = {"shared_expert_intermediate_size": 512}

ARCHITECTURE = replace(
    DENSE,
    name="Qwen3_5MoeForConditionalGeneration",
    layer={"linear_attention": (*LINEAR_ATTENTION, *_MLP), "full_attention": (*GATED_ATTENTION, *_MLP)},
    sizes={**DENSE.sizes, **_SIZES, **_SHARED},
    defaults={
        **DENSE.defaults,
        "hidden_size": 2048,
        # The class has none; this is what a token passes through in the model that these are the sizes of.
        "intermediate_size": 8 * 512 + 512,
        "num_hidden_layers": 40,
        "num_key_value_heads": 2,
    },
    config={
        **DENSE.config,
        "model_type": "qwen3_5_moe",
        "text_config": {
            **DENSE.config["text_config"],
            **_SIZES,
            **_SHARED,
            "linear_num_value_heads": 32,
            "model_type": "qwen3_5_moe_text",
            "router_aux_loss_coef": 0.001,
        },
        "vision_config": {**DENSE.config["vision_config"], "model_type": "qwen3_5_moe"},
    },
    released=RELEASED,
)
