"""generation_config.json: end tokens and sampling as vLLM takes them from it. This file does without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from ..checkpoint import ModelConfig
from ..errors import InputError
from ..io import reading
from ..io.documents import parse_json, read_small
from .sampling import Sampling

NAME: Final = "generation_config.json"
_LARGEST: Final = 16 << 20
_WHOLE: Final = {"top_k"}
_KEYS: Final = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")

# Without a value anywhere vLLM's server samples at this temperature (default_sampling_params of its protocol).
_TEMPERATURE: Final = 1.0


@dataclass(frozen=True)
class Generation:
    """What a model's files say of generating. ends: tokens that end a text."""

    ends: frozenset[int]
    sampling: Sampling

    @classmethod
    def read(cls, folder: Path, config: ModelConfig) -> Generation:
        """Of generation_config.json, or of config.json if there is none; do_sample counts as little as for vLLM.

        Raises InputError for values that mean nothing.
        """
        path = folder / NAME
        there = reading.exists(path)
        content = parse_json(read_small(path, _LARGEST), str(path)) if there else config.content
        where = str(path if there else config.path)
        values = {key: _value(content, key, where) for key in _KEYS if content.get(key) is not None}
        if values.get("top_k") == -1:  # all, in vLLM's other spelling
            values["top_k"] = 0
        sampling = Sampling(**{"temperature": _TEMPERATURE, **values})
        if problem := sampling.problem():
            raise InputError(problem, where)
        return cls(frozenset(_ends(content, where)), sampling)

    def with_values(self, **given: Any) -> Sampling:
        """The sampling with the values that a caller gave; None is none."""
        return msgspec.structs.replace(self.sampling, **{key: v for key, v in given.items() if v is not None})


def _value(content: dict[str, Any], key: str, where: str) -> Any:
    value = content[key]
    if isinstance(value, bool) or not isinstance(value, int if key in _WHOLE else (int, float)):
        raise InputError(f"{key} is {str(value)[:40]}, a number is wanted", where)
    return value


def _ends(content: dict[str, Any], where: str) -> list[int]:
    value = content.get("eos_token_id")
    tokens = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(token, bool) or not isinstance(token, int) for token in tokens):
        raise InputError(f"eos_token_id is {str(value)[:40]}, a token or a list of tokens is wanted", where)
    return tokens
