"""What follows from what is known of a subject: the cells of its map, its bytes by group, what a token reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ..checkpoint import ModelConfig
from ..jobs.inspect import ModuleRow
from ..layouts import COMPRESSED, UNCOMPRESSED, Architecture
from ..layouts.words import Embedding
from ..planning import FALLBACK_REASONS
from .subjects import Subject

_MOST_COLUMNS: Final = 60  # of a map; a decoder layer has about ten linear layers, all of its experts being one
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class State:
    """What a module is that has no ratio: its type, why it is not compressed, and whether that is a fallback."""

    quantization: str
    reason: str
    fallback: bool


@dataclass(frozen=True)
class Map:
    """Layers x modules of a subject. columns: short names in the order of the model. cells: by layer and column.

    left_out: how many cells there are beside these.
    """

    layers: Sequence[int]
    columns: Sequence[str]
    cells: dict[tuple[int, str], ModuleRow]
    left_out: int = 0

    def rows(self) -> Iterator[tuple[int, list[ModuleRow | None]]]:
        """Each layer with its modules, None where it has none of that name."""
        for layer in self.layers:
            yield layer, [self.cells.get((layer, column)) for column in self.columns]


def map_of(subject: Subject, most: int) -> Map:
    """The map of a subject's linear layers and experts in the decoder's layers, of at most so many cells."""
    rows = [row for row in subject.rows if row.layer >= 0 and (row.linear or row.experts)]
    columns = list(dict.fromkeys(row.short_name for row in rows))
    if subject.table is not None:
        order = {name: number for number, name in enumerate(subject.table.linear_names)}
        columns.sort(key=lambda name: order.get(name, len(order)))
    layers = sorted({row.layer for row in rows})
    columns = columns[: max(1, min(most, _MOST_COLUMNS))]
    layers = layers[: most // max(1, len(columns))]
    shown = {*layers}, {*columns}
    cells = {(row.layer, row.short_name): row for row in rows if row.layer in shown[0] and row.short_name in shown[1]}
    return Map(layers, columns, cells, len(rows) - len(cells))


def state_of(row: ModuleRow) -> State | None:
    """What is to be said in place of a ratio; None for a module that has one and is compressed."""
    if row.quantization in UNCOMPRESSED and row.ratio is not None:
        return None
    if row.fallback is not None:
        return State(row.quantization, FALLBACK_REASONS.get(row.fallback, row.fallback), True)
    if row.experts:
        return State(row.quantization, "routed experts, for which vLLM Ascend has no compressed form on 310P", False)
    if row.quantization in UNCOMPRESSED:
        return State(row.quantization, "compressed; only a manifest tells the ratio", False)
    if row.quantization in COMPRESSED:
        return State(row.quantization, "can be compressed; only doing so tells the ratio", False)
    return State(row.quantization, "as it is", False)


def letters_of(rows: Iterable[ModuleRow]) -> dict[State, str]:
    """A letter for every state, fallbacks first, the commonest of them A."""
    counts: dict[State, int] = {}
    for state in filter(None, map(state_of, rows)):
        counts[state] = counts.get(state, 0) + 1
    ordered = sorted(counts, key=lambda state: (not state.fallback, -counts[state], state.quantization, state.reason))
    return {state: _LETTERS[number] if number < len(_LETTERS) else "*" for number, state in enumerate(ordered)}


@dataclass(frozen=True)
class PerToken:
    """Bytes of weights that all chips together read for one token: as W8A8S, and as the directory has them."""

    before: int
    after: int


def per_token(subject: Subject) -> PerToken | None:
    """What generating a token reads of a directory's weights; None if config, modules or ratios are not known.

    Decoder layers, the norm and the head behind them are read whole; of routed experts, those that a token chooses; of
    the embeddings one row, which does not count, but all of them if they are the head as well. What reads images does
    not run for a token. A batch reads the same for all of its tokens, of experts more.
    """
    if subject.kind != "directory" or subject.config is None or subject.table is None or not subject.rows:
        return None
    before = after = 0.0
    for row in subject.rows:
        share, whole = _share(row, subject.table, subject.config), uncompressed(row, subject.tp)
        if whole is None:
            return None
        after += share * row.bytes
        before += share * whole
    return PerToken(round(before), round(after))


def _share(row: ModuleRow, table: Architecture, config: ModelConfig) -> float:
    """How much of a module a token reads."""
    if row.experts:
        count, chosen = (config.further.get(key) for key in ("num_experts", "num_experts_per_tok"))
        return chosen / count if count and chosen else 1.0
    names = {name for item in table.before for name in (item.name, table.source_of(item.name))}
    if row.layer >= 0 or not any(row.name == name or row.name.startswith(f"{name}.") for name in names):
        return 1.0
    embeddings = {item.name for item in table.before if isinstance(item, Embedding)}
    return 1.0 if config.tied and row.name in embeddings else 0.0


def uncompressed(row: ModuleRow, tp: int) -> int | None:
    """Bytes of a directory's module, all ranks together, if its weight were not compressed; None if nothing tells."""
    if row.quantization not in UNCOMPRESSED:
        return row.bytes
    if row.ratio is None or row.shape is None:
        return None
    n, k = row.shape
    whole = n * k * tp * (2 if row.quantization == "W16A16SC" else 1)
    return row.bytes + round((1 - row.ratio) * whole)
