"""Tied embeddings against the checkpoint's tensors: a second table that is another one would be lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from ..checkpoint import Checkpoint, SourceTensor
from ..checkpoint.reader import SourceReader
from ..checkpoint.values import to_float32
from ..errors import Problem
from ..layouts import architecture_of
from ..layouts.words import Embedding

_BLOCK_BYTES: Final = 8 << 20


def lost(checkpoint: Checkpoint) -> Iterator[Problem]:
    """Output tables that config.json ties to another one and that are not equal to it.

    Releases of vLLM drop the one or the other, whichever is loaded last.
    """
    config, tensors = checkpoint.config, checkpoint.tensors
    table = architecture_of(config)
    for row in table.behind:
        if not (isinstance(row, Embedding) and row.tied_to and config.tied):
            continue
        own, other = (tensors.get(f"{table.source_of(name)}.weight") for name in (row.name, row.tied_to))
        if own is not None and other is not None and not _equal(own, other):
            yield Problem(
                f"tie_word_embeddings is true, but {own.name} is not equal to {other.name}; vLLM would use one of them "
                "for both",
                str(config.path),
                f"if it should be false, say so in config.json, else remove {own.name}",
            )


def _equal(first: SourceTensor, second: SourceTensor) -> bool:
    if first.shape != second.shape or not first.shape:
        return False
    step = max(1, _BLOCK_BYTES * first.shape[0] // max(1, first.nbytes))
    reader = SourceReader()
    try:
        for begin in range(0, first.shape[0], step):
            end = min(begin + step, first.shape[0])
            a, b = (to_float32(reader.read_rows(source, begin, end), source.dtype) for source in (first, second))
            if not np.array_equal(a, b, equal_nan=True):
                return False
    finally:
        reader.close()
    return True
