"""A mixture of experts in place of a decoder layer's MLP: router, routed experts, and what releases call them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ...targets import Target
from ..words import Experts, Row, Size, router
from ._decoder import gated_mlp

# vLLM's FusedMoE holds the router and, since 0.27, an object of its own for the stacks; of parameters with two names,
# directories have the one that sorts first.
RELEASED: Final[Mapping[Target, tuple[tuple[str, str], ...]]] = {
    "0.18": (("mlp.gate", "mlp.experts._gate"),),
    "0.23": (("mlp.gate", "mlp.experts.runner.gate"),),
    "0.27": (("mlp.gate", "mlp.experts._gate"), ("mlp.experts", "mlp.experts.routed_experts")),
}

EXPERTS: Final = Size("{} experts", lambda config: config.further["num_experts"])
EXPERT_INNER: Final = Size("a moe_intermediate_size of {}", lambda config: config.further["moe_intermediate_size"])


def mixture() -> tuple[Row, ...]:
    """The router and the experts that it chooses from."""
    gate_up, down = gated_mlp("", EXPERT_INNER)
    return router("mlp.gate", EXPERTS), Experts("mlp.experts", EXPERTS, (("w13", gate_up), ("w2", down)))
