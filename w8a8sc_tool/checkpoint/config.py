"""config.json: the sizes of a model, as far as a layout needs them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import InputError, Problem
from ..io.documents import parse_json, read_small

NAME: Final = "config.json"
_LARGEST: Final = 16 << 20
_LARGEST_SIZE: Final = 1 << 24  # no dimension of a model comes near


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches of a decoder model; `content` is the whole file."""

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
    content: dict[str, Any]

    @classmethod
    def parse(cls, path: Path, supported: tuple[str, ...]) -> ModelConfig:
        """Read config.json; raises InputError for an architecture not in `supported` or sizes that make no sense."""
        content = parse_json(read_small(path, _LARGEST), str(path))
        architectures = content.get("architectures")
        if not isinstance(architectures, list) or len(architectures) != 1 or not isinstance(architectures[0], str):
            raise InputError("architectures does not name one architecture", str(path))
        if architectures[0] not in supported:
            raise InputError(
                f"architecture {architectures[0][:80]} is not supported",
                str(path),
                "supported: " + ", ".join(sorted(supported)),
            )
        problems: list[Problem] = []

        def size(key: str, default: int | None = None) -> int:
            value = content.get(key, default)
            if value is None and default is not None:
                value = default
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LARGEST_SIZE:
                problems.append(Problem(f"{key} is {str(value)[:40]}, a size above 0 is wanted", str(path)))
                return 1
            return value

        def switch(key: str) -> bool:
            value = content.get(key, False)
            if not isinstance(value, bool):
                problems.append(Problem(f"{key} is {str(value)[:40]}, true or false is wanted", str(path)))
            return value is True

        heads = size("num_attention_heads")
        hidden = size("hidden_size")
        config = cls(
            path=path,
            architecture=architectures[0],
            hidden_size=hidden,
            intermediate_size=size("intermediate_size"),
            layers=size("num_hidden_layers"),
            heads=heads,
            kv_heads=size("num_key_value_heads", heads),
            head_dim=size("head_dim", max(1, hidden // heads)),
            vocabulary=size("vocab_size"),
            tied=switch("tie_word_embeddings"),
            attention_bias=switch("attention_bias"),
            content=content,
        )
        if problems:
            raise InputError(problems)
        if config.layers > 4096:
            raise InputError(f"num_hidden_layers is {config.layers}", str(path), "no model has so many")
        return config
