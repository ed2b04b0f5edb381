"""Patterns that name layers."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matches(pattern: str, names: Iterable[str]) -> bool:
    """Whether a pattern (* and ? as in a shell, with or without `.weight`) fits one of a layer's names."""
    bare = pattern.removesuffix(".weight")
    return any(fnmatchcase(name, bare) for name in names)
