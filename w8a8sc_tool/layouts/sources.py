"""The checkpoint's side of a table: modules by the names they have before vLLM joins and cuts them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..checkpoint.config import ModelConfig
from ..checkpoint.description import Description
from ..errors import InputError
from ..targets import DEFAULT_TARGET
from .expand import Context, expand
from .records import Source
from .words import Architecture, Embedding, Experts, Linear, Norm, Row


@dataclass(frozen=True)
class CheckpointModule:
    """A module of a checkpoint: its row of the table (of a fused layer, with this part alone) and its tensors.

    quantization: FLOAT where the row is no linear layer. norm: the name of the norm in front, for a linear layer that
    reads its output and nothing else's; none where that norm cannot have a bias.
    """

    name: str
    row: Row
    quantization: str
    sources: tuple[Source, ...]
    norm: str | None = None


def checkpoint_modules(
    table: Architecture, config: ModelConfig, description: Description
) -> Iterator[CheckpointModule]:
    """What a checkpoint with these sizes and types consists of, in the order of the forward pass.

    description: has to name the weight of every linear layer, and the biases of norms that have one. Members of a fused
    layer may differ in type here. Raises InputError for a type that is not supported.
    """
    context = Context(config, description, 1, DEFAULT_TARGET, table)
    before: tuple[str, Row] | None = None
    for row, prefix, layer in table.rows(replace(config, tied=False)):
        name = table.source_of(prefix + row.name)
        norm = None
        if isinstance(row, Linear) and before and isinstance(before[1], Norm):
            alone = row.cut == "rows" and row.k is before[1].size and not before[1].gemma
            norm = before[0] if alone else None
        before = name, row
        if isinstance(row, Embedding) and config.tied and row.tied_to is not None:
            continue  # the checkpoint has it under the other name alone
        for single in _parts(row, config):
            module, problems = expand(single, prefix, layer, context)
            if module is None:
                raise InputError(problems)
            own = module.members[0].name if module.members else name
            if module.sources:
                yield CheckpointModule(own, single, module.quantization, module.sources, norm)


def _parts(row: Row, config: ModelConfig) -> list[Row]:
    if isinstance(row, Experts):
        return list(row.linears(config))
    return [replace(row, of=(part,)) for part in row.of] if isinstance(row, Linear) else [row]
