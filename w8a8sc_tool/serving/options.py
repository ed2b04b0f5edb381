"""vLLM's options as a user gives them: their names in one spelling, and the numbers among them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from ..errors import UsageError

# Short forms of vLLM's options that concern us (vllm serve --help, 0.18 and 0.23).
_SHORT: Final = {
    "-tp": "tensor-parallel-size",
    "-q": "quantization",
    "-pp": "pipeline-parallel-size",
    "-dp": "data-parallel-size",
    "-dpl": "data-parallel-size-local",
    "-dpr": "data-parallel-start-rank",
    "-dpa": "data-parallel-address",
    "-dpn": "data-parallel-rank",
    "-n": "nnodes",
    "-r": "node-rank",
}
_FLAG: Final = re.compile(r"--?[a-zA-Z]")

# vLLM's lengths: 16k is 16,000, 16K is 16,384; only the decimal units take a fraction.
_LENGTH: Final = re.compile(r"(\d+(?:\.\d+)?)([kmgKMG]?)")
_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

Options = Mapping[str, list[str]]
"""Options by name, spelled with dashes, each with its values."""


def parse_options(words: Sequence[str]) -> dict[str, list[str]]:
    """vLLM's options by name, spelled with dashes, each with its values; raises UsageError for a stray word."""
    options: dict[str, list[str]] = {}
    values: list[str] = []
    for word in words:
        if _FLAG.match(word):
            name, equals, value = word.partition("=")
            name = _SHORT.get(name, name.lstrip("-").replace("_", "-"))
            values = options[name] = [value] if equals else []
        elif not options:
            raise UsageError(
                f"{word} is no option of vllm serve", remedy="options for vLLM follow --, like -- --port 80"
            )
        else:
            values.append(word)
    return options


def length_of(options: Options, name: str) -> int | None:
    """A length that was given, in tokens; None if it was not, or is no length above 0."""
    values = options.get(name, [])
    match = _LENGTH.fullmatch(values[0]) if len(values) == 1 else None
    if match is None or ("." in match[1] and match[2] not in ("k", "m", "g")):
        return None
    return int(float(match[1]) * _UNITS[match[2]]) or None


def count_of(options: Options, name: str) -> int | None:
    """A count that was given; None if it was not, or is no number above 0."""
    values = options.get(name, [])
    return int(values[0]) or None if len(values) == 1 and values[0].isdecimal() and len(values[0]) < 10 else None


def share_of(options: Options, name: str) -> float | None:
    """A share that was given; None if it was not, or is none above 0 and up to 1."""
    values = options.get(name, [])
    try:
        share = float(values[0]) if len(values) == 1 else 0.0
    except ValueError:
        return None
    return share if 0 < share <= 1 else None
