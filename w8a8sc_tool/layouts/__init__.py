"""Layouts: for each architecture, how vLLM fuses and cuts a checkpoint's tensors into runtime parameters."""

from __future__ import annotations

from collections.abc import Iterator

from ..checkpoint.config import ModelConfig
from ..checkpoint.description import Description
from ..errors import Problem
from . import qwen3
from .records import COMPRESSED, UNCOMPRESSED, Member, Module, Output, Slice, Source
from .table import (
    DEFAULT_TARGET,
    SUPPORTED_TYPES,
    TARGETS,
    Entry,
    Linear,
    Target,
    expand,
    indivisible,
    valid_sizes,
)

ARCHITECTURES = (qwen3.ARCHITECTURE,)

__all__ = [
    "ARCHITECTURES",
    "COMPRESSED",
    "DEFAULT_TARGET",
    "TARGETS",
    "UNCOMPRESSED",
    "Member",
    "Module",
    "Output",
    "Slice",
    "Source",
    "Target",
    "check_size",
    "modules",
    "valid_sizes",
]


def check_size(config: ModelConfig, tp: int) -> list[Problem]:
    """Problems with a tensor-parallel size, with the sizes that would work."""
    found = indivisible(config, tp)
    if not found:
        return []
    sizes = ", ".join(str(size) for size in valid_sizes(config))
    return [
        Problem(
            f"tensor-parallel size {tp} does not divide {' and '.join(found)}",
            str(config.path),
            f"sizes that work: {sizes}",
        )
    ]


def modules(
    config: ModelConfig, description: Description, tp: int, target: Target = DEFAULT_TARGET
) -> tuple[list[Module], list[Problem]]:
    """Every module of the model at a size that `check_size` accepts, in the order of the forward pass."""
    result: list[Module] = []
    problems: list[Problem] = []
    for entry, layer in _entries(config):
        quantization = "FLOAT"
        if isinstance(entry, Linear):
            kind, wrong = _type_of(entry, description)
            problems += wrong
            if kind is None:
                continue
            quantization = kind
        result.append(expand(entry, layer, tp, quantization, description, target))
    return result, problems


def _entries(config: ModelConfig) -> Iterator[tuple[Entry, int]]:
    before, behind = qwen3.outside(config)
    for entry in before:
        yield entry, -1
    for number in range(config.layers):
        for entry in qwen3.layer(config, f"model.layers.{number}."):
            yield entry, number
    for entry in behind:
        yield entry, -1


def _type_of(entry: Linear, description: Description) -> tuple[str | None, list[Problem]]:
    """The one type of a linear layer's members, compressed or not."""
    types: dict[str, str] = {}
    for part in entry.of:
        kind = description.type_of(part.name)
        if kind is None:
            missing = Problem(f"{part.name}.weight has no quantization type", str(description.path), "incomplete")
            return None, [missing]
        types[part.name] = UNCOMPRESSED.get(kind, kind)
    kinds = set(types.values())
    if len(kinds) > 1:
        told = ", ".join(f"{name} is {kind}" for name, kind in types.items())
        return None, [
            Problem(
                f"members of {entry.name} have different types: {told}",
                str(description.path),
                "vLLM cannot build such a layer; quantize them alike",
            )
        ]
    kind = kinds.pop()
    if kind not in SUPPORTED_TYPES:
        return None, [
            Problem(
                f"{entry.name} has type {kind}, which is not supported",
                str(description.path),
                "supported: " + ", ".join(SUPPORTED_TYPES),
            )
        ]
    return kind, []
