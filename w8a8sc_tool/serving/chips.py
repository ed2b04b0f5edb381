"""Which chips serve: the list in ASCEND_RT_VISIBLE_DEVICES, and how many a deployment takes on this host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..errors import UsageError
from .options import Options, count_of

VARIABLE: Final = "ASCEND_RT_VISIBLE_DEVICES"
_REMEDY: Final = f"write {VARIABLE} like 0,1,2,3, or unset it"

# Options by which a user divides a deployment over hosts: how many chips this one gives is then the user's own affair.
_DIVIDING: Final = (
    "nnodes",
    "node-rank",
    "data-parallel-rank",
    "data-parallel-start-rank",
    "data-parallel-address",
    "data-parallel-external-lb",
    "data-parallel-hybrid-lb",
    "data-parallel-multi-port-external-lb",
)


def parse_chips(text: str) -> list[int]:
    """Numbers of chips, ascending and each once, as CANN wants them; raises UsageError for anything else."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and len(word) < 5 for word in words):
        raise UsageError(f"{VARIABLE}={text[:80]} is not a list of chips' numbers", remedy=_REMEDY)
    chips = [int(word) for word in words]
    if sorted(set(chips)) != chips:
        raise UsageError(f"{VARIABLE}={text[:80]} has to name each chip once, in ascending order", remedy=_REMEDY)
    return chips


def needed(tp: int, options: Options) -> int | None:
    """Chips that this host has to give: TP times data parallelism; None where the user divides a deployment himself."""
    if any(name in options for name in _DIVIDING):
        return None
    copies = count_of(options, "data-parallel-size-local") or count_of(options, "data-parallel-size") or 1
    return tp * copies


def chosen(tp: int, options: Options, environment: Mapping[str, str]) -> list[int] | None:
    """The chips to use: the user's, else the first ones if several are needed; None leaves the choice to CANN.

    Raises UsageError for a list that cannot work.
    """
    count = needed(tp, options)
    if VARIABLE in environment:
        chips = parse_chips(environment[VARIABLE])
        if count is not None and len(chips) < count:
            raise UsageError(
                f"{VARIABLE}={environment[VARIABLE]} names {len(chips)} chips, {count} are needed",
                remedy="name as many, or unset it",
            )
        return chips
    return list(range(count)) if count is not None and count > 1 else None
