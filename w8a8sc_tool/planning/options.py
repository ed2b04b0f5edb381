"""The options that change the output, with presets and defaults resolved: what a plan and a directory say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..errors import Problem, UsageError
from ..targets import DEFAULT_TARGET, TARGETS, Target

DEFAULT_MAX_RATIO: Final = 0.95


class Options(msgspec.Struct, frozen=True):
    """What changes the output besides its input: the options of `compress` that are marked so (w8a8sc_tool.options).

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
