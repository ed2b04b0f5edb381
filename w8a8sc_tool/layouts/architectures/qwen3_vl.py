"""Qwen3-VL dense: Qwen3 dense as its language model, and a vision tower."""

from ..words import HIDDEN, Architecture, Embedding, Norm
from ._decoder import dense_layer
from ._vision import DEEPSTACK_SIZES, RENAMED, SIZES, vision_tower

ARCHITECTURE = Architecture(
    "Qwen3VLForConditionalGeneration",
    before=(*vision_tower(deepstack=True), Embedding("language_model.model.embed_tokens", dropped_if_tied=True)),
    layer=dense_layer(head_norms=True, bias=lambda config: config.attention_bias),
    behind=(
        Norm("language_model.model.norm", HIDDEN),
        Embedding("language_model.lm_head", tied_to="language_model.model.embed_tokens"),
    ),
    layers="language_model.model.layers",
    renamed=RENAMED,
    text="text_config",
    sizes=SIZES | DEEPSTACK_SIZES,
    # Qwen3VLTextConfig, the same in transformers 4.57.6 and 5.19.0 but for rope_theta, which published files have.
    defaults={
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_position_embeddings": 128000,
    },
    config={
        "image_token_id": 151655,
        "model_type": "qwen3_vl",
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "max_position_embeddings": 262144,
            "model_type": "qwen3_vl_text",
            "rms_norm_eps": 1e-06,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
            "rope_theta": 5000000,
        },
        "video_token_id": 151656,
        "vision_config": {
            "deepstack_visual_indexes": [8, 16, 24],
            "depth": 27,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 1152,
            "in_channels": 3,
            "initializer_range": 0.02,
            "intermediate_size": 4304,
            "model_type": "qwen3_vl",
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        "vision_end_token_id": 151653,
        "vision_start_token_id": 151652,
    },
)
