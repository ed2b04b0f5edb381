"""Models of the bundled runtime, a file for architectures that are alike. This file does without torch."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from ...errors import MissingError

# The file of each architecture's model, whose class is `Model`.
MODELS: Final = dict.fromkeys(
    ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Qwen3VLForConditionalGeneration"), "decoder"
)


def check_model(architecture: str) -> None:
    """Raise MissingError for an architecture that can be converted and not run here."""
    if architecture not in MODELS:
        raise MissingError(
            f"the bundled runtime has no model for {architecture}",
            remedy="serve it with vLLM Ascend; w8a8sc verify --source proves the weights without it",
        )


def model_class(architecture: str) -> Any:
    """The class of an architecture's model; loads torch."""
    check_model(architecture)
    return import_module(f"{__package__}.{MODELS[architecture]}").Model
