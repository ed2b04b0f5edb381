"""Biases of a checkpoint that its model class has no parameter for: what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from ..checkpoint import Checkpoint, SourceTensor
from ..checkpoint.reader import SourceReader
from ..checkpoint.values import to_float32
from ..errors import InputError, Problem
from ..io import reading
from ..io.documents import parse_yaml, read_small
from ..layouts import Module

_RECIPE: Final = "*_best_practice.yaml"  # msmodelslim leaves the recipe it used under its model type's name
_LARGEST_RECIPE: Final = 64 << 10


def without_parameter(planned_modules: Iterable[Module], tensors: Mapping[str, SourceTensor]) -> dict[str, Module]:
    """The names of such biases, each with the module it belongs to."""
    return {
        bias: module
        for module in planned_modules
        for owner in dict.fromkeys(source.name.rpartition(".")[0] for source in module.sources)
        if (bias := f"{owner}.bias") in tensors and all(source.name != bias for source in module.sources)
    }


def in_quant_bias(module: Module) -> bool:
    """Whether a layer's quant_bias contains its bias: msmodelslim adds it when it quantizes statically."""
    return any(output.name.endswith(".quant_bias") for output in module.outputs)


def lost(biases: Mapping[str, Module], checkpoint: Checkpoint) -> list[Problem]:
    """The biases whose absence makes another model of it: vLLM drops them without a word. One problem per cause."""
    nonzero: dict[tuple[str, str], list[str]] = {}
    reader = SourceReader()
    try:
        for name, module in biases.items():
            if not in_quant_bias(module) and _is_nonzero(checkpoint.tensors[name], reader):
                nonzero.setdefault((module.kind, module.quantization), []).append(name)
    finally:
        reader.close()
    return [_problem(*key, names, checkpoint) for key, names in nonzero.items()]


def _is_nonzero(source: SourceTensor, reader: SourceReader) -> bool:
    values = reader.read_rows(source, 0, source.shape[0] if source.shape else 1)
    return bool(to_float32(values, source.dtype).any())


def _problem(kind: str, quantization: str, names: list[str], checkpoint: Checkpoint) -> Problem:
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    if kind == "norm":
        return Problem(
            f"not described, and not zero: {listed}; vLLM would drop it and compute another model",
            str(checkpoint.description.path),
            "describe every norm's bias as FLOAT",
        )
    remedy = ""
    if kind == "gemma_norm":
        remedy = f"{_cause(checkpoint.path)} moved a shift there; quantize the model with anti_method m6 or none"
        return Problem(
            f"{listed}: not zero, but norms of {checkpoint.config.architecture} have no bias; vLLM would drop it and "
            "compute another model",
            checkpoint.tensors[names[0]].path,
            remedy,
        )
    if kind == "linear":
        remedy = (
            f"{_cause(checkpoint.path)} moved a shift there; quantize these layers W8A8S or W8A8, whose quant_bias "
            "contains it, or quantize the model with anti_method m6 or none"
        )
    return Problem(
        f"{quantization} layers have a bias that is not zero, and {checkpoint.config.architecture} has no parameter "
        f"for it: {listed}; vLLM would drop it and compute another model",
        checkpoint.tensors[names[0]].path,
        remedy,
    )


def _cause(folder: Path) -> str:
    """The outlier suppression that the recipe in a checkpoint's folder names."""
    for path in reading.matching(folder, _RECIPE):
        try:
            content = parse_yaml(read_small(path, _LARGEST_RECIPE), str(path))
            method = content["spec"]["anti_cfg"]["anti_method"]
        except (InputError, KeyError, TypeError):
            continue
        if isinstance(method, str) and method.isalnum() and len(method) < 16:
            return f"anti_method {method} ({path.name})"
    return "outlier suppression, probably anti_method m4,"
