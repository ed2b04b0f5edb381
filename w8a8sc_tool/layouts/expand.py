"""From a table's rows to modules: every tensor of every rank at a tensor-parallel size, with where it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from ..checkpoint.config import ModelConfig
from ..checkpoint.description import Description
from ..errors import Problem
from ..targets import TARGETS, Target
from .records import FLOATING, UNCOMPRESSED, Conversion, Member, Module, Output, Slice, Source
from .words import (
    VOCABULARY,
    Architecture,
    Constant,
    Deal,
    Dealt,
    Embedding,
    Experts,
    Linear,
    Norm,
    Repeated,
    Row,
    Whole,
    height,
    padded,
    ranges,
)

STATIC: Final = ("W8A8S", "W8A8")  # quantized with a fixed scale of the input
SUPPORTED_TYPES: Final = ("W8A8S", "W16A16S", "W8A8", "W8A8_DYNAMIC", "FLOAT")
EXPERT_TYPES: Final = ("W8A8_DYNAMIC", "FLOAT")  # vLLM Ascend has no other scheme of experts for 310P
_FLOAT16: Final[tuple[str, Conversion]] = ("F16", "float16")
_FLOAT32: Final[tuple[str, Conversion]] = ("F32", "float32")


@dataclass(frozen=True)
class Context:
    """What a row is expanded for."""

    config: ModelConfig
    description: Description
    tp: int
    target: Target
    table: Architecture

    def source_of(self, name: str) -> str:
        """What the checkpoint calls a module."""
        return self.table.source_of(name)

    def runtime_of(self, name: str) -> str:
        """What vLLM calls a module."""
        return self.table.runtime_of(name, self.target)


def expand(row: Row, prefix: str, layer: int, context: Context) -> tuple[Module | None, list[Problem]]:
    """The module of one row; None, with the problems, for a linear layer that has no type or one that cannot be."""
    if isinstance(row, Linear):
        quantization, problems = _type_of(row, prefix, context)
        return (None if quantization is None else _linear(row, prefix, layer, quantization, context)), problems
    if isinstance(row, Experts):
        quantization, problems = _type_of_experts(row, prefix, context)
        return (None if quantization is None else _experts(row, prefix, layer, quantization, context)), problems
    if isinstance(row, Norm):
        return _norm(row, prefix, layer, context), []
    if isinstance(row, Embedding):
        return _embedding(row, prefix, layer, context), []
    if isinstance(row, Whole):
        return _whole(row, prefix, layer, context), _not_float(row, prefix, context)
    if isinstance(row, Dealt):
        return _dealt(row, prefix, layer, context), []
    return _constant(row, prefix, layer, context), []


def _type_of(row: Linear, prefix: str, context: Context) -> tuple[str | None, list[Problem]]:
    """The one type of a linear layer's members, not compressed."""
    members = (context.source_of(prefix + row.member(part)) for part in row.of)
    return _common_type(prefix + row.name, members, SUPPORTED_TYPES, context)


def _type_of_experts(row: Experts, prefix: str, context: Context) -> tuple[str | None, list[Problem]]:
    """The one type of all matrices of all experts: vLLM looks at the first expert alone."""
    name = prefix + row.name
    for _, linear in row.stacks:
        stack = context.source_of(f"{name}.{linear.name}")
        if not {stack, f"{stack}.weight"}.isdisjoint(context.description.types):
            remedy = "vLLM Ascend looks for every expert's own; quantize with an msmodelslim that divides them"
            where = str(context.description.path)
            return None, [Problem(f"{stack} holds all experts in one tensor", where, remedy)]
    members = (
        context.source_of(prefix + linear.member(part)) for linear in row.linears(context.config) for part in linear.of
    )
    return _common_type(name, members, EXPERT_TYPES, context)


def _common_type(
    name: str, members: Iterable[str], supported: Sequence[str], context: Context
) -> tuple[str | None, list[Problem]]:
    """The one type of the modules that are joined into a layer."""
    description = context.description
    where = str(description.path)
    by_type: dict[str, list[str]] = {}
    for member in members:
        quantization = description.type_of(member)
        if quantization is None:
            return None, [Problem(f"{member}.weight has no quantization type", where, "incomplete")]
        by_type.setdefault(UNCOMPRESSED.get(quantization, quantization), []).append(member)
    if len(by_type) > 1:
        listed = ", ".join(f"{_some(alike)} {quantization}" for quantization, alike in by_type.items())
        remedy = "vLLM cannot build such a layer; quantize them alike"
        return None, [Problem(f"members of {name} have different types: {listed}", where, remedy)]
    (quantization,) = by_type
    if quantization not in supported:
        remedy = "supported: " + ", ".join(supported)
        return None, [Problem(f"{name} has type {quantization}, which is not supported", where, remedy)]
    return quantization, []


