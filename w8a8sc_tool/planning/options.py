"""What callers ask for, in the forms that the rest of the program counts on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import UsageError


def as_sizes(tp: int | Sequence[int]) -> tuple[int, ...]:
    """Tensor-parallel sizes, of which there is at least one, each once; a number stands for itself alone.

    Raises UsageError for anything else.
    """
    sizes = (tp,) if isinstance(tp, int) else tuple(tp)
    if not sizes or len(set(sizes)) != len(sizes):
        raise UsageError("tensor-parallel sizes must be given, each once")
    for size in sizes:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise UsageError(f"tensor-parallel size {size!r} is not a positive number")
    return sizes


def as_patterns(keep: str | Iterable[str]) -> tuple[str, ...]:
    """Patterns of layers; a text is one pattern. Raises UsageError for what is no text."""
    patterns = (keep,) if isinstance(keep, str) else tuple(keep)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise UsageError(f"{pattern!r} is not a pattern of layers' names")
    return patterns
