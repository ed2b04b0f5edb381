"""Comparison: do two sharded_state directories hold the same model, and what differs in how it was coded?"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..errors import InputError
from ..io.safetensors import StoredTensor, TensorInfo
from ..sharded_state import ShardedState
from ..workers.machine import default_processes
from ..workers.pool import Pool
from ..workers.progress import Progress, working
from ..workers.tasks import Task, run_all

_HANDLER: Final = "w8a8sc_tool.checking.compare_worker:Comparer"

Tensors = dict[str, StoredTensor]


@dataclass
class Comparison:
    """The outcome: `differences` is empty if both hold the same model.

    same_bytes: all tensors are equal, compressed or not. coding: per directory, how many weights show what, by aspect
    (scope, ties, filler).
    """

    first: Path
    second: Path
    tp: int = 0
    differences: list[str] = field(default_factory=list)
    tensors: int = 0
    compressed_weights: int = 0
    same_bytes: bool = True
    coding: list[dict[str, dict[str, int]]] = field(default_factory=list)

    @property
    def same_model(self) -> bool:
        return not self.differences

    @property
    def exit_code(self) -> int:
        """The command's."""
        return 0 if self.same_model else 1

    def document(self) -> dict[str, Any]:
        """What --json prints: docs/json.md."""
        return {
            "first": str(self.first),
            "second": str(self.second),
            "same_model": self.same_model,
            "same_bytes": self.same_bytes,
            "tensor_parallel_size": self.tp,
            "tensors": self.tensors,
            "compressed_weights": self.compressed_weights,
            "differences": self.differences,
            "coding": self.coding,
        }


def compare(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two sharded_state directories, whoever made them.

    They hold the same model if they have the same tensors with the same values, compressed weights by what they decode
    to. Raises InputError if one is not such a directory.
    """
    result = Comparison(Path(first), Path(second))
    with ShardedState.open(Path(first)) as a, ShardedState.open(Path(second)) as b:
        for state in (a, b):
            if state.problems:
                raise InputError(state.problems)
        result.tp = a.tp
        if a.tp != b.tp:
            result.differences.append(f"tensor-parallel size {a.tp} against {b.tp}")
            return result
        tasks = []
        for rank in range(a.tp):
            modules = [_modules(state, rank) for state in (a, b)]
            for name in sorted({*modules[0], *modules[1]}):
                pair = (modules[0].get(name, {}), modules[1].get(name, {}))
                tasks.append((f"rank {rank}, {name}", pair))
        _run(tasks, result, processes or default_processes(), progress or Progress())
    return result


def _modules(state: ShardedState, rank: int) -> dict[str, Tensors]:
    """The tensors of a rank by module and leaf."""
    by_module: dict[str, Tensors] = {}
    for file in state.ranks.get(rank, []):
        for name, info in file.tensors.items():
            module, _, leaf = name.rpartition(".")
            by_module.setdefault(module, {})[leaf] = StoredTensor(str(file.path), info)
    return by_module


def _run(
    pairs: list[tuple[str, tuple[Tensors, Tensors]]], result: Comparison, processes: int, progress: Progress
) -> None:
    tasks = [Task(name, "compare", pair, _nbytes(pair)) for name, pair in pairs]
    answers: dict[int, Any] = {}
    with (
        working(progress, "comparing", sum(task.nbytes for task in tasks)),
        Pool(processes, _HANDLER, preload=True) as pool,
    ):
        for number, answer in run_all(pool, tasks):
            answers[number] = answer
            progress.advance(tasks[number].nbytes)
    counters: list[dict[str, Counter[str]]] = [{}, {}]
    for number, (name, pair) in enumerate(pairs):
        differences, same_bytes, codings = answers[number]
        result.differences += [f"{name}: {difference}" for difference in differences]
        result.same_bytes = result.same_bytes and same_bytes
        result.tensors += len(pair[0])
        result.compressed_weights += codings[0] is not None
        for counter, coding in zip(counters, codings):
            for aspect, value in (coding or {}).items():
                counter.setdefault(aspect, Counter())[value] += 1
    result.coding = [{aspect: dict(values) for aspect, values in counter.items()} for counter in counters]


def _nbytes(pair: tuple[Tensors, Tensors]) -> int:
    infos: list[TensorInfo] = [tensor.info for tensors in pair for tensor in tensors.values()]
    return sum(info.nbytes for info in infos)
