"""A small checkpoint or two of every architecture: mixed types, odd vocabularies, tied embeddings, few kv heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from w8a8sc_tool.synthesis.synthesize import MODELS, Model, synthesize

_MIXED: Final = [
    *(("*.0.self_attn.*", "W8A8"), ("*.0.mlp.down_proj", "W8A8_DYNAMIC"), ("*.1.mlp.down_proj", "FLOAT")),
    ("*.2.self_attn.[qkv]_proj", "W8A8_DYNAMIC"),
]
_TIED: Final[dict[str, Any]] = {"tied": True, "dtype": "bfloat16", "types": [("*.down_proj", "FLOAT")]}
_LLAMA: Final = {"architecture": "LlamaForCausalLM"}
_QWEN2: Final = {"architecture": "Qwen2ForCausalLM"}

_VISION: Final = {
    "depth": 2,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_heads": 8,
    "num_position_embeddings": 64,
    "patch_size": 4,
    "deepstack_visual_indexes": [0, 1],
}
_QWEN3_VL: Final = {"architecture": "Qwen3VLForConditionalGeneration", "vision": _VISION}

# Name -> sizes (hidden, intermediate, layers, heads, kv heads, head size, vocabulary) and what else is asked for.
CHECKPOINTS: Final[dict[str, tuple[tuple[int, ...], dict[str, Any]]]] = {
    "llama": ((512, 1536, 3, 8, 4, 128, 1001), {**_LLAMA, "types": _MIXED}),
    "llama tied": ((512, 1536, 1, 8, 2, 64, 2001), {**_LLAMA, **_TIED, "m4": True}),
    "qwen2": ((512, 1536, 3, 4, 2, 128, 1001), {**_QWEN2, "types": _MIXED}),
    "qwen2 tied": ((512, 1536, 1, 8, 2, 64, 2001), {**_QWEN2, **_TIED}),
    "qwen3-vl": ((512, 1536, 3, 8, 4, 128, 1001), {**_QWEN3_VL, "types": [("model.visual.*", "FLOAT"), *_MIXED]}),
    # A quantized tower as well.
    "qwen3-vl tied": (
        (512, 1536, 1, 8, 2, 128, 2001),
        {**_QWEN3_VL, **_TIED, "types": [("*.down_proj", "FLOAT"), ("*.mlp.linear_fc2", "W8A8"), ("*.proj", "FLOAT")]},
    ),
}


def make(name: str, folder: Path) -> Path:
    """Synthesize one of CHECKPOINTS into a folder of its name, which must not exist."""
    sizes, more = CHECKPOINTS[name]
    more = dict(more)
    model = Model(*sizes, float_layers=(), vision=more.pop("vision", None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, name, model)
        return synthesize(folder / f"{name.replace(' ', '-')}-w8a8s", name, **more)
