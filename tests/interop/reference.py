"""The bundled runtime's logits of whole sequences, one process per rank."""

from __future__ import annotations

import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def _rank(rank: int, folder: str, tp: int, rendezvous: str, sequences: list[list[int]], results: Any) -> None:
    from w8a8sc_tool.runtime.rank import Rank

    runtime = Rank(folder, tp, rendezvous, 512, 1, 1 << 30)
    runtime.load(rank)
    answers = [runtime.logits(sequence) for sequence in sequences]
    if rank == 0:
        results.put(answers)


def logits(folder: Path, tp: int, sequences: list[list[int]]) -> list[npt.NDArray[np.float32]]:
    """float32 [tokens, vocabulary] per sequence."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = (str(folder), tp, f"{scratch}/rendezvous", sequences, results)
        ranks = [context.Process(target=_rank, args=(rank, *arguments)) for rank in range(tp)]
        for process in ranks:
            process.start()
        answers = results.get(timeout=600)
        for process in ranks:
            process.join()
    shaped = [np.frombuffer(data, np.float16).reshape(len(s), -1) for data, s in zip(answers, sequences)]
    return [values.astype(np.float32) for values in shaped]
