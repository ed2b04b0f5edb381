"""The presets of `synthesize`: sizes of published models, and what their recipes do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# Standard deviation of the int8 weights that msmodelslim 26.1.0 made of small models with its published recipes: their
# step follows each channel's spread, so that layers and models hardly differ (docs/performance.md). The 8B recipe cuts
# off a fraction of the values, the others take a multiple of the deviation.
_FRACTION_SIGMA: Final = 2.5
_SIGMA_SIGMA: Final = 3.87


@dataclass(frozen=True)
class Model:
    """Sizes of a model, as `ModelConfig` names them, and what its recipe does.

    float_layers: left FLOAT. m4: outlier suppression moves a shift into biases. part_bytes: how files are split (None:
    one file). sigma: standard deviation of the int8 weights. recipe: the model type it is published for, if it is.
    architecture: as config.json spells it.
    vision: sizes of the vision tower, where there is one, that are not those of the architecture's table. text: what
    else of the decoder's configuration is not.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    float_layers: tuple[str, ...]
    m4: bool = False
    part_bytes: int | None = None
    sigma: float = _FRACTION_SIGMA
    recipe: str | None = None
    architecture: str = "Qwen3ForCausalLM"
    vision: Mapping[str, int | list[int]] | None = None
    text: Mapping[str, int] | None = None


_EVERY_DOWN: Final = ("*.mlp.down_proj",)
_QWEN3_8B_GATES: Final = tuple(f"model.layers.{i}.mlp.{n}_proj" for i in (1, 3, 4, 7, 16) for n in ("gate", "up"))
MODELS: Final[dict[str, Model]] = {
    "qwen3-8b": Model(4096, 12288, 36, 32, 8, 128, 151936, _EVERY_DOWN + _QWEN3_8B_GATES, recipe="Qwen3-8B"),
    "qwen3-14b": Model(5120, 17408, 40, 40, 8, 128, 151936, _EVERY_DOWN, True, 4 << 30, _SIGMA_SIGMA, "Qwen3-14B"),
    "qwen3-32b": Model(5120, 25600, 64, 64, 8, 128, 151936, _EVERY_DOWN, False, 4 << 30, _SIGMA_SIGMA, "Qwen3-32B"),
    "qwen2.5-7b": Model(
        *(3584, 18944, 28, 28, 4, 128, 152064, _EVERY_DOWN), part_bytes=4 << 30, architecture="Qwen2ForCausalLM"
    ),
    "llama-3.1-8b": Model(
        *(4096, 14336, 32, 32, 8, 128, 128256, _EVERY_DOWN), part_bytes=4 << 30, architecture="LlamaForCausalLM"
    ),
    "qwen3-vl-8b": Model(
        *(4096, 12288, 36, 32, 8, 128, 151936, ("model.visual.*", *_EVERY_DOWN)),
        part_bytes=4 << 30,
        architecture="Qwen3VLForConditionalGeneration",
    ),
    "qwen3-30b-a3b": Model(
        *(2048, 6144, 48, 32, 4, 128, 151936, ()), part_bytes=4 << 30, architecture="Qwen3MoeForCausalLM"
    ),
    # No recipe is published; in_proj_b and in_proj_a are too small for the 310P kernel.
    "qwen3.6-27b": Model(
        *(5120, 17408, 64, 24, 4, 256, 248320, ("model.visual.*", "*.in_proj_[ba]", *_EVERY_DOWN)),
        part_bytes=4 << 30,
        architecture="Qwen3_5ForConditionalGeneration",
        text={"linear_num_key_heads": 16, "linear_num_value_heads": 48},
    ),
    # A model without a W8A8S recipe; what the kernel cannot take is left FLOAT. See the table for intermediate_size.
    "qwen3.6-35b-a3b": Model(
        *(2048, 4608, 40, 16, 2, 256, 248320, ("model.visual.*", "*.in_proj_[ba]")),
        part_bytes=4 << 30,
        architecture="Qwen3_5MoeForConditionalGeneration",
    ),
    # Small, but wide enough for the kernel's limits at TP 1, 2 and 4.
    "tiny": Model(512, 1536, 4, 12, 4, 128, 2048, (*_EVERY_DOWN, "model.layers.1.mlp.*_proj")),
}
