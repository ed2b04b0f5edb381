"""The next token of a sequence: vLLM's steps in vLLM's order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .sampling import Sampling


class Chooser:
    """Chooses tokens; with one seed always the same ones."""

    def __init__(self, sampling: Sampling, vocabulary: int) -> None:
        self._sampling = sampling
        self._random = torch.Generator().manual_seed(sampling.seed)
        self._seen = torch.zeros(vocabulary, dtype=torch.bool)

    def see(self, tokens: Tensor) -> None:
        """Tokens that are in the sequence from now on, of the prompt or chosen."""
        self._seen[tokens] = True

    def choose(self, logits: Tensor) -> int:
        """The next token from float32 logits [vocabulary]."""
        sampling = self._sampling
        if sampling.repetition_penalty != 1:
            penalty = sampling.repetition_penalty
            logits = torch.where(self._seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
        if sampling.temperature == 0:
            return int(logits.argmax())
        logits = logits / sampling.temperature
        if sampling.min_p:
            logits = logits.masked_fill(logits < logits.max() + math.log(sampling.min_p), -math.inf)
        if sampling.top_k:
            limit = logits.topk(min(sampling.top_k, len(logits))).values[-1]
            logits = logits.masked_fill(logits < limit, -math.inf)
        if sampling.top_p < 1:
            logits = _nucleus(logits, sampling.top_p)
        return int(torch.multinomial(logits.softmax(-1), 1, generator=self._random))


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Without the least likely tokens that have at most 1 - top_p together; the best one stays."""
    ascending, order = logits.sort()
    outside = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    outside[-1] = False
    return logits.masked_fill(torch.zeros_like(outside).scatter(0, order, outside), -math.inf)
