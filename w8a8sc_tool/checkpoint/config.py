"""config.json: what a model is, for layouts, the runtime and serving advice alike; nothing else reads its keys."""

# Keys that are left out mean what the architecture's configuration class in transformers assumes, and a null counts as
# left out wherever it has no meaning of its own. Both layouts are read: transformers 4's and transformers 5's.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ..errors import InputError
from ..io.documents import parse_json, read_small
from .fields import Fields
from .rope import Rope

NAME: Final = "config.json"
_LARGEST: Final = 16 << 20
_MOST_LAYERS: Final = 4096
_LISTS: Final = ("deepstack_visual_indexes",)  # whose lengths are sizes
_COUNTS: Final = ("depth", *_LISTS)  # of blocks, which are layers of other parts

# What the configuration classes of all architectures here assume; their own defaults are in the layouts' tables.
_COMMON: Final[dict[str, Any]] = {"hidden_act": "silu", "rms_norm_eps": 1e-6}
SIZE_KEYS: Final = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocabulary": "vocab_size",
}
"""The keys of config.json by the fields of ModelConfig that decide the shapes of tensors."""

# vLLM takes these in place of quant_model_description.json.
REPLACE_DESCRIPTION: Final = ("quantization_config", "compression_config")

# vLLM takes the smallest of these where several are given (its derive_max_model_len_and_key).
_LENGTH_KEYS: Final = (
    *("max_seq_len", "seq_length", "model_max_length", "max_sequence_length", "max_seq_length", "seq_len"),
)

# Keys that change what vLLM computes and that no published model here has, with the values that change nothing.
_CHANGES: Final[Mapping[str, tuple[object, ...]]] = {
    "dual_chunk_attention_config": (None, {}),
    "is_causal": (None, True),
    "rotary_emb_base": (None,),
    "rotary_pct": (None, 1, 1.0),
    "rotary_emb_fraction": (None, 1, 1.0),
}


