"""What callers ask for, in the forms that the rest of the program counts on, and what a directory says of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from ..errors import Problem, UsageError
from ..layouts import DEFAULT_TARGET, TARGETS, Target

DEFAULT_MAX_RATIO: Final = 0.95


class Options(msgspec.Struct, frozen=True):
    """What changes the output besides its input.

    max_ratio: the ratio from which on a layer stays as it is. keep: patterns of layers to leave uncompressed. target:
    the vLLM Ascend release whose keys are written. preset: the name of the one that was used. compress: False leaves
    every layer W8A8S. backend: who compresses.
    """

    max_ratio: float = DEFAULT_MAX_RATIO
    keep: tuple[str, ...] = ()
    target: Target = DEFAULT_TARGET
    preset: str = "none"
    compress: bool = True
    backend: str = "native"

    def document(self) -> dict[str, Any]:
        """The options as they stand in manifests and journals."""
        return dict(msgspec.json.decode(msgspec.json.encode(self)))

    def check(self) -> None:
        """Raises UsageError for values that cannot work."""
        if self.target not in TARGETS:
            raise UsageError(f"there is no target {self.target!r}", remedy="targets: " + ", ".join(TARGETS))
        if not 0 < self.max_ratio < 1:
            raise UsageError(
                f"max ratio {self.max_ratio:g} is not between 0 and 1",
                remedy="a compressed weight as large as the original would be refused by vLLM's loader",
            )


class CompressOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `compress` may be asked for beside its input and output, with the defaults of all its callers.

    Made by `of`. The command's options, the API's keywords and the keys of a batch file's jobs are these.
    """

    tp: tuple[int, ...] = (1,)
    name: str | None = None
    processes: int | None = None
    max_ratio: float | None = None
    keep: tuple[str, ...] = ()
    preset: str = "auto"
    target: Target = DEFAULT_TARGET
    compress: bool = True
    backend: str = "auto"
    executor: str | None = None
    overwrite: bool = False
    resume: bool = True
    verify_output: bool = True

    @classmethod
    def of(cls, *, tp: int | Sequence[int] = (1,), keep: str | Iterable[str] = (), **others: Any) -> CompressOptions:
        """Options from what callers write; raises UsageError for sizes or patterns that are none."""
        return cls(tp=as_sizes(tp), keep=as_patterns(keep), **others)


def from_document(content: Mapping[str, Any], where: str) -> tuple[Options, list[Problem]]:
    """Options as a manifest or a journal has them, absent ones at their defaults; and why they are none.

    What a later version of this program may have written is named as such.
    """
    problems = [
        Problem(f"was made with the option {key[:40]!r}, which this version does not know", where, _UPGRADE)
        for key in content
        if key not in Options.__struct_fields__
    ]
    target = content.get("target", DEFAULT_TARGET)
    if isinstance(target, str) and target not in TARGETS:
        problems.append(
            Problem(
                f"was made for vLLM Ascend {target[:40]!r}, which this version does not know",
                where,
                f"it knows {', '.join(TARGETS)}; {_UPGRADE}",
            )
        )
    if problems:
        return Options(), problems
    try:
        options = msgspec.convert(dict(content), Options)
        options.check()
    except (msgspec.ValidationError, UsageError) as error:
        return Options(), [Problem(f"its options are none ({error})", where)]
    return options, []


def same_options(content: object, options: Options) -> bool:
    """Whether a manifest's or a journal's options mean these; those that it does not name have their defaults."""
    return isinstance(content, Mapping) and from_document(content, "") == (options, [])


_UPGRADE: Final = "use the version that made it, or a later one"


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
