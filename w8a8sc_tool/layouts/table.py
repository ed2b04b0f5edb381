"""The words a layout's table is written in, and how each becomes modules for a tensor-parallel size."""

# The rules are those of vLLM's parallel layers, as vLLM Ascend uses them on 310P: docs/format.md has the list.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from ..checkpoint.config import ModelConfig
from ..checkpoint.description import Description
from .records import FLOATING, Conversion, Member, Module, Output, Slice, Source

VOCABULARY_PADDING = 64  # vLLM pads embeddings to a multiple of this (DEFAULT_VOCAB_PADDING_SIZE)
SUPPORTED_TYPES = ("W8A8S", "W16A16S", "W8A8", "W8A8_DYNAMIC", "FLOAT")

Target = Literal["0.18", "0.23"]
"""The vLLM Ascend release whose keys are written: 0.23 stands for itself and later ones.

They differ in one thing: from 0.23 on, a W8A8_DYNAMIC layer also has an input_scale and an input_offset, of any value.
"""
TARGETS: Final[tuple[Target, ...]] = get_args(Target)
DEFAULT_TARGET: Final[Target] = "0.18"  # the release of vLLM Ascend's guide for Atlas 300I Duo


@dataclass(frozen=True)
class Rows:
    """One member of a row-cut layer: the checkpoint's name and the number of heads (or rows) that are dealt to ranks.

    With more ranks than heads, several ranks hold the same head.
    """

    name: str
    n: int
    heads: int

    def range(self, rank: int, tp: int) -> tuple[int, int]:
        """The rows of a rank."""
        shards = min(tp, self.heads)
        rows = self.n // shards
        shard = rank * shards // tp
        return shard * rows, (shard + 1) * rows


@dataclass(frozen=True)
class Linear:
    """A linear layer: its members joined along the rows, and the axis that tensor parallelism cuts."""

    name: str
    of: tuple[Rows, ...]
    k: int
    cut: Literal["rows", "columns"]
    bias: bool = False


@dataclass(frozen=True)
class Norm:
    """An RMSNorm over `size` elements, whole on every rank."""

    name: str
    size: int


@dataclass(frozen=True)
class Embedding:
    """A table of `rows` vectors of `size`, cut along the padded vocabulary. `source` may be another module (tied)."""

    name: str
    source: str
    rows: int
    size: int


@dataclass(frozen=True)
class Constant:
    """Scalars that vLLM registers as buffers and the loader insists on: float32 1.0, without a source."""

    name: str
    leaves: tuple[str, ...]


Entry = Linear | Norm | Embedding | Constant


