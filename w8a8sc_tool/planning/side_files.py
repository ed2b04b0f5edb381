"""The files beside the rank files: what vLLM needs to find the model's types, sizes and tokenizer."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from ..checkpoint import Checkpoint, Description
from ..layouts import COMPRESSED


def config_json(checkpoint: Checkpoint) -> bytes:
    """config.json of the output: the source's, without what would replace the description, for every release."""
    return _json(checkpoint.config.for_serving())


def description_json(description: Description, tensors: Collection[str], compressed: Collection[str] = ()) -> bytes:
    """quant_model_description.json of the output.

    tensors: names of the checkpoint's tensors that the output holds, fused or not; compressed: names of checkpoint
    modules that now are compressed. Keys stay the unfused checkpoint names, which is what vLLM looks up; those of
    tensors that the output does not hold are left out, everything else is carried over.
    """
    content = description.of(tensors).content
    for module in compressed:
        content[f"{module}.weight"] = COMPRESSED[content[f"{module}.weight"]]
    if compressed and content.get("model_quant_type") in COMPRESSED:
        content["model_quant_type"] = COMPRESSED[content["model_quant_type"]]
    return _json(content)


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