def _some(members: Sequence[str]) -> str:
    """A few names, and that they are something."""
    if len(members) > 3:
        return f"{', '.join(members[:2])} and {len(members) - 2} more are"
    return f"{', '.join(members)} {'is' if len(members) == 1 else 'are'}"


def _constant(row: Constant, prefix: str, layer: int, context: Context) -> Module:
    name = prefix + row.name
    outputs = tuple(Output(f"{name}.{leaf}", "F32", (), "ones", ((),) * context.tp) for leaf in row.leaves)
    return Module(name, "constant", layer, "FLOAT", outputs, ())


def _norm(row: Norm, prefix: str, layer: int, context: Context) -> Module:
    outputs = []
    sources = []
    size = row.size.of(context.config)
    for leaf in ("weight", "bias") if context.description.has_norm_bias and not row.gemma else ("weight",):
        source = f"{context.source_of(prefix + row.name)}.{leaf}"
        # A bias that the checkpoint does not have is zero: no slices.
        present = leaf == "weight" or source in context.description.types
        slices = (Slice(source, 0, size),) if present else ()
        outputs.append(Output(f"{prefix}{row.name}.{leaf}", "F16", (size,), "float16", (slices,) * context.tp))
        if present:
            sources.append(Source(source, FLOATING, (size,)))
    kind: Literal["norm", "gemma_norm"] = "gemma_norm" if row.gemma else "norm"
    return Module(prefix + row.name, kind, layer, "FLOAT", tuple(outputs), tuple(sources))


def _embedding(row: Embedding, prefix: str, layer: int, context: Context) -> Module:
    vocabulary, size = context.config.vocabulary, context.config.hidden_size
    rows = padded(vocabulary) // context.tp
    tied = context.config.tied and row.tied_to is not None
    name = prefix + row.name
    source = f"{context.source_of(prefix + (row.tied_to or '') if tied else name)}.weight"
    slices = []
    for rank in range(context.tp):
        first, last = (min(edge * rows, vocabulary) for edge in (rank, rank + 1))
        slices.append((Slice(source, first, last),) if first < last else ())
    output = Output(f"{name}.weight", "F16", (rows, size), "float16", tuple(slices))
    return Module(name, "embedding", layer, "FLOAT", (output,), (Source(source, FLOATING, (vocabulary, size)),))


def _whole(row: Whole, prefix: str, layer: int, context: Context) -> Module:
    name, source = context.runtime_of(prefix + row.name), context.source_of(prefix + row.name)
    shapes = {leaf: tuple(size.of(context.config) for size in sizes) for leaf, sizes in row.leaves}
    outputs = tuple(
        Output(f"{name}.{leaf}", "F16", shape, "float16", ((Slice(f"{source}.{leaf}", 0, shape[0]),),) * context.tp)
        for leaf, shape in shapes.items()
    )
    sources = tuple(Source(f"{source}.{leaf}", FLOATING, shape) for leaf, shape in shapes.items())
    return Module(name, "whole", layer, "FLOAT", outputs, sources)


def _not_float(row: Whole, prefix: str, context: Context) -> list[Problem]:
    """A module that vLLM Ascend would build quantized, or not at all."""
    name = context.source_of(prefix + row.name)
    quantization = context.description.type_of(name)
    if not row.looked_up or quantization == "FLOAT":
        return []
    where = str(context.description.path)
    if quantization is None:
        return [Problem(f"{name}.weight has no quantization type", where, "incomplete")]
    return [Problem(f"{name} has type {quantization}, which is not supported", where, "supported: FLOAT")]


def _dealt(row: Dealt, prefix: str, layer: int, context: Context) -> Module:
    name, source = prefix + row.name, context.source_of(prefix + row.name)
    outputs, sources = [], []
    for leaf in row.leaves:
        rest = tuple(size.of(context.config) for size in leaf.rest)
        slices = tuple(
            tuple(
                Slice(f"{source}.{leaf.name}", *edges) for edges in ranges(leaf.deals, context.config, rank, context.tp)
            )
            for rank in range(context.tp)
        )
        rows = sum(piece.rows for piece in slices[0])
        wide = leaf.float32_from is not None and TARGETS.index(context.target) >= TARGETS.index(leaf.float32_from)
        dtype, conversion = _FLOAT32 if wide else _FLOAT16
        outputs.append(Output(f"{name}.{leaf.name}", dtype, (rows, *rest), conversion, slices))
        sources.append(Source(f"{source}.{leaf.name}", FLOATING, (height(leaf.deals, context.config), *rest)))
    return Module(name, "dealt", layer, "FLOAT", tuple(outputs), tuple(sources))