def padded(vocabulary: int) -> int:
    return -(-vocabulary // VOCABULARY_PADDING) * VOCABULARY_PADDING


def expand(entry: Entry, layer: int, tp: int, quantization: str, description: Description, target: Target) -> Module:
    """The module of one table row for a tensor-parallel size; quantization: the type of a linear layer."""
    if isinstance(entry, Linear):
        return _linear(entry, layer, tp, quantization, target)
    if isinstance(entry, Norm):
        return _norm(entry, layer, tp, description)
    if isinstance(entry, Embedding):
        return _embedding(entry, layer, tp)
    outputs = tuple(Output(f"{entry.name}.{leaf}", "F32", (), "ones", ((),) * tp) for leaf in entry.leaves)
    return Module(entry.name, "constant", layer, "FLOAT", outputs, ())


def _norm(entry: Norm, layer: int, tp: int, description: Description) -> Module:
    outputs = []
    sources = []
    for leaf in ("weight", "bias") if description.has_norm_bias else ("weight",):
        name = f"{entry.name}.{leaf}"
        # A bias that the checkpoint does not have is zero: no slices.
        present = leaf == "weight" or name in description.types
        slices = (Slice(name, 0, entry.size),) if present else ()
        outputs.append(Output(name, "F16", (entry.size,), "float16", (slices,) * tp))
        if present:
            sources.append(Source(name, FLOATING, (entry.size,)))
    return Module(entry.name, "norm", layer, "FLOAT", tuple(outputs), tuple(sources))


def _embedding(entry: Embedding, layer: int, tp: int) -> Module:
    rows = padded(entry.rows) // tp
    source = f"{entry.source}.weight"
    slices = []
    for rank in range(tp):
        first, last = (min(edge * rows, entry.rows) for edge in (rank, rank + 1))
        slices.append((Slice(source, first, last),) if first < last else ())
    output = Output(f"{entry.name}.weight", "F16", (rows, entry.size), "float16", tuple(slices))
    shape = (entry.rows, entry.size)
    return Module(entry.name, "embedding", layer, "FLOAT", (output,), (Source(source, FLOATING, shape),))


class _Linear:
    """A linear layer's tensors at a tensor-parallel size: which rows and columns each rank has, outputs and sources."""

    def __init__(self, entry: Linear, tp: int) -> None:
        ranks = range(tp)
        self._entry = entry
        self._tp = tp
        if entry.cut == "rows":
            self.k = entry.k
            self._rows = tuple(tuple(part.range(rank, tp) for part in entry.of) for rank in ranks)
            self._columns = ((0, 0),) * tp
        else:
            self.k = entry.k // tp
            self._rows = (tuple((0, part.n) for part in entry.of),) * tp
            self._columns = tuple((rank * self.k, (rank + 1) * self.k) for rank in ranks)
        self.n = sum(last - first for first, last in self._rows[0])
        self.outputs: list[Output] = []
        self.sources: list[Source] = []

    def matrix(self, dtype: str, conversion: Conversion, allowed: Sequence[str]) -> None:
        """The weight, cut into rows or columns."""
        of = self._entry.of
        slices = tuple(
            tuple(Slice(f"{part.name}.weight", *edges, *columns) for part, edges in zip(of, rows))
            for rows, columns in zip(self._rows, self._columns)
        )
        self._add("weight", dtype, (self.n, self.k), conversion, slices)
        self.sources += [Source(f"{part.name}.weight", tuple(allowed), (part.n, self._entry.k)) for part in of]

    def per_row(
        self, leaf: str, dtype: str, conversion: Conversion, allowed: Sequence[str], tail: tuple[int, ...]
    ) -> None:
        """A value per output feature: cut with the rows, else whole on every rank."""
        of = self._entry.of
        slices = tuple(
            tuple(Slice(f"{part.name}.{leaf}", *edges) for part, edges in zip(of, rows)) for rows in self._rows
        )
        self._add(leaf, dtype, (self.n, *tail), conversion, slices)
        self.sources += [Source(f"{part.name}.{leaf}", tuple(allowed), (part.n, *tail)) for part in of]

    def scalar(self, leaf: str, dtype: str, conversion: Conversion) -> None:
        """A value per layer. vLLM copies the members' one after the other; the last in the order of names stays."""
        last = max(part.name for part in self._entry.of)
        self._add(leaf, dtype, (1,), conversion, ((Slice(f"{last}.{leaf}", 0, 1),),) * self._tp)
        self.sources += [Source(f"{part.name}.{leaf}", FLOATING, (1,)) for part in self._entry.of]

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
        self.outputs.append(Output(f"{self._entry.name}.{leaf}", dtype, shape, conversion, slices))


def _linear(entry: Linear, layer: int, tp: int, quantization: str, target: Target) -> Module:
    tensors = _Linear(entry, tp)
    if quantization in ("FLOAT", "W16A16S"):
        tensors.matrix("F16", "float16", FLOATING)
    elif quantization == "W8A8_DYNAMIC":
        tensors.matrix("I8", "int8", ("I8",))
        tensors.per_row("weight_scale", "F32", "float32", FLOATING, (1,))
        tensors.per_row("weight_offset", "F32", "float32", FLOATING, (1,))
        if target != "0.18":
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
    if entry.bias:
        tensors.per_row("bias", "F16", "float16", FLOATING, ())
    members = tuple(Member(part.name, part.n) for part in entry.of)
    found = (tuple(tensors.outputs), tuple(tensors.sources), members)
    return Module(*(entry.name, "linear", layer, quantization), *found, n=tensors.n, k=tensors.k)


def valid_sizes(config: ModelConfig) -> list[int]:
    """The tensor-parallel sizes at which a decoder's dimensions divide, smallest first."""
    return [tp for tp in range(1, 65) if not indivisible(config, tp)]


def indivisible(config: ModelConfig, tp: int) -> list[str]:
    """What does not divide at a tensor-parallel size."""
    found = []
    if config.heads % tp:
        found.append(f"{config.heads} attention heads")
    if config.kv_heads % tp and tp % config.kv_heads:
        found.append(f"{config.kv_heads} key-value heads")
    if config.intermediate_size % tp:
        found.append(f"an intermediate size of {config.intermediate_size}")
    if padded(config.vocabulary) % tp:
        found.append(f"a padded vocabulary of {padded(config.vocabulary)}")
    return found
