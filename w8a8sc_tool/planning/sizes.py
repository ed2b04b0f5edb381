"""Sizes of config.json that are not those of the weights: each is named once, not with every tensor that has it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from ..checkpoint import Checkpoint, ModelConfig
from ..checkpoint.config import SIZE_KEYS
from ..errors import Problem
from ..layouts import Architecture, Module, architecture_of, modules
from ..layouts.words import names_in

Dimension = tuple[str, int]
"""A tensor of the checkpoint and the number of one of its axes."""

_MOST_CANDIDATES: Final = 4  # values that are tried of a size
_MOST_LAYERS: Final = 8  # layers that sizes are tried on: two of every kind, and experts' tensors are many
_REMEDY: Final = "config.json and the weights do not belong together"


def with_layers_of_weights(checkpoint: Checkpoint) -> tuple[Checkpoint, list[Problem]]:
    """The checkpoint with the layers that its weights have, and a problem if config.json has another number or kind."""
    config = checkpoint.config
    table = architecture_of(config)
    layer = re.compile(re.escape(table.source_of(f"{table.layers}.")) + r"(\d{1,9})\.")
    modules_of: dict[int, set[str]] = {}
    for match in filter(None, map(layer.match, checkpoint.tensors)):
        modules_of.setdefault(int(match[1]), set()).add(match.string[match.end() :].rpartition(".")[0])
    count = len(modules_of)
    problems = []
    if count != config.layers and count and set(modules_of) == set(range(count)):
        problems.append(_problem(config, "layers", count, "restore config.json, or the weights that are missing"))
        config = config.with_layers(count)
    kinds = tuple(_kind(table, modules_of.get(n, set())) or kind for n, kind in enumerate(config.layer_types))
    wrong = [number for number, kind in enumerate(config.layer_types) if kinds[number] != kind]
    if wrong and not problems:  # of other layers than the weights', nobody knows the kinds
        first = f"layer {wrong[0]} is {config.layer_types[wrong[0]]} but the weights have {kinds[wrong[0]]}"
        more = f", and {len(wrong) - 1} more are wrong" if len(wrong) > 1 else ""
        source = "" if "layer_types" in config.text else "layer_types is missing, which means that "
        problems.append(Problem(f"{source}{first}{more}", str(config.path), "restore layer_types in config.json"))
    return replace(checkpoint, config=replace(config, layer_types=kinds)), problems


def _kind(table: Architecture, present: Container[str]) -> str | None:
    """The kind of a decoder layer that has these modules; None if they do not say."""
    if not isinstance(table.layer, Mapping):
        return None
    names = {kind: set(names_in(rows)) for kind, rows in table.layer.items()}
    own = {kind: mine.difference(*(names[other] for other in names if other != kind)) for kind, mine in names.items()}
    matching = [kind for kind, mine in own.items() if any(name in present for name in mine)]
    return matching[0] if len(matching) == 1 else None


def corrected(checkpoint: Checkpoint) -> tuple[Checkpoint, list[Problem]]:
    """The checkpoint with the sizes that its weights have, and a problem for each that config.json says otherwise.

    A size counts as wrong if another one makes two more dimensions of tensors fit, and more than another value of any
    other size would: a single tensor that does not fit is wrong itself.
    """
    whole, problems = checkpoint.config, []
    few = min(whole.layers, _MOST_LAYERS)
    config = replace(whole, layers=few, layer_types=whole.layer_types[:few])
    wrong = _misfits_of(config, checkpoint)
    while len(wrong) > 1:
        candidates = ((len(_misfits_of(c, checkpoint)), name, c) for name, c in _candidates(config, checkpoint, wrong))
        left, name, best = min(candidates, key=lambda candidate: candidate[0], default=(len(wrong), "", config))
        if left > len(wrong) - 2:
            break
        problems.append(_problem(config, name, _sizes(best)[name]))
        config, wrong = best, _misfits_of(best, checkpoint)
    config = replace(config, layers=whole.layers, layer_types=whole.layer_types)
    return replace(checkpoint, config=config), problems


def _problem(config: ModelConfig, name: str, size: int, remedy: str = _REMEDY) -> Problem:
    key = SIZE_KEYS.get(name, name)
    owner, _, leaf = key.rpartition(".")
    given = leaf in (config.content.get(owner) or {}) if owner else key in config.text
    source = "" if given else ", which is what its absence means,"
    was = config.layers if name == "layers" else _sizes(config)[name]
    return Problem(f"{key} is {was}{source} but the weights have {size}", str(config.path), remedy)


def _sizes(config: ModelConfig) -> dict[str, int]:
    """All sizes but the number of layers."""
    return {name: getattr(config, name) for name in SIZE_KEYS if name != "layers"} | dict(config.further)


def _with(config: ModelConfig, name: str, size: int) -> ModelConfig:
    further = name in config.further
    changes: dict[str, Any] = {"further": {**config.further, name: size}} if further else {name: size}
    return replace(config, **changes)


def misfits(modules: Iterable[Module], checkpoint: Checkpoint) -> dict[Dimension, tuple[int, int]]:
    """Wanted and actual size of every dimension that does not fit, of tensors with the right number of dimensions."""
    result = {}
    for (name, axis), wanted in _dimensions(modules, checkpoint).items():
        actual = checkpoint.tensors[name].shape[axis]
        if wanted != actual:
            result[name, axis] = wanted, actual
    return result


def _misfits_of(config: ModelConfig, checkpoint: Checkpoint) -> dict[Dimension, tuple[int, int]]:
    return misfits(modules(config, checkpoint.description, 1)[0], checkpoint)


def _dimensions(modules: Iterable[Module], checkpoint: Checkpoint) -> dict[Dimension, int]:
    """What is wanted of every dimension of such tensors."""
    result: dict[Dimension, int] = {}
    for source in (source for module in modules for source in module.sources):
        tensor = checkpoint.tensors.get(source.name)
        if tensor is not None and len(tensor.shape) == len(source.shape):
            result |= {(source.name, axis): wanted for axis, wanted in enumerate(source.shape)}
    return result


def _candidates(
    config: ModelConfig, checkpoint: Checkpoint, wrong: Mapping[Dimension, tuple[int, int]]
) -> Iterator[tuple[str, ModelConfig]]:
    """Configs with one other size: each that turns wanted dimensions, which grow with the size, into what is there."""
    for name, size in _sizes(config).items():
        larger = _dimensions(modules(_with(config, name, size + 1), checkpoint.description, 1)[0], checkpoint)
        fitting: Counter[int] = Counter()
        for dimension, (wanted, actual) in wrong.items():
            step = larger.get(dimension, wanted) - wanted
            if step and (actual - wanted) % step == 0:
                fitting[size + (actual - wanted) // step] += 1
        likely = [other for other, _ in fitting.most_common(_MOST_CANDIDATES) if other > 0]
        yield from ((name, _with(config, name, other)) for other in likely)
