"""Whether what a journal says of a module can be: a line's hash says that it is as it was written, not who wrote it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, get_args

from ..io import hashing
from ..io.safetensors import TensorInfo, is_count
from ..planning import Fallback, Plan, PlannedModule
from ..sharded_state import JournalEntry
from ..sharded_state.rank_file import ALIGNMENT
from .parts import fixed_forms

_FALLBACKS: Final = get_args(Fallback)


def unplanned(entries: Sequence[JournalEntry], plan: Plan, part_of: Mapping[str, int]) -> JournalEntry | None:
    """The first entry that this version would not have written for a plan; None if all are what it writes.

    part_of: the number of the file, of each rank, that holds a module's tensors. Everything that later code counts on
    is looked at, but for the place in its file and the bytes of a tensor: `DirectoryDraft.adopt` and a worker do that.
    """
    planned = {item.module.name: item for item in plan.modules}
    seen: set[str] = set()
    for entry in entries:
        item = planned.get(entry.module)
        if item is None or entry.module in seen or not _is_of(entry, item, plan.tp, part_of[entry.module]):
            return entry
        seen.add(entry.module)
    return None


def _is_of(entry: JournalEntry, item: PlannedModule, tp: int, part: int) -> bool:
    compressed = item.compress and entry.fallback is None
    sizes = {form.name: form.nbytes for form in fixed_forms(item)}
    small = {name: nbytes for name, nbytes in sizes.items() if nbytes % ALIGNMENT}
    placed = sizes.keys() - small.keys()
    if item.compress:
        leaves = ("weight", "index", "info") if compressed else ("weight",)
        placed |= {f"{item.module.name}.{leaf}" for leaf in leaves}
    return (
        _once_on_each(tp, placed, [(tensor.rank, tensor.info.name) for tensor in entry.tensors])
        and _once_on_each(tp, small, [(rank, name) for rank, name, _, _ in entry.small])
        and all(tensor.part == part and _is_range(tensor.info) for tensor in entry.tensors)
        and all(len(data) == small[name] and hashing.of_bytes(data) == value for _, name, data, value in entry.small)
        and entry.sources.keys() == item.sources.keys()
        and (entry.fallback is None or entry.fallback in _FALLBACKS)
        and len(entry.ratios) in ((tp,) if compressed else (0, tp))
        and all(ratio > 0 for ratio in entry.ratios)
    )


def _once_on_each(tp: int, wanted: Iterable[str], given: Iterable[tuple[int, str]]) -> bool:
    """Whether tensors, by rank and name, are the wanted ones of every rank, each once."""
    return Counter(given) == Counter((rank, name) for rank in range(tp) for name in wanted)


def _is_range(info: TensorInfo) -> bool:
    return is_count(info.begin) and is_count(info.end) and info.begin <= info.end
