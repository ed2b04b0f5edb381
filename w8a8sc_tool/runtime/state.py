"""Where a rank's tensors come from: a sharded_state directory, or a W8A8S checkpoint cut on the fly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..backends.produce import blocks
from ..checkpoint import Checkpoint
from ..checkpoint.reader import SourceReader
from ..errors import InputError
from ..io import hashing
from ..io.safetensors import DTYPES, TensorFile
from ..layouts import ARCHITECTURES
from ..planning import Options, make_plan
from ..sharded_state import ShardedState

State = dict[str, Tensor]


def load_rank(folder: Path, rank: int) -> State:
    """A rank's tensors, mapped into memory; raises InputError if one is not what the manifest says."""
    state: State = {}
    with ShardedState.open(folder) as directory:
        entries = [] if directory.manifest is None else directory.manifest.tensors_of(rank)
        hashes = {entry.name: entry.hash for entry in entries}
        for file in directory.ranks.get(rank, []):
            state |= _mapped(file, hashes)
    return state


def _mapped(file: TensorFile, hashes: dict[str, str]) -> State:
    # Copy-on-write: torch wants memory that it could write to, the file stays as it is.
    data = np.memmap(file.path, np.uint8, "c")
    arrays = {}
    for info in file.tensors.values():
        array = data[info.begin : info.end]
        if info.name in hashes and hashing.of_bytes(array.data) != hashes[info.name]:
            raise InputError(
                "the bytes are not those that were written", f"{file.path} ({info.name})", "see w8a8sc verify"
            )
        if info.begin % DTYPES[info.dtype].itemsize:  # small scalars at the end of a file may lie anywhere
            array = array.copy()
        arrays[info.name] = torch.from_numpy(array.view(DTYPES[info.dtype]).reshape(info.shape))
    return arrays


def load_checkpoint(folder: Path) -> State:
    """All tensors of a W8A8S checkpoint as one rank has them uncompressed: those of `compress --no-compress`."""
    checkpoint = Checkpoint.open(folder, ARCHITECTURES)
    plan = make_plan(checkpoint, 1, Options(compress=False))
    reader = SourceReader()
    state: State = {}
    try:
        for planned in plan.modules:
            for output in planned.module.outputs:
                target = np.empty(output.shape, DTYPES[output.dtype])
                view = target.reshape(-1).view(np.uint8)
                for _, _, position, values in blocks([output], planned.sources, reader):
                    view[position : position + values.nbytes] = values.reshape(-1).view(np.uint8)
                state[output.name] = torch.from_numpy(target)
    finally:
        reader.close()
    return state
