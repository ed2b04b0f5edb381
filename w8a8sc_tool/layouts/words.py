"""The words an architecture's table is written in: rows for runtime modules, and sizes that a config answers."""

# The rules behind the words are those of vLLM's parallel layers, as vLLM Ascend uses them on 310P: docs/format.md.

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Literal

from ..checkpoint.config import Conventions, ModelConfig
from ..targets import DEFAULT_TARGET, Target

VOCABULARY_PADDING: Final = 64  # vLLM pads embeddings to a multiple of this (DEFAULT_VOCAB_PADDING_SIZE)


def padded(vocabulary: int) -> int:
    """Rows of an embedding: the vocabulary, rounded up to whole paddings."""
    return -(-vocabulary // VOCABULARY_PADDING) * VOCABULARY_PADDING


@dataclass(frozen=True)
class Size:
    """A number that a config answers. text: how a message says it, with {} for the number."""

    text: str
    of: Callable[[ModelConfig], int]


HIDDEN: Final = Size("a hidden size of {}", lambda config: config.hidden_size)
INNER: Final = Size("an intermediate size of {}", lambda config: config.intermediate_size)
HEADS: Final = Size("{} attention heads", lambda config: config.heads)
KV_HEADS: Final = Size("{} key-value heads", lambda config: config.kv_heads)
HEAD_DIM: Final = Size("a head size of {}", lambda config: config.head_dim)
QUERY_ROWS: Final = Size("{} query rows", lambda config: config.heads * config.head_dim)
KEY_ROWS: Final = Size("{} key rows", lambda config: config.kv_heads * config.head_dim)
VOCABULARY: Final = Size("a padded vocabulary of {}", lambda config: padded(config.vocabulary))

Switch = Callable[[ModelConfig], bool]


def never(config: ModelConfig) -> bool:
    return False


def always(config: ModelConfig) -> bool:
    return True


@dataclass(frozen=True)
class Deal:
    """Rows that are dealt to the ranks in units, in their order.

    repeated: whether several ranks hold the same unit where there are more ranks than units (key-value heads).
    """

    rows: Size
    units: Size
    repeated: bool = False

    def range(self, config: ModelConfig, rank: int, tp: int) -> tuple[int, int]:
        """The rows [first, last) of a rank."""
        shards = min(tp, self.units.of(config))
        rows = self.rows.of(config) // shards
        shard = rank * shards // tp
        return shard * rows, (shard + 1) * rows


def height(deals: Iterable[Deal], config: ModelConfig) -> int:
    """Rows of a tensor whose deals lie one below the other."""
    return sum(deal.rows.of(config) for deal in deals)


def ranges(deals: Iterable[Deal], config: ModelConfig, rank: int, tp: int) -> tuple[tuple[int, int], ...]:
    """The rows [first, last) of a rank in such a tensor, one range for each deal."""
    result, top = [], 0
    for deal in deals:
        first, last = deal.range(config, rank, tp)
        result.append((top + first, top + last))
        top += deal.rows.of(config)
    return tuple(result)


@dataclass(frozen=True)
class Part:
    """A module of the checkpoint that is, or is joined into, a linear layer: what lies in it, one below the other."""

    name: str
    deals: tuple[Deal, ...]


def by_heads(name: str) -> Part:
    """Queries: a rank takes its heads."""
    return Part(name, (Deal(QUERY_ROWS, HEADS),))


def by_kv_heads(name: str) -> Part:
    """Keys or values: a rank takes its heads; with more ranks than heads, several take the same one."""
    return Part(name, (Deal(KEY_ROWS, KV_HEADS, repeated=True),))


def by_rows(name: str, rows: Size) -> Part:
    """A matrix whose rows are dealt evenly."""
    return Part(name, (Deal(rows, rows),))


@dataclass(frozen=True)
class Linear:
    """A linear layer: parts joined along the rows, input size k, the axis that is cut, the units that k is dealt in.

    Write it with `fused` or `columns`.
    """

    name: str
    of: tuple[Part, ...]
    k: Size
    cut: Literal["rows", "columns"]
    dealt: Size
    bias: Switch = never

    def member(self, part: Part) -> str:
        """The checkpoint's name of a part, which stands beside the layer."""
        parent, dot, _ = self.name.rpartition(".")
        return f"{parent}{dot}{part.name}"


def fused(name: str, of: tuple[Part, ...], k: Size, bias: Switch = never) -> Linear:
    """Parts joined into one layer and cut along its rows (vLLM's QKV and merged column-parallel layers)."""
    return Linear(name, of, k, "rows", k, bias)


def columns(name: str, n: Size, k: Size, dealt: Size | None = None, bias: Switch = never) -> Linear:
    """One matrix [n, k] cut along its columns; their results are summed over the ranks (vLLM's row-parallel layer)."""
    leaf = name.rpartition(".")[2]
    return Linear(name, (by_rows(leaf, n),), k, "columns", dealt or k, bias)


@dataclass(frozen=True)
class Norm:
    """An RMSNorm over `size` elements, whole on every rank.

    gemma: whether it multiplies by 1 + weight. vLLM Ascend never gives such a one a bias, others one where the
    description has any.
    """

    name: str
    size: Size
    gemma: bool = False


@dataclass(frozen=True)
class Embedding:
    """A table with a row per token of the vocabulary, cut along the padded rows.

    With tied embeddings vLLM saves shared memory once, under the name that sorts first: a table that is
    `dropped_if_tied` is then not there, and one with `tied_to` has that module's rows.
    """

    name: str
    dropped_if_tied: bool = False
    tied_to: str | None = None


@dataclass(frozen=True)
class Constant:
    """Scalars that vLLM registers as buffers and the loader insists on: float32 1.0, without a source."""

    name: str
    leaves: tuple[str, ...]


@dataclass(frozen=True)
class Whole:
    """A module that every rank holds as it is, in float16, and that is never quantized: leaves with their shapes.

    looked_up: whether vLLM Ascend builds it by the type that the description gives it, which has to be FLOAT.
    """

    name: str
    leaves: tuple[tuple[str, tuple[Size, ...]], ...]
    looked_up: bool = False


def router(name: str, choices: Size, *, looked_up: bool = False) -> Whole:
    """A linear layer from the hidden size to a few numbers, never compressed and never cut."""
    return Whole(name, (("weight", (choices, HIDDEN)),), looked_up)


def layer_norm(name: str, size: Size) -> Whole:
    """A LayerNorm, which always has a bias of its own."""
    return Whole(name, (("weight", (size,)), ("bias", (size,))))


@dataclass(frozen=True)
class Leaf:
    """A tensor of a module that is never quantized: rows that are dealt, and the rest of its shape.

    It is float16, but float32 for targets from `float32_from` on.
    """

    name: str
    deals: tuple[Deal, ...]
    rest: tuple[Size, ...] = ()
    float32_from: Target | None = None


@dataclass(frozen=True)
class Dealt:
    """A module that is never quantized and whose tensors are cut along their rows."""

    name: str
    leaves: tuple[Leaf, ...]


@dataclass(frozen=True)
class Experts:
    """The routed experts of a layer, which vLLM joins into stacks [expert, rows, columns]; never compressed.

    In the checkpoint each has modules of its own, under its number behind the name. stacks: by the beginning of a
    stack's tensors, the linear layer that every expert has in it.
    """

    name: str
    count: Size
    stacks: tuple[tuple[str, Linear], ...]

    def linears(self, config: ModelConfig) -> Iterator[Linear]:
        """Every matrix of every expert, as a layer of its own."""
        for number in range(self.count.of(config)):
            for _, linear in self.stacks:
                for part in linear.of:
                    yield replace(linear, name=f"{self.name}.{number}.{part.name}", of=(part,))


Row = Linear | Norm | Embedding | Constant | Whole | Dealt | Experts


@dataclass(frozen=True)
class Repeated:
    """Rows that stand in every one of a number of blocks, which are numbered from 0 behind the name."""

    name: str
    count: Size
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Architecture:
    """A model class of vLLM: what stands before its decoder layers, in each of them, and behind them.

    name: as config.json spells it. layer: the rows of a decoder layer; if layers differ, by the names that layer_types
    of config.json gives them. layers: the prefix of the decoder layers, to which a number is added. defaults: what its
    configuration class in transformers assumes for keys that config.json leaves out. refused: keys of config.json that
    must not be true, with the reason; needed: what others have to be, likewise. config: what the config.json of
    published checkpoints says besides sizes and types, for checkpoints that are made up. text: the key of config.json
    under which the decoder's configuration stands, if not at the top. sizes: further keys that Size may ask for, with
    what their absence means; "a.b" is b of the object a, "b" of the decoder. renamed: prefixes of runtime names and
    what the checkpoint has in their place. own_head_dim: whether vLLM's class asks for head_dim, or always divides
    hidden_size by num_attention_heads. left_out: beginnings of names in the checkpoint that the model class does not
    load, with what is to be known about them. since: the release that first documents the model for 310P. released: by
    target, modules of a decoder layer and what that release calls them.
    """

    name: str
    before: tuple[Row | Repeated, ...]
    layer: tuple[Row, ...] | Mapping[str, tuple[Row, ...]] = field(hash=False)
    behind: tuple[Row, ...]
    layers: str = "model.layers"
    defaults: Mapping[str, Any] = field(default_factory=dict, hash=False)
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)
    refused: Mapping[str, str] = field(default_factory=dict, hash=False)
    text: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict, hash=False)
    renamed: tuple[tuple[str, str], ...] = ()
    own_head_dim: bool = True
    needed: Mapping[str, tuple[object, str]] = field(default_factory=dict, hash=False)
    left_out: tuple[tuple[str, str], ...] = ()
    since: Target = DEFAULT_TARGET
    released: Mapping[Target, tuple[tuple[str, str], ...]] = field(default_factory=dict, hash=False)

    @property
    def conventions(self) -> Conventions:
        """How config.json is read."""
        types = tuple(self.layer) if isinstance(self.layer, Mapping) else ()
        return Conventions(
            *(self.defaults, self.refused, self.text, self.sizes, self.own_head_dim),
            needed=self.needed,
            layer_types=types,
        )

    def source_of(self, name: str) -> str:
        """What the checkpoint calls a module."""
        for runtime, checkpoint in self.renamed:
            if name.startswith(runtime):
                return checkpoint + name.removeprefix(runtime)
        return name

    def rows(self, config: ModelConfig) -> Iterator[tuple[Row, str, int]]:
        """Every row of a model in the order of the forward pass, with the prefix of its name and its layer, or -1."""
        for item in self.before:
            if isinstance(item, Repeated):
                for number in range(item.count.of(config)):
                    yield from ((row, f"{item.name}.{number}.", -1) for row in item.rows)
            elif not _dropped(item, config):
                yield item, "", -1
        for number in range(config.layers):
            rows = self.layer[config.layer_types[number]] if isinstance(self.layer, Mapping) else self.layer
            yield from ((row, f"{self.layers}.{number}.", number) for row in rows)
        yield from ((row, "", -1) for row in self.behind if not _dropped(row, config))

    def runtime_of(self, name: str, target: Target) -> str:
        """What a release calls a module."""
        prefix, _, inside = self._split(name)
        return prefix + _renamed(inside, self.released.get(target, ()))

    def split(self, module: str) -> tuple[int, str]:
        """A module's decoder layer and its name in there, in this table; -1 and the whole name outside of them."""
        _, layer, inside = self._split(module)
        back = [(after, before) for names in self.released.values() for before, after in names]
        return layer, _renamed(inside, sorted(back, key=lambda pair: -len(pair[0])))

    def _split(self, module: str) -> tuple[str, int, str]:
        for prefix in dict.fromkeys((f"{self.layers}.", self.source_of(f"{self.layers}."))):
            number, dot, name = module.removeprefix(prefix).partition(".")
            if module.startswith(prefix) and dot and number.isascii() and number.isdecimal():
                return f"{prefix}{number}.", int(number), name
        return "", -1, module

    def experts_of(self, module: str) -> str | None:
        """The module that joins all routed experts of a layer, of one that is a part of it or that itself."""
        prefix, layer, inside = self._split(module)
        for name in self._experts if layer >= 0 else ():
            if inside in (name, *(_renamed(name, names) for names in self.released.values())):
                return module
            number, dot, _ = inside.removeprefix(f"{name}.").partition(".")
            if inside.startswith(f"{name}.") and dot and number.isdecimal():
                return prefix + name
        return None

    @cached_property
    def _experts(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.layer_rows if isinstance(row, Experts))

    @cached_property
    def layer_rows(self) -> tuple[Row, ...]:
        """The rows of a decoder layer; of all kinds of layers each once, in an order that every kind has them in."""
        if not isinstance(self.layer, Mapping):
            return self.layer
        merged: list[Row] = []
        for rows in self.layer.values():
            position = 0
            for row in rows:
                if row not in merged:
                    merged.insert(position, row)
                position = merged.index(row) + 1
        return tuple(merged)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the modules in a decoder layer, as vLLM has them."""
        return tuple(row.name for row in self.layer_rows)

    @property
    def linear_names(self) -> tuple[str, ...]:
        """Names of the linear layers in a decoder layer, parts before the layer they are joined into."""
        return _linear_names(self.layer_rows)

    def is_linear(self, module: str) -> bool:
        """Whether a module, by its runtime or its checkpoint name, is a linear layer or part of one."""
        layer, name = self.split(module)
        if layer >= 0:
            return name in self.linear_names
        for item in self.before:
            if isinstance(item, Repeated):
                starts = (f"{item.name}.", self.source_of(f"{item.name}."))
                inside = next((module.removeprefix(start) for start in starts if module.startswith(start)), "")
                if inside.partition(".")[2] in _linear_names(item.rows):
                    return True
            elif isinstance(item, Linear) and module in (item.name, self.source_of(item.name)):
                return True
        return False


def _renamed(name: str, names: Iterable[tuple[str, str]]) -> str:
    """A module's name with the first that is it, or that it is inside of, replaced."""
    for before, after in names:
        if name == before or name.startswith(f"{before}."):
            return after + name.removeprefix(before)
    return name


def _dropped(row: Row, config: ModelConfig) -> bool:
    return isinstance(row, Embedding) and row.dropped_if_tied and config.tied


def names_in(rows: Iterable[Row]) -> Iterator[str]:
    """Names of the modules that a checkpoint has for rows, without those of single experts."""
    for row in rows:
        yield from [row.member(part) for part in row.of] if isinstance(row, Linear) else [row.name]


def _linear_names(rows: Iterable[Row]) -> tuple[str, ...]:
    names = []
    for row in rows:
        if isinstance(row, Linear):
            names += [*(row.member(part) for part in row.of), row.name]
    return tuple(dict.fromkeys(names))
