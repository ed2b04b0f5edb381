"""A small checkpoint or two of every architecture: mixed types, odd vocabularies, tied embeddings, few kv heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from w8a8sc_tool.synthesis.synthesize import MODELS, Model, synthesize

from . import tensors
from .conftest import edit_json

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

# One layer in three with full attention; at TP 4 a rank's value rows are no whole tiles.
_HYBRID: Final = {
    "full_attention_interval": 3,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 96,
}
_QWEN3_5: Final = {
    "architecture": "Qwen3_5ForConditionalGeneration",
    "vision": {key: value for key, value in _VISION.items() if key != "deepstack_visual_indexes"},
    "text": _HYBRID,
}
_FLOAT_TOWER: Final = ("model.visual.*", "FLOAT")
_EXPERTS: Final = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 384}
_QWEN3_5_MOE: Final = {
    **_QWEN3_5,
    "architecture": "Qwen3_5MoeForConditionalGeneration",
    "text": {**_HYBRID, **_EXPERTS, "shared_expert_intermediate_size": 768},
}
_QWEN3_MOE: Final = {"architecture": "Qwen3MoeForCausalLM", "text": _EXPERTS}

Sizes = tuple[int, int, int, int, int, int, int]
"""Hidden size, intermediate size, layers, heads, kv heads, head size, vocabulary."""

# Name -> sizes and what else is asked for.
CHECKPOINTS: Final[dict[str, tuple[Sizes, dict[str, Any]]]] = {
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
    "qwen3.5": (
        (512, 1536, 4, 8, 4, 256, 1001),
        {
            **_QWEN3_5,
            "types": [
                *(_FLOAT_TOWER, ("*.in_proj_[ba]", "FLOAT"), ("*.0.linear_attn.*", "W8A8"), ("*.1.*proj", "FLOAT")),
                *(("*.0.mlp.down_proj", "W8A8_DYNAMIC"), ("*.3.linear_attn.out_proj", "W8A8_DYNAMIC")),
            ],
        },
    ),
    # Fewer kv heads than ranks, gates in W8A8_DYNAMIC, a tower that is quantized in part.
    "qwen3.5 tied": (
        (512, 1536, 3, 8, 2, 256, 2001),
        {
            **_QWEN3_5,
            **_TIED,
            "types": [
                *(("*.visual.*.attn.*", "W8A8_DYNAMIC"), ("*.visual.*.mlp.linear_fc1", "W8A8"), _FLOAT_TOWER),
                *(("*.in_proj_[ba]", "W8A8_DYNAMIC"), ("*.down_proj", "W8A8")),
            ],
        },
    ),
    "qwen3-moe": (
        (512, 1536, 3, 8, 4, 128, 1001),
        {**_QWEN3_MOE, "types": [*_MIXED[:1], ("*.1.mlp.experts.*", "FLOAT"), *_MIXED[3:]]},
    ),
    # One kv head for all ranks.
    "qwen3-moe tied": (
        (512, 1536, 2, 8, 1, 128, 2001),
        {**_QWEN3_MOE, "tied": True, "dtype": "bfloat16", "types": []},
    ),
    # A shared expert that is quantized in another way than the others.
    "qwen3.5-moe": (
        (512, 1536, 4, 8, 4, 256, 1001),
        {
            **_QWEN3_5_MOE,
            "types": [
                *(_FLOAT_TOWER, ("*.in_proj_[ba]", "FLOAT"), ("*.0.linear_attn.*", "W8A8")),
                *(("*.0.mlp.shared_expert.*", "W8A8_DYNAMIC"), ("*.1.mlp.experts.*", "FLOAT")),
            ],
        },
    ),
    "qwen3.5-moe tied": (
        (512, 1536, 3, 8, 2, 256, 2001),
        {**_QWEN3_5_MOE, "tied": True, "dtype": "bfloat16", "types": [_FLOAT_TOWER, ("*.in_proj_[ba]", "FLOAT")]},
    ),
}


def make(name: str, folder: Path) -> Path:
    """Synthesize one of CHECKPOINTS into a folder of its name, which must not exist."""
    sizes, more = CHECKPOINTS[name]
    more = dict(more)
    model = Model(*sizes, float_layers=(), vision=more.pop("vision", None), text=more.pop("text", None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, name, model)
        source = synthesize(folder / f"{name.replace(' ', '-')}-w8a8s", name, **more)
    if more["architecture"].startswith("Qwen3_5"):
        _add_draft(source, model.hidden_size)
    return source


def _add_draft(source: Path, hidden: int) -> None:
    """Some of the tensors of multi-token prediction, which published checkpoints have and vLLM's class leaves out."""
    draft = {"mtp.fc.weight": (hidden, 2 * hidden), "mtp.norm.weight": (hidden,)}
    (weights,) = source.glob("*.safetensors")
    made = {name: tensors.entry("F16", np.ones(shape)) for name, shape in draft.items()}
    tensors.write(weights, tensors.read(weights) | made)
    edit_json(source / "quant_model_description.json", lambda content: content.update(dict.fromkeys(draft, "FLOAT")))