class _Linear:
    """A linear layer's tensors at a tensor-parallel size: which rows and columns each rank has, outputs and sources."""

    def __init__(self, row: Linear, prefix: str, context: Context) -> None:
        config, self._tp = context.config, context.tp
        self.name = context.runtime_of(prefix + row.name)
        self._columns_of_source = row.k.of(config)
        self.members = tuple(
            Member(context.source_of(prefix + row.member(part)), height(part.deals, config)) for part in row.of
        )
        if row.cut == "rows":
            self.k = self._columns_of_source
            self._rows = tuple(
                tuple(ranges(part.deals, config, rank, self._tp) for part in row.of) for rank in range(self._tp)
            )
            self._columns = ((0, 0),) * self._tp
        else:
            self.k = self._columns_of_source // self._tp
            self._rows = (tuple(((0, member.n),) for member in self.members),) * self._tp
            self._columns = tuple((rank * self.k, (rank + 1) * self.k) for rank in range(self._tp))
        self.n = sum(last - first for edges in self._rows[0] for first, last in edges)
        self.outputs: list[Output] = []
        self.sources: list[Source] = []

    def matrix(self, dtype: str, conversion: Conversion, allowed: Sequence[str]) -> None:
        """The weight, cut into rows or columns."""
        slices = tuple(
            tuple(
                Slice(f"{part.name}.weight", *edges, *columns) for part, own in zip(self.members, rows) for edges in own
            )
            for rows, columns in zip(self._rows, self._columns)
        )
        self._add("weight", dtype, (self.n, self.k), conversion, slices)
        self.sources += [
            Source(f"{part.name}.weight", tuple(allowed), (part.n, self._columns_of_source)) for part in self.members
        ]

    def per_row(
        self, leaf: str, dtype: str, conversion: Conversion, allowed: Sequence[str], tail: tuple[int, ...]
    ) -> None:
        """A value per output feature: cut with the rows, else whole on every rank."""
        slices = tuple(
            tuple(Slice(f"{part.name}.{leaf}", *edges) for part, own in zip(self.members, rows) for edges in own)
            for rows in self._rows
        )
        self._add(leaf, dtype, (self.n, *tail), conversion, slices)
        self.sources += [Source(f"{part.name}.{leaf}", tuple(allowed), (part.n, *tail)) for part in self.members]

    def bias(self, description: Description, *, added: bool) -> None:
        """A float bias. vLLM Ascend does not add that of a statically quantized layer, whose quant_bias contains it.

        Such a one may be absent: zeros then.
        """
        self.per_row("bias", "F16", "float16", FLOATING, ())
        absent = {f"{part.name}.bias" for part in self.members} - description.types.keys()
        if absent and not added:
            output = self.outputs.pop()
            self.outputs.append(msgspec.structs.replace(output, slices=((),) * self._tp))
            self.sources = [source for source in self.sources if not source.name.endswith(".bias")]

    def scalar(self, leaf: str, dtype: str, conversion: Conversion) -> None:
        """A value per layer. vLLM copies the members' one after the other; the last in the order of names stays."""
        last = max(part.name for part in self.members)
        self._add(leaf, dtype, (1,), conversion, ((Slice(f"{last}.{leaf}", 0, 1),),) * self._tp)
        self.sources += [Source(f"{part.name}.{leaf}", FLOATING, (1,)) for part in self.members]

    def constant(self, leaf: str, dtype: str, conversion: Conversion) -> None:
        """A value that the checkpoint does not have."""
        self._add(leaf, dtype, (1,), conversion, ((),) * self._tp)

    def _add(
        self,
        leaf: str,
        dtype: str,
        shape: tuple[int, ...],
        conversion: Conversion,
        slices: tuple[tuple[Slice, ...], ...],
    ) -> None:
        self.outputs.append(Output(f"{self.name}.{leaf}", dtype, shape, conversion, slices))


def _linear(row: Linear, prefix: str, layer: int, quantization: str, context: Context) -> Module:
    tensors = _Linear(row, prefix, context)
    if quantization in ("FLOAT", "W16A16S"):
        tensors.matrix("F16", "float16", FLOATING)
    elif quantization == "W8A8_DYNAMIC":
        tensors.matrix("I8", "int8", ("I8",))
        tensors.per_row("weight_scale", "F32", "float32", FLOATING, (1,))
        tensors.per_row("weight_offset", "F32", "float32", FLOATING, (1,))
        if context.target != "0.18":
            tensors.constant("input_scale", "F16", "ones")
            tensors.constant("input_offset", "I8", "zeros")
    else:
        tensors.matrix("I8", "int8", ("I8",))
        tensors.scalar("input_scale", "F16", "float16")
        tensors.scalar("input_offset", "I8", "offset")
        tensors.per_row("quant_bias", "I32", "int32", ("I32",), ())
        tensors.per_row("deq_scale", "I64", "scale_bits", ("I64", "F32"), ())
    if quantization == "W8A8":
        tensors.per_row("weight_scale", "F16", "float16", FLOATING, (1,))
        tensors.per_row("weight_offset", "F16", "float16", FLOATING, (1,))
    if row.bias(context.config):
        tensors.bias(context.description, added=quantization not in STATIC)
    return Module(
        name=tensors.name,
        kind="linear",
        layer=layer,
        quantization=quantization,
        outputs=tuple(tensors.outputs),
        sources=tuple(tensors.sources),
        members=tensors.members,
        n=tensors.n,
        k=tensors.k,
    )


