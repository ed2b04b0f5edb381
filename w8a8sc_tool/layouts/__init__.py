"""Layouts: for each architecture, how vLLM fuses and cuts a checkpoint's tensors into runtime parameters.

    architectures/  one table per file, found by listing the folder: adding a model is adding a file
    words           the words of those tables
    expand          from a row to tensors on every rank
    sources         modules as a checkpoint has them, for who makes one
    records         what the rest of the program sees: modules, outputs, slices

docs/extending.md says how to add an architecture. Nothing is read here.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from typing import Final

from ..checkpoint.config import ModelConfig
from ..checkpoint.description import Description
from ..errors import Problem
from ..targets import DEFAULT_TARGET, TARGETS, Target
from . import architectures
from .expand import Context, expand, indivisible, outnumbered
from .records import COMPRESSED, UNCOMPRESSED, Member, Module, Output, Slice, Source
from .sources import CheckpointModule, checkpoint_modules
from .words import Architecture, Experts, Linear

_LARGEST_TP: Final = 64  # sizes that are tried when a message lists those that work


def _registered() -> dict[str, Architecture]:
    """Every file in architectures/ but those that begin with an underscore."""
    names = sorted(name for _, name, _ in pkgutil.iter_modules(architectures.__path__) if not name.startswith("_"))
    tables = (import_module(f"{architectures.__name__}.{name}").ARCHITECTURE for name in names)
    return {table.name: table for table in tables}


REGISTRY: Mapping[str, Architecture] = _registered()
ARCHITECTURES: Final = {name: table.conventions for name, table in REGISTRY.items()}

__all__ = [
    "ARCHITECTURES",
    "COMPRESSED",
    "DEFAULT_TARGET",
    "REGISTRY",
    "TARGETS",
    "UNCOMPRESSED",
    "Architecture",
    "CheckpointModule",
    "Member",
    "Module",
    "Output",
    "Slice",
    "Source",
    "Target",
    "architecture_of",
    "check_size",
    "checkpoint_modules",
    "expert_members",
    "linear_members",
    "modules",
    "same_tensors",
    "valid_sizes",
    "wanted_tensors",
]


def architecture_of(config: ModelConfig) -> Architecture:
    """The table of a model whose config was parsed with ARCHITECTURES."""
    return REGISTRY[config.architecture]


def valid_sizes(config: ModelConfig) -> list[int]:
    """The tensor-parallel sizes up to 64 that a model can be cut for, smallest first."""
    return [tp for tp in range(1, _LARGEST_TP + 1) if not _wrong_size(config, tp)]


def check_size(config: ModelConfig, tp: int) -> list[Problem]:
    """Problems with a tensor-parallel size, with the sizes that would work."""
    wrong = _wrong_size(config, tp)
    if not wrong:
        return []
    sizes = ", ".join(str(size) for size in valid_sizes(config))
    message = f"tensor-parallel size {tp} {' and '.join(wrong)}"
    return [Problem(message, str(config.path), f"sizes that work: {sizes}")]


def _wrong_size(config: ModelConfig, tp: int) -> list[str]:
    """What a tensor-parallel size does that it must not."""
    table = architecture_of(config)
    undivided, exceeded = indivisible(table, config, tp), outnumbered(table, config, tp)
    wrong = [f"does not divide {' and '.join(undivided)}"] if undivided else []
    return wrong + ([f"is more than {' and '.join(exceeded)}"] if exceeded else [])


def modules(
    config: ModelConfig, description: Description, tp: int, target: Target = DEFAULT_TARGET
) -> tuple[list[Module], list[Problem]]:
    """Every module of the model at a size that `check_size` accepts, in the order of the forward pass."""
    table = architecture_of(config)
    context = Context(config, description, tp, target, table)
    result: list[Module] = []
    problems: list[Problem] = []
    for row, prefix, layer in table.rows(config):
        module, wrong = expand(row, prefix, layer, context)
        problems += wrong
        if module is not None:
            result.append(module)
    return result, problems


def wanted_tensors(config: ModelConfig, description: Description, tp: int, target: Target) -> set[tuple[str, str]]:
    """Name and dtype of all that a release wants of a rank, but for what takes the place of compressed weights."""
    planned, _ = modules(config, description, tp, target)
    return {(output.name, output.dtype) for module in planned for output in module.outputs}


def same_tensors(config: ModelConfig, description: Description, tp: int, target: Target) -> list[Target]:
    """The releases that want the same tensors as one of them, which is among them."""
    wanted = wanted_tensors(config, description, tp, target)
    return [other for other in TARGETS if other == target or wanted_tensors(config, description, tp, other) == wanted]


def linear_members(config: ModelConfig, *, with_bias: bool = False) -> list[str]:
    """Names of all linear layers but those of experts, as a checkpoint has them, in the order of the forward pass.

    with_bias: only of those whose class has a parameter for a bias.
    """
    table = architecture_of(config)
    rows = ((row, prefix) for row, prefix, _ in table.rows(config) if isinstance(row, Linear))
    members = (
        prefix + row.member(part) for row, prefix in rows if row.bias(config) or not with_bias for part in row.of
    )
    return [table.source_of(member) for member in members]


def expert_members(config: ModelConfig) -> list[str]:
    """Names of the linear layers of all routed experts as a checkpoint has them."""
    table = architecture_of(config)
    stacks = ((row, prefix) for row, prefix, _ in table.rows(config) if isinstance(row, Experts))
    return [table.source_of(prefix + linear.name) for row, prefix in stacks for linear in row.linears(config)]
