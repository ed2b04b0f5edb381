"""The vLLM Ascend releases that directories are written for."""

from __future__ import annotations

from typing import Final, Literal, get_args

Target = Literal["0.18", "0.23"]
"""The vLLM Ascend release whose keys are written: 0.23 stands for itself and later ones.

They differ in one thing: from 0.23 on, a W8A8_DYNAMIC layer also has an input_scale and an input_offset, of any value.
"""
TARGETS: Final[tuple[Target, ...]] = get_args(Target)
DEFAULT_TARGET: Final[Target] = "0.18"  # the release of vLLM Ascend's guide for Atlas 300I Duo
