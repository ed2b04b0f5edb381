"""What a checkpoint is, by content: the same wherever it lies and however it is split into files."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..checkpoint import Checkpoint, SourceTensor
from ..io import hashing
from ..workers.pool import Pool
from ..workers.progress import Progress, working
from ..workers.tasks import Task, run_all

_PIECE_BYTES = 256 << 20  # tensors are handed to workers in groups of about this size


def identity(checkpoint: Checkpoint, hashes: Mapping[str, str]) -> str:
    """The digest of a checkpoint, given the hash of every tensor."""
    if checkpoint.identity is not None:
        return checkpoint.identity
    content = {
        "tensors": [[t.name, t.dtype, t.shape, hashes[t.name]] for _, t in sorted(checkpoint.tensors.items())],
        "config": checkpoint.config.content,
        "description": checkpoint.description.content,
        "files": [[file.name, *hashing.of_file(file.path)] for file in checkpoint.side_files],
    }
    return hashing.of_bytes(json.dumps(content, sort_keys=True).encode())


def shallow_identity(checkpoint: Checkpoint) -> str:
    """A digest of all but the tensors' values, which takes no time."""
    return identity(checkpoint, dict.fromkeys(checkpoint.tensors, ""))


def read_identity(checkpoint: Checkpoint, processes: int, progress: Progress) -> str:
    """The digest of a checkpoint, by reading all of it."""
    if checkpoint.identity is not None:
        return checkpoint.identity
    groups: list[list[SourceTensor]] = [[]]
    for tensor in checkpoint.tensors.values():
        if sum(t.nbytes for t in groups[-1]) >= _PIECE_BYTES:
            groups.append([])
        groups[-1].append(tensor)
    tasks = [Task(group[0].name, "hash_sources", (group,), sum(t.nbytes for t in group)) for group in groups if group]
    hashes: dict[str, str] = {}
    with (
        working(progress, "hashing the source", checkpoint.nbytes),
        Pool(processes, "w8a8sc_tool.conversion.worker:Converter", [], 0.0, preload=True) as pool,
    ):
        for number, result in run_all(pool, tasks):
            hashes |= result
            progress.advance(tasks[number].nbytes)
    return identity(checkpoint, hashes)
