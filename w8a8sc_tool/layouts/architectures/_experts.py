"""A mixture of experts in place of a decoder layer's MLP: router, routed and shared experts, and their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ...targets import Target
from ..words import Experts, Row, Size, router
from ._decoder import gated_mlp

# FusedMoE of vLLM holds router and shared expert; in 0.27 the stacks have an object of their own, and one is around
# the shared expert. Of parameters with two names, directories have the one that sorts first.
RELEASED: Final[Mapping[Target, tuple[tuple[str, str], ...]]] = {
    "0.18": (
        ("mlp.gate", "mlp.experts._gate"),
        ("mlp.shared_expert", "mlp.experts._shared_experts"),
        ("mlp.shared_expert_gate", "mlp.experts._shared_experts.expert_gate"),
    ),
    "0.23": (
        ("mlp.gate", "mlp.experts.runner.gate"),
        ("mlp.shared_expert", "mlp.experts._shared_experts"),
        ("mlp.shared_expert_gate", "mlp.experts._shared_experts.expert_gate"),
    ),
    "0.27": (
        ("mlp.gate", "mlp.experts._gate"),
        ("mlp.experts", "mlp.experts.routed_experts"),
        ("mlp.shared_expert", "mlp.experts._shared_experts._layer"),
        ("mlp.shared_expert_gate", "mlp.experts._shared_experts._layer.expert_gate"),
    ),
}

EXPERTS: Final = Size("{} experts", lambda config: config.further["num_experts"])
EXPERT_INNER: Final = Size("a moe_intermediate_size of {}", lambda config: config.further["moe_intermediate_size"])
SHARED_INNER: Final = Size(
    "a shared_expert_intermediate_size of {}", lambda config: config.further["shared_expert_intermediate_size"]
)
_ONE: Final = Size("{}", lambda config: 1)


def mixture(*, looked_up: bool) -> tuple[Row, ...]:
    """The router and the experts that it chooses from; looked_up: whether the router's type is."""
    gate_up, down = gated_mlp("", EXPERT_INNER)
    stacks = Experts("mlp.experts", EXPERTS, (("w13", gate_up), ("w2", down)))
    return router("mlp.gate", EXPERTS, looked_up=looked_up), stacks


SHARED_EXPERT: Final[tuple[Row, ...]] = (
    *gated_mlp("mlp.shared_expert", SHARED_INNER),
    router("mlp.shared_expert_gate", _ONE),
)
