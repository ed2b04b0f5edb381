"""Checkpoints to try things on: a W8A8S model of any size, as msmodelslim would leave it, from a seed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Literal

from ..checkpoint import config as config_file
from ..checkpoint import description as description_file
from ..checkpoint.config import SIZE_KEYS, ModelConfig
from ..checkpoint.description import Description
from ..errors import InputError, UsageError
from ..io import reading
from ..layouts import ARCHITECTURES, REGISTRY, CheckpointModule, checkpoint_modules, expert_members, linear_members
from ..layouts.words import Norm
from .maker import Maker
from .models import MODELS, Model
from .tokenizer import tokenizer_files
from .writing import write

__all__ = ["MODELS", "Model", "synthesize"]

Dtype = Literal["float16", "bfloat16"]
_OTHER_TYPES: Final = ("FLOAT", "W8A8", "W8A8_DYNAMIC", "W16A16S")
_SMALLEST_VOCABULARY: Final = 320  # all bytes and the special tokens


def synthesize(
    folder: str | os.PathLike[str],
    preset: str = "tiny",
    *,
    layers: int | None = None,
    dtype: Dtype = "float16",
    tied: bool = False,
    architecture: str | None = None,
    m4: bool | None = None,
    vocabulary: int | None = None,
    types: Sequence[tuple[str, str]] | None = None,
    part_bytes: int | None = None,
    seed: int = 0,
    advance: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a W8A8S checkpoint to a new folder, the same bytes for the same arguments everywhere.

    preset: one of MODELS; architecture, layers, vocabulary, m4: instead of the preset's. An architecture is one of
    layouts.REGISTRY, as config.json spells it. m4: as outlier suppression of that name leaves it, with biases in norms
    and in the linear layers behind them, and float32 scalars; a layer that is neither W8A8S nor W8A8 then has a bias
    that vLLM's class may have no parameter for. dtype: of the float model; bfloat16 also makes deq_scale float32.
    types: (pattern, type) for linear layers that are not W8A8S, patterns as in a shell, type FLOAT, W8A8, W8A8_DYNAMIC
    or W16A16S; None for the recipe's FLOAT layers. part_bytes: split into files of about this size. advance is called
    with (bytes written, bytes in all) after each piece. Raises InputError if the folder exists, UsageError for what
    cannot be.
    """
    if dtype not in ("float16", "bfloat16"):
        raise UsageError(f"dtype {dtype!r} is neither float16 nor bfloat16")
    model = _model(preset, layers=layers, vocabulary=vocabulary, m4=m4, part_bytes=part_bytes)
    if architecture is not None and architecture != model.architecture:
        model = replace(model, architecture=architecture, recipe=None)
    if model.architecture not in REGISTRY:
        remedy = "architectures: " + ", ".join(REGISTRY)
        raise UsageError(f"there is no architecture {model.architecture!r}", remedy=remedy)
    rules = [(pattern, "FLOAT") for pattern in model.float_layers] if types is None else list(types)
    for pattern, quantization in rules:
        if quantization not in _OTHER_TYPES:
            raise UsageError(f"type {quantization} for {pattern} is none of {', '.join(_OTHER_TYPES)}")
    target = Path(folder)
    if reading.link_status(target) is not None:
        raise InputError("exists already", str(target), "choose another folder")
    reading.check_can_create(target)
    tokens, tokenizer = tokenizer_files(model.vocabulary)
    config = _config(model, dtype, tied, tokens)
    modules = _modules(model, config, target, rules)
    floating = "F16" if dtype == "float16" else "BF16"
    maker = Maker(modules, model.layers, dtype=floating, m4=model.m4, sigma=model.sigma, seed=seed)
    write(target, model, config, tokens, tokenizer, list(maker.tensors()), advance or (lambda written, total: None))
    return target


def _model(preset: str, **changes: Any) -> Model:
    """A preset with every change that is not None."""
    if preset not in MODELS:
        raise UsageError(f"there is no preset {preset!r}", remedy="presets: " + ", ".join(MODELS))
    model = replace(MODELS[preset], **{key: value for key, value in changes.items() if value is not None})
    if model.layers < 1 or model.vocabulary < _SMALLEST_VOCABULARY:
        raise UsageError(f"at least one layer and {_SMALLEST_VOCABULARY} tokens are needed")
    return model


def _config(model: Model, dtype: Dtype, tied: bool, tokens: dict[str, int]) -> dict[str, Any]:
    """The content of config.json: sizes, and what the architecture's table says that published ones have."""
    table = REGISTRY[model.architecture]
    sizes = {key: getattr(model, field) for field, key in SIZE_KEYS.items()} | dict(model.text or {})
    content: dict[str, Any] = {
        "architectures": [model.architecture],
        "bos_token_id": tokens["end_of_text"],
        "eos_token_id": tokens["end_of_turn"],
        "tie_word_embeddings": tied,
        "torch_dtype": dtype,
        "use_cache": True,
    }
    content |= table.config
    if not table.text:
        return dict(sorted((content | sizes).items()))
    text = content[table.text] | sizes | {"tie_word_embeddings": tied}
    vision = content["vision_config"] | {"out_hidden_size": model.hidden_size} | dict(model.vision or {})
    content |= {"vision_config": dict(sorted(vision.items())), table.text: text}
    if types := ModelConfig.of(content, Path(config_file.NAME), ARCHITECTURES).layer_types:
        text["layer_types"] = list(types)
    content[table.text] = dict(sorted(text.items()))
    return dict(sorted(content.items()))


def _modules(
    model: Model, content: dict[str, Any], target: Path, rules: Sequence[tuple[str, str]]
) -> list[CheckpointModule]:
    """What the layout asks for, with the first type whose pattern fits a linear layer."""
    config = ModelConfig.of(content, target / config_file.NAME, ARCHITECTURES)
    table = REGISTRY[model.architecture]
    types = {}
    for names, usual in ((linear_members(config), "W8A8S"), (expert_members(config), "W8A8_DYNAMIC")):
        for name in names:
            named = (quantization for pattern, quantization in rules if fnmatchcase(name, pattern))
            types[f"{name}.weight"] = next(named, usual)
    if model.m4:
        norms = (prefix + row.name for row, prefix, _ in table.rows(config) if isinstance(row, Norm) and not row.gemma)
        types |= {f"{norm}.bias": "FLOAT" for norm in norms}
    types |= {f"{name}.bias": "FLOAT" for name in linear_members(config, with_bias=True)}
    return list(checkpoint_modules(table, config, Description(target / description_file.NAME, types, dict(types))))