def _experts(row: Experts, prefix: str, layer: int, quantization: str, context: Context) -> Module:
    """Stacks of the experts' matrices, scales and offsets; for 310P no release stores those of the input."""
    name = context.runtime_of(prefix + row.name)
    first, *others = (context.source_of(f"{prefix}{row.name}.{n}.") for n in range(row.count.of(context.config)))
    outputs: list[Output] = []
    sources: list[Source] = []
    for stack, linear in row.stacks:
        expert = _Linear(linear, f"{prefix}{row.name}.0.", context)
        if quantization == "FLOAT":
            expert.matrix("F16", "float16", FLOATING)
        else:
            expert.matrix("I8", "int8", ("I8",))
            expert.per_row("weight_scale", "F32", "float32", FLOATING, (1,))
            expert.per_row("weight_offset", "F16", "float16", FLOATING, (1,))
        for output in expert.outputs:
            leaf = output.name.rpartition(".")[2]
            shape = (1 + len(others), *output.shape)
            slices = _repeated(output.slices, first, others)
            outputs.append(Output(f"{name}.{stack}_{leaf}", output.dtype, shape, output.conversion, slices, leading=2))
        sources += expert.sources
        for other in others:
            sources += [Source(other + s.name.removeprefix(first), s.dtypes, s.shape) for s in expert.sources]
    return Module(name, "experts", layer, quantization, tuple(outputs), tuple(sources))


def _repeated(
    slices: tuple[tuple[Slice, ...], ...], first: str, others: Sequence[str]
) -> tuple[tuple[Slice, ...], ...]:
    """What ranks take of one expert, and behind it the same of the others; by the beginnings of their names."""
    made: dict[tuple[Slice, ...], tuple[Slice, ...]] = {}
    for pieces in slices:
        if pieces in made:
            continue
        tails = [(piece.source.removeprefix(first), piece) for piece in pieces]
        made[pieces] = pieces + tuple(
            Slice(other + tail, piece.first_row, piece.last_row, piece.first_column, piece.last_column)
            for other in others
            for tail, piece in tails
        )
    return tuple(made[pieces] for pieces in slices)


def indivisible(architecture: Architecture, config: ModelConfig, tp: int) -> list[str]:
    """What does not divide at a tensor-parallel size, each once."""
    return list(dict.fromkeys(_indivisible(architecture, config, tp)))


def _indivisible(architecture: Architecture, config: ModelConfig, tp: int) -> Iterator[str]:
    tower = [row for item in architecture.before for row in (item.rows if isinstance(item, Repeated) else (item,))]
    for row in (*tower, *architecture.layer_rows, *architecture.behind):
        for deal in _deals(row):
            count = deal.units.of(config)
            if count % tp and not (deal.repeated and tp % count == 0):
                yield deal.units.text.format(count)


def outnumbered(architecture: Architecture, config: ModelConfig, tp: int) -> list[str]:
    """What there must not be more ranks than.

    Every expert is cut for all ranks, and yet vLLM's sparse blocks refuse more ranks than routed experts
    (Qwen3MoeSparseMoeBlock and Qwen3NextSparseMoeBlock, 0.18.0 and 0.23.0).
    """
    counts = {row.count: row.count.of(config) for row in architecture.layer_rows if isinstance(row, Experts)}
    return [size.text.format(count) for size, count in counts.items() if tp > count]


def _deals(row: Row) -> list[Deal]:
    """What of a row is dealt to the ranks."""
    if isinstance(row, Embedding):
        return [Deal(VOCABULARY, VOCABULARY)]
    if isinstance(row, Dealt):
        return [deal for leaf in row.leaves for deal in leaf.deals]
    if isinstance(row, Experts):
        return [deal for _, linear in row.stacks for deal in _deals(linear)]
    if isinstance(row, Linear):
        return [deal for part in row.of for deal in part.deals] if row.cut == "rows" else [Deal(row.k, row.dealt)]
    return []
