"""Which of a rank's files each module goes to: by the plan alone, so that timing and ratios do not change the files."""

# Linux lets one process at a time write to a file (docs/performance.md, Many cores). Workers are at work on modules
# that follow each other in the plan, so these go to different files; those not compressed are made largest first.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from typing import Any, Final

from ..io.safetensors import TensorInfo, tensor_info
from ..planning import Plan, PlannedModule
from ..planning.plan import output_bytes
from ..sharded_state.rank_file import header_room

# A rank file is at most so large if nobody says otherwise: writing 1 GiB takes a few tenths of a second, as long as the
# largest module takes one worker, and a whole model of 8 GB is then written to eight files at a time.
DEFAULT_FILE_BYTES: Final = 1 << 30
_MOST_SHARES: Final = 16
FILES_PER_RANK: Final = "files_per_rank"  # in the head of a journal; 1 where it is not named


@dataclass(frozen=True)
class Split:
    """How many files a rank has, all ranks alike, and the number of the one that holds a module's tensors.

    header_bytes: of all of them, at the most. asked: whether somebody wants files of this size, so that another number
    of files would not do.
    """

    count: int
    part_of: Mapping[str, int]
    header_bytes: int
    asked: bool


def split_of(plan: Plan, most: int | None, begun: Mapping[str, Any] | None = None) -> Split:
    """The split of a plan's ranks into files of at most `most` bytes, None for the default.

    begun: the head of the journal of unfinished work, which is gone on with in as many files unless `most` is given.
    """
    headers = [header_room((*fixed_forms(item), *largest_forms(item))) for item in plan.modules]
    # A compressed weight is no larger than a plain one: it would not be kept otherwise.
    sizes = [sum(map(output_bytes, item.module.outputs)) + header for item, header in zip(plan.modules, headers)]
    compressed = [item.compress for item in plan.modules]
    count = begun.get(FILES_PER_RANK, 1) if begun is not None and most is None else None
    if type(count) is not int or not 0 < count <= max(1, len(sizes)):
        count = number_of_files(sizes, compressed, DEFAULT_FILE_BYTES if most is None else most)
    parts = deal(sizes, compressed, count)
    part_of = {item.module.name: part for item, part in zip(plan.modules, parts)}
    return Split(count, part_of, sum(headers), most is not None)


def number_of_files(sizes: Sequence[int], compressed: Sequence[bool], most: int) -> int:
    """The fewest files that `deal` fills with at most `most` bytes each, a module larger than that being alone."""
    count = _least_files(sizes, most)
    while count < len(sizes):
        filled, modules = [0] * count, [0] * count
        for size, part in zip(sizes, deal(sizes, compressed, count)):
            filled[part] += size
            modules[part] += 1
        if all(nbytes <= most or number == 1 for nbytes, number in zip(filled, modules)):
            break
        count += 1
    return max(1, min(count, len(sizes)))


def _least_files(sizes: Sequence[int], most: int) -> int:
    """A number of files below which none is enough, however modules are dealt: close to the answer, as each `deal` of
    thousands of modules takes a few milliseconds.

    Of the modules that take more than one of so many shares of a file, it holds one less than there are shares.
    """
    alone = sum(size > most for size in sizes)
    by_bytes = alone + -(-sum(size for size in sizes if size <= most) // most)
    by_shares = (-(-sum(shares * size > most for size in sizes) // (shares - 1)) for shares in range(2, _MOST_SHARES))
    return max(1, by_bytes, *by_shares)


def deal(sizes: Sequence[int], compressed: Sequence[bool], count: int) -> list[int]:
    """The file of each module, given in the order of the plan: each goes to the file that has got least so far.

    First those that are not compressed and those that take more than half of a file, the largest first, which are
    hard to find room for; then the others in their order. Of three files and more, a compressed module's is another one
    than those of the compressed modules before and after it.
    """
    average = sum(sizes) / count
    first = [n for n, size in enumerate(sizes) if not compressed[n] or 2 * size > average]
    rest = sorted(set(range(len(sizes))).difference(first))
    in_turn = [n for n, compress in enumerate(compressed) if compress]
    beside = {n: (*in_turn[max(0, i - 1) : i], *in_turn[i + 1 : i + 2]) for i, n in enumerate(in_turn)}
    parts = [-1] * len(sizes)
    filled = [(0, part) for part in range(count)]  # a heap
    for n in (*sorted(first, key=lambda n: -sizes[n]), *rest):
        taken = {parts[other] for other in beside.get(n, ())} if count > 2 else set()
        passed_over = []
        while filled[0][1] in taken:
            passed_over.append(heappop(filled))
        nbytes, parts[n] = filled[0]
        heapreplace(filled, (nbytes + sizes[n], parts[n]))
        for file in passed_over:
            heappush(filled, file)
    return parts


def fixed_forms(item: PlannedModule) -> list[TensorInfo]:
    """The tensors of a module whose size is known before the work."""
    return [tensor_info(output.name, output.dtype, output.shape) for output in item.fixed]


def largest_forms(item: PlannedModule) -> list[TensorInfo]:
    """The tensors a compressed module may have, with the longest shapes: they decide the space kept for the header."""
    if not item.compress:
        return []
    name, n, k = item.module.name, item.module.n, item.module.row_bytes
    return [
        tensor_info(f"{name}.weight", "I8", (n, k * 10)),
        tensor_info(f"{name}.index", "I8", (n * k,)),
        tensor_info(f"{name}.info", "I64", (5,)),
    ]
