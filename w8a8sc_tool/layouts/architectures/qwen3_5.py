"""Qwen3.5 and 3.6 dense: layers of linear attention and of gated attention, and a vision tower."""

from ..words import HIDDEN, Architecture, Embedding, Norm
from ._decoder import MLP
from ._gated_delta_net import GATED_ATTENTION, LINEAR_ATTENTION, SIZES
from ._vision import RENAMED, vision_tower
from ._vision import SIZES as VISION_SIZES

ARCHITECTURE = Architecture(
    "Qwen3_5ForConditionalGeneration",
    before=(*vision_tower(deepstack=False), Embedding("language_model.model.embed_tokens", dropped_if_tied=True)),
    layer={"linear_attention": (*LINEAR_ATTENTION, *MLP), "full_attention": (*GATED_ATTENTION, *MLP)},
    behind=(
        Norm("language_model.model.norm", HIDDEN, gemma=True),
        Embedding("language_model.lm_head", tied_to="language_model.model.embed_tokens"),
    ),
    layers="language_model.model.layers",
    renamed=RENAMED,
    text="text_config",
    sizes=VISION_SIZES | SIZES,
    # Qwen3_5TextConfig, the same in vLLM 0.18.0's and 0.23.0's copy and in transformers 5.14.1.
    defaults={
        "vocab_size": 248320,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 32768,
        "full_attention_interval": 4,
        "partial_rotary_factor": 0.25,
    },
    config={
        "image_token_id": 248056,
        "model_type": "qwen3_5",
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "attn_output_gate": True,
            "full_attention_interval": 4,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 128,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 48,
            "linear_value_head_dim": 128,
            "mamba_ssm_dtype": "float32",
            "max_position_embeddings": 262144,
            "model_type": "qwen3_5_text",
            "mtp_num_hidden_layers": 1,
            "rms_norm_eps": 1e-06,
            "rope_parameters": {
                "mrope_interleaved": True,
                "mrope_section": [11, 11, 10],
                "partial_rotary_factor": 0.25,
                "rope_theta": 10000000,
                "rope_type": "default",
            },
        },
        "video_token_id": 248057,
        "vision_config": {
            "deepstack_visual_indexes": [],
            "depth": 27,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 1152,
            "in_channels": 3,
            "initializer_range": 0.02,
            "intermediate_size": 4304,
            "model_type": "qwen3_5",
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        "vision_end_token_id": 248054,
        "vision_start_token_id": 248053,
    },
    refused={
        "qkv_bias": "vLLM would build biases that the layout does not have",
        "layer_scale": "vLLM would build scales that the layout does not have",
    },
    needed={"attn_output_gate": (True, "vLLM would build queries without gates")},
    left_out=(
        (
            "mtp.",
            "directories serve without multi-token prediction, whose draft model vLLM loads from a folder of its own",
        ),
    ),
    since="0.23",
)
