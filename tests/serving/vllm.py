"""A stand-in for the `vllm` program: it knows vLLM's options by name and how many values each takes, and no others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

SHORT = {"-tp": "--tensor-parallel-size", "-q": "--quantization", "-pp": "--pipeline-parallel-size"}
JSON = {"--additional-config", "--compilation-config"}


class Refused(Exception):
    """As argparse ends a program."""


def options(version: str) -> dict[str, str]:
    """Option -> values it takes: 0, 1, ?, + or *."""
    lines = (Path(__file__).parent / f"vllm_arguments_{version}.txt").read_text().splitlines()
    return dict(line.split() for line in lines if not line.startswith("#"))


def parse(words: Sequence[str], version: str = "0.18") -> dict[str, list[str]]:
    """The options of `vllm serve PATH ...`, spelled with dashes; "" holds the path. Raises Refused."""
    if list(words[:2]) != ["vllm", "serve"]:
        raise Refused(f"not vllm serve: {words[:2]}")
    known, current = options(version), ""
    parsed: dict[str, list[str]] = {"": []}
    for word in words[2:]:
        if word.startswith("--") or word in SHORT:
            name, equals, value = word.partition("=")
            current = SHORT.get(name, name.replace("_", "-"))
            if current not in known:
                raise Refused(f"unrecognized arguments: {word}")
            parsed[current] = [value] if equals else []
        else:
            parsed[current].append(word)
    for name, values in parsed.items():
        arity = known.get(name, "1")
        if {"0": len(values) == 0, "1": len(values) == 1, "+": bool(values)}.get(arity, True) is False:
            raise Refused(f"{name} takes {arity} values, not {values}")
        if name in JSON:
            json.loads(values[0])
    return parsed
