"""The vision tower of Qwen3-VL and its relatives: patches, blocks of attention and MLP, mergers into the decoder."""

from __future__ import annotations

from ..words import Deal, Part, Repeated, Row, Size, Whole, always, by_rows, columns, fused, layer_norm

# Qwen3VLVisionConfig, the same in transformers 4.57.6 and 5.19.0; of a list, its length counts.
SIZES = {
    "vision_config.depth": 27,
    "vision_config.hidden_size": 1152,
    "vision_config.intermediate_size": 4304,
    "vision_config.num_heads": 16,
    "vision_config.in_channels": 3,
    "vision_config.patch_size": 16,
    "vision_config.spatial_merge_size": 2,
    "vision_config.temporal_patch_size": 2,
    "vision_config.num_position_embeddings": 2304,
    "vision_config.out_hidden_size": 3584,
}
# The prefix map of vLLM's classes with this tower, undone.
RENAMED = (
    ("visual.", "model.visual."),
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head", "lm_head"),
)
DEEPSTACK_SIZES = {"vision_config.deepstack_visual_indexes": 3}


def _size(key: str, text: str) -> Size:
    return Size(text, lambda config: config.further[f"vision_config.{key}"])


_WIDTH = _size("hidden_size", "a vision hidden size of {}")
_INNER = _size("intermediate_size", "a vision intermediate size of {}")
_HEADS = _size("num_heads", "{} vision heads")
_CHANNELS = _size("in_channels", "{} channels")
_PATCH = _size("patch_size", "patches of {}")
_FRAMES = _size("temporal_patch_size", "{} frames")
_POSITIONS = _size("num_position_embeddings", "{} vision positions")
_OUT = _size("out_hidden_size", "a vision output size of {}")
_DEPTH = _size("depth", "{} vision blocks")
_DEEPSTACK = _size("deepstack_visual_indexes", "{} deepstack mergers")
_MERGED = Size(
    "a merged vision size of {}",
    lambda config: _WIDTH.of(config) * config.further["vision_config.spatial_merge_size"] ** 2,
)


def _merger(name: str, normed: Size) -> tuple[Row, ...]:
    return (
        layer_norm(f"{name}norm", normed),
        fused(f"{name}linear_fc1", (by_rows("linear_fc1", _MERGED),), k=_MERGED, bias=always),
        columns(f"{name}linear_fc2", n=_OUT, k=_MERGED, bias=always),
    )


_BLOCK: tuple[Row, ...] = (
    layer_norm("norm1", _WIDTH),
    fused("attn.qkv", (Part("qkv", (Deal(_WIDTH, _HEADS),) * 3),), k=_WIDTH, bias=always),
    columns("attn.proj", n=_WIDTH, k=_WIDTH, dealt=_HEADS, bias=always),
    layer_norm("norm2", _WIDTH),
    fused("mlp.linear_fc1", (by_rows("linear_fc1", _INNER),), k=_WIDTH, bias=always),
    columns("mlp.linear_fc2", n=_WIDTH, k=_INNER, bias=always),
)


def vision_tower(*, deepstack: bool) -> tuple[Row | Repeated, ...]:
    """The tower under `visual`; deepstack: whether the first decoder layers are given features of their own."""
    patches = (_WIDTH, _CHANNELS, _FRAMES, _PATCH, _PATCH)
    mergers = (Repeated("visual.deepstack_merger_list", _DEEPSTACK, _merger("", _MERGED)),) if deepstack else ()
    return (
        Whole("visual.patch_embed.proj", (("weight", patches), ("bias", (_WIDTH,)))),
        Whole("visual.pos_embed", (("weight", (_POSITIONS, _WIDTH)),)),
        Repeated("visual.blocks", _DEPTH, _BLOCK),
        *_merger("visual.merger.", _WIDTH),
        *mergers,
    )
