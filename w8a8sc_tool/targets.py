"""The vLLM Ascend releases that directories are written for."""

from __future__ import annotations

import re
from typing import Final, Literal, get_args

Target = Literal["0.18", "0.23", "0.27"]
"""The vLLM Ascend release whose keys are written: one stands for itself and those before the next.

0.27 stands for later ones, too; it is the development version of August 2026, with vLLM 0.27.1. From 0.23 on, a
W8A8_DYNAMIC layer also has an input_scale and an input_offset, of any value. Names inside a mixture of experts differ
in all three: `released` in the architecture's table.
"""
TARGETS: Final[tuple[Target, ...]] = get_args(Target)
DEFAULT_TARGET: Final[Target] = "0.18"  # the release of vLLM Ascend's guide for Atlas 300I Duo


def release_of(version: str) -> tuple[int, int] | None:
    """The first two numbers of a version, or of a target."""
    match = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None


def target_of_version(version: str) -> Target | None:
    """The target that stands for a version of vLLM Ascend; None for what is no version."""
    release = release_of(version)
    if release is None:
        return None
    return next((target for target in reversed(TARGETS) if (release_of(target) or release) <= release), TARGETS[0])
