"""How a token is chosen, and what came of it: what the ranks and their caller tell each other."""

from __future__ import annotations

import math

import msgspec


class Sampling(msgspec.Struct, frozen=True):
    """How the next token is chosen, in vLLM's terms; temperature 0 takes the most likely one.

    top_k: among how many tokens, 0 for all. top_p: among the most likely ones that have this probability together.
    min_p: among those with at least this share of the best one's probability. repetition_penalty: divides the logits of
    tokens that were there before, prompt included (a negative one is multiplied).
    """

    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def document(self) -> dict[str, float]:
        """The values by their names, in the order of the command line."""
        names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
        return {name: getattr(self, name) for name in names}

    def problem(self) -> str | None:
        """What is wrong with the values, if anything is: vLLM refuses the same."""
        if not 0 <= self.temperature < math.inf:
            return f"temperature is {self.temperature:g}, 0 or more is wanted"
        if self.top_k < 0:
            return f"top_k is {self.top_k}, 0 (all) or more is wanted"
        if not 0 < self.top_p <= 1:
            return f"top_p is {self.top_p:g}, more than 0 and at most 1 is wanted"
        if not 0 <= self.min_p <= 1:
            return f"min_p is {self.min_p:g}, 0 to 1 is wanted"
        if not 0 < self.repetition_penalty < math.inf:
            return f"repetition_penalty is {self.repetition_penalty:g}, more than 0 is wanted"
        return None


class Step(msgspec.Struct, frozen=True):
    """The next token, and by how much the best logit leads the second, in standard deviations of the logits."""

    token: int
    margin: float