@dataclass(frozen=True)
class Conventions:
    """How config.json of an architecture is read.

    defaults: what its configuration class in transformers assumes for keys that are left out. refused: keys that must
    not be true, or not be above 0, or be empty, with the reason. text: the key of the object that describes the
    decoder, if it is not the file itself. sizes: further keys that are read, "object.key", or "key" of the decoder,
    with what their absence means. own_head_dim: whether vLLM's class asks for head_dim, or always divides hidden_size
    by num_attention_heads. needed: what keys have to be where they are given, with the reason. layer_types: the kinds
    of decoder layers, if they differ in what they consist of.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    own_head_dim: bool = True
    needed: Mapping[str, tuple[object, str]] = field(default_factory=dict)
    layer_types: tuple[str, ...] = ()


Supported = Mapping[str, Conventions]


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches of a decoder model.

    norm_eps: of every RMSNorm. positions: tokens of the longest sequence that vLLM allows. rope: how positions turn.
    window: the sliding window if one is in use. not_run: what changes the model's results and the bundled runtime does
    not compute; the weights are the same with it, and vLLM may compute it. layer_types: the kind of every decoder
    layer, if they differ in what they consist of. further: other sizes that the layout asks for, by "object.key", or
    "key" of the decoder. text_key: where the decoder's configuration stands, empty for the file itself. content: the
    whole file, to be copied.
    """

    path: Path
    architecture: str
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    attention_bias: bool
    norm_eps: float
    positions: int
    rope: Rope
    window: int | None
    not_run: tuple[str, ...]
    layer_types: tuple[str, ...]
    further: Mapping[str, int]
    text_key: str
    content: dict[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, path: Path, supported: Supported) -> ModelConfig:
        """Read config.json; raises InputError for an architecture not in `supported` or values that make no sense.

        supported: by architecture, how its config.json is read.
        """
        content = parse_json(read_small(path, _LARGEST), str(path))
        return cls.of(content, path, supported)

    @classmethod
    def of(cls, content: dict[str, Any], path: Path, supported: Supported) -> ModelConfig:
        """The meaning of a config.json's content; `path` is where it came from."""
        architecture = _architecture(content, path, supported)
        conventions = supported[architecture]
        text = _object(content, conventions.text, path) if conventions.text else content
        where = f"{path} ({conventions.text})" if conventions.text else str(path)
        fields = Fields(text, _COMMON | dict(conventions.defaults), where)
        _check_keys(fields, conventions)
        heads = fields.size("num_attention_heads")
        hidden = fields.size("hidden_size")
        layers = fields.size("num_hidden_layers")
        if layers > _MOST_LAYERS:
            fields.refuse(f"num_hidden_layers is {layers}", "no model has so many")
            raise InputError(fields.problems)
        rope = Rope.parse(fields, images=bool(conventions.text))
        longest = min([fields.size("max_position_embeddings"), *_lengths(fields)])
        window, not_run = _window(fields, layers, longest, conventions.layer_types)
        config = cls(
            path=path,
            architecture=architecture,
            hidden_size=hidden,
            intermediate_size=fields.size("intermediate_size"),
            layers=layers,
            heads=heads,
            kv_heads=fields.size("num_key_value_heads", heads),
            head_dim=fields.size("head_dim", max(1, hidden // heads)),
            vocabulary=fields.size("vocab_size"),
            tied=_tied(fields, content, path),
            attention_bias=fields.switch("attention_bias"),
            norm_eps=fields.number("rms_norm_eps"),
            positions=rope.positions(fields, longest),
            rope=rope,
            window=window,
            not_run=(*rope.not_run, *not_run, *_changes(text)),
            layer_types=_layer_types(fields, layers, conventions.layer_types),
            further=_further(conventions.sizes, content, text, path),
            text_key=conventions.text,
            content=content,
        )
        _check_together(config, fields)
        if not conventions.own_head_dim and config.head_dim * heads != hidden and not fields.problems:
            fields.refuse(
                f"head_dim is {config.head_dim}, {heads} heads of a hidden size of {hidden} have {hidden / heads:g}",
                "vLLM divides and does not look at head_dim in this architecture",
            )
        if fields.problems:
            raise InputError(fields.problems)
        return config

    def with_layers(self, count: int) -> ModelConfig:
        """The same with another number of layers; what is not known of a layer's kind is taken to go on as before."""
        types = tuple(
            self.layer_types[number % len(self.layer_types)] for number in range(count if self.layer_types else 0)
        )
        return replace(self, layers=count, layer_types=types)

    @property
    def replaces_description(self) -> list[str]:
        """Keys that vLLM takes in place of quant_model_description.json."""
        inside = [] if self.text is self.content else [f"{self.text_key}.{key}" for key in _replacing(self.text)]
        return [*_replacing(self.content), *inside]

    @property
    def linear_layers(self) -> int:
        """How many decoder layers have linear attention, which keeps a state in place of keys and values."""
        return self.layer_types.count("linear_attention")

    @property
    def reads_images(self) -> bool:
        """Whether the model is more than its decoder."""
        return bool(self.text_key)

    @property
    def text(self) -> dict[str, Any]:
        """The decoder's configuration."""
        return dict(self.content[self.text_key]) if self.text_key else self.content

    @property
    def notes(self) -> list[str]:
        """What to know about a model that vLLM may run and the bundled runtime does not."""
        if not self.not_run:
            return []
        message = f"{self.path} has {' and '.join(self.not_run)}: vLLM may run it, w8a8sc generate does not"
        if self.window is None:
            return [message]
        return [
            message,
            f"vLLM Ascend's attention on 310P has no sliding window: serve no more than {self.window} tokens",
        ]

    def for_serving(self) -> dict[str, Any]:
        """The content of a directory's config.json: nothing in place of the description, rotation in both layouts.

        vLLM Ascend 0.18 brings transformers 4.57, which takes rope_theta of Qwen3Config (10000) over the one inside
        rope_parameters.
        """
        content = {key: value for key, value in self.content.items() if key not in REPLACE_DESCRIPTION}
        text = {key: value for key, value in self.text.items() if key not in REPLACE_DESCRIPTION}
        if text.get("rope_parameters"):
            text |= self.rope.as_transformers_4()
        if not self.text_key:
            return text
        # vLLM Ascend 0.18 reads the decoder's switch of Qwen3-VL, 0.23 that of the whole model.
        tied = {"tie_word_embeddings": self.tied}
        return content | tied | {self.text_key: text | tied}


def _check_keys(fields: Fields, conventions: Conventions) -> None:
    """Keys that would make vLLM build something else than the layout has."""
    for key, reason in conventions.refused.items():
        if value := fields.get(key):
            fields.refuse(f"{key} is {str(value).lower()[:40]}", reason)
    for key, (wanted, reason) in conventions.needed.items():
        if (value := fields.content.get(key, wanted)) != wanted:
            shown = "null" if value is None else str(value).lower()[:40]
            fields.refuse(f"{key} is {shown}", reason)


def _architecture(content: dict[str, Any], path: Path, supported: Supported) -> str:
    architectures = content.get("architectures")
    if not isinstance(architectures, list) or len(architectures) != 1 or not isinstance(architectures[0], str):
        raise InputError("architectures does not name one architecture", str(path))
    if architectures[0] not in supported:
        raise InputError(
            f"architecture {architectures[0][:80]} is not supported",
            str(path),
            "supported: " + ", ".join(sorted(supported)),
        )
    return architectures[0]


def _replacing(content: Mapping[str, Any]) -> list[str]:
    return [key for key in REPLACE_DESCRIPTION if content.get(key) is not None]


def _object(content: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = content.get(key)
    if not isinstance(value, dict):
        raise InputError(f"{key} is {'missing' if value is None else 'no object'}", str(path), "restore config.json")
    return value


def _tied(fields: Fields, content: dict[str, Any], path: Path) -> bool:
    """Whether embeddings are tied; releases of vLLM read it at the top or with the decoder, so both have to agree."""
    tied = fields.switch("tie_word_embeddings")
    if fields.content is content or "tie_word_embeddings" not in content:
        return tied
    whole = content["tie_word_embeddings"] is True
    if "tie_word_embeddings" in fields.content and tied != whole:
        fields.refuse(
            f"tie_word_embeddings is {str(tied).lower()} and {str(whole).lower()} at the top of the file",
            "vLLM releases read one or the other: write the right one in both places",
        )
    return whole


def _further(sizes: Mapping[str, int], content: dict[str, Any], text: dict[str, Any], path: Path) -> dict[str, int]:
    """Sizes that not every model has, of some keys the length of a list; raises InputError for what is none.

    text: the decoder's configuration, which keys without an object are of.
    """
    result: dict[str, int] = {}
    for key, default in sizes.items():
        owner, _, name = key.rpartition(".")
        inside = content.get(owner) if owner else text
        if inside is not None and not isinstance(inside, dict):
            raise InputError(f"{owner} is no object", str(path), "restore config.json")
        fields = Fields(inside or {}, {name: default}, f"{path} ({owner})" if owner else str(path))
        listed = fields.get(name)
        result[key] = len(listed) if isinstance(listed, list) and name in _LISTS else fields.size(name)
        if name in _COUNTS and result[key] > _MOST_LAYERS:
            fields.refuse(f"{name} is {result[key]}", "no model has so many")
        if fields.problems:
            raise InputError(fields.problems)
    return result


def _lengths(fields: Fields) -> list[int]:
    return [fields.size(key) for key in _LENGTH_KEYS if fields.content.get(key) is not None]


def _layer_types(fields: Fields, layers: int, supported: tuple[str, ...]) -> tuple[str, ...]:
    """The kind of every layer; if it is left out, full_attention_interval says which one is of the last kind."""
    if not supported:
        return ()
    types = fields.get("layer_types")
    if not isinstance(types, list) or len(types) != layers:  # another length has been refused
        interval = fields.size("full_attention_interval")
        return tuple(supported[-1] if number % interval == 0 else supported[0] for number in range(1, layers + 1))
    if unknown := sorted({str(name)[:40] for name in types if name not in supported}):
        fields.refuse(f"layer_types has {', '.join(unknown)}", f"vLLM builds {' and '.join(supported)}")
        return supported[:1] * layers
    return tuple(types)


def _window(fields: Fields, layers: int, longest: int, supported: tuple[str, ...]) -> tuple[int | None, list[str]]:
    """The sliding window that some layer has, and what is not run: kinds of attention other than full.

    supported: those that the architecture consists of.
    """
    types = fields.get("layer_types")
    if types is not None and not (
        isinstance(types, list) and len(types) == layers and all(isinstance(name, str) for name in types)
    ):
        fields.refuse(f"layer_types does not name {layers} kinds of layers, as num_hidden_layers says")
        types = None
    others = sorted({name for name in types or () if name not in ("full_attention", "sliding_attention", *supported)})
    not_run = [f"layer type {name[:40]}" for name in others]
    sliding = "sliding_attention" in (types or ())
    if not (sliding or fields.switch("use_sliding_window")) or fields.get("sliding_window") in (None, 0):
        return None, not_run + (["layer type sliding_attention"] if sliding else [])
    window = fields.size("sliding_window")
    # Where no layer slides, transformers has full attention, but vLLM one window for all.
    if window >= longest:
        return None, not_run
    return window, [*not_run, f"a sliding window of {window}"]


def _changes(content: dict[str, Any]) -> list[str]:
    return [f"{key} {str(content.get(key))[:40]}" for key, same in _CHANGES.items() if content.get(key) not in same]


def _check_together(config: ModelConfig, fields: Fields) -> None:
    """What vLLM refuses to build."""
    if fields.get("hidden_act") != "silu":
        activation = str(fields.get("hidden_act"))[:40]
        fields.refuse(f"hidden_act is {activation}", "vLLM builds this architecture with silu alone")
    if fields.problems:
        return
    if config.heads % config.kv_heads:
        fields.refuse(
            f"num_attention_heads, {config.heads}, is no multiple of num_key_value_heads, {config.kv_heads}",
            "" if "num_key_value_heads" in config.text else "the latter is what the key's absence means: add it",
        )
    experts, chosen = (config.further.get(key) for key in ("num_experts", "num_experts_per_tok"))
    if experts is not None and chosen is not None and chosen > experts:
        fields.refuse(f"num_experts_per_tok is {chosen}, but num_experts {experts}")
    section = config.rope.parameters.get("mrope_section") if config.rope.images else None
    halves = isinstance(section, list) and all(isinstance(size, int) for size in section) and 2 * sum(section)
    turned = config.head_dim * config.rope.partial
    if section is not None and halves != turned:
        part = "head_dim" if config.rope.partial == 1 else f"{config.rope.partial:g} of head_dim"
        fields.refuse(f"mrope_section {str(section)[:40]} does not add up to half of {part}, {turned:g}")
    if config.head_dim % 2:
        fields.refuse(f"head_dim is {config.head_dim}", "rotary embeddings turn pairs")
