"""How a token is chosen, and what came of it: what the ranks and their caller tell each other."""

from __future__ import annotations

import msgspec


class Sampling(msgspec.Struct, frozen=True):
    """How the next token is chosen: temperature 0 takes the most likely one."""

    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0


class Step(msgspec.Struct, frozen=True):
    """The next token, and by how much the best logit leads the second, in standard deviations of the logits."""

    token: int
    margin: float
