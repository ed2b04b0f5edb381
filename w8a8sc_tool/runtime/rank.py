"""What a rank's process does: hold its part of a model, append tokens, choose the next one."""

from __future__ import annotations

from pathlib import Path

import torch

from .group import Alone, Distributed, Group
from .directory import config_of
from .qwen3 import Qwen3
from .sampling import Sampling, Step
from .state import State, load_checkpoint, load_rank


class Rank:
    """One rank of a model; called in lock step with the others."""

    def __init__(self, folder: str, size: int, rendezvous: str, room: int, threads: int) -> None:
        """folder: a sharded_state directory, or a W8A8S checkpoint if size is 0; rendezvous: a file for the group."""
        torch.set_num_threads(threads)
        self._folder = Path(folder)
        self._size = size
        self._rendezvous = rendezvous
        self._room = room
        self._sampling = Sampling()
        self._random = torch.Generator()

    def load(self, rank: int) -> None:
        """Become a rank; all of them have to be told at once."""
        group: Group = Distributed(rank, self._size, self._rendezvous) if self._size > 1 else Alone()
        state: State = load_rank(self._folder, rank) if self._size else load_checkpoint(self._folder)
        self._model = Qwen3(config_of(self._folder), state, group, room=self._room)

    def start(self, sampling: Sampling) -> None:
        """Begin a new sequence."""
        self._model.reset()
        self._sampling = sampling
        self._random.manual_seed(sampling.seed)

    def append(self, tokens: list[int]) -> Step:
        """Append tokens and choose the one that follows; every rank chooses the same."""
        with torch.inference_mode():
            logits = self._model.forward(torch.tensor(tokens))[-1].float()
        best = logits.topk(min(2, len(logits)))
        margin = float(best.values[0] - best.values[-1])
        return Step(self._choose(logits), margin)

    def logits(self, tokens: list[int]) -> bytes:
        """Teacher-forced logits of a whole sequence: the bytes of float16 [m, vocabulary]."""
        self._model.reset()
        with torch.inference_mode():
            return self._model.forward(torch.tensor(tokens)).numpy().tobytes()

    def _choose(self, logits: torch.Tensor) -> int:
        if self._sampling.temperature == 0:
            return int(logits.argmax())
        if self._sampling.top_k:
            limit = logits.topk(min(self._sampling.top_k, len(logits))).values[-1]
            logits = logits.masked_fill(logits < limit, float("-inf"))
        chances = (logits / self._sampling.temperature).softmax(-1)
        return int(torch.multinomial(chances, 1, generator=self._random))
