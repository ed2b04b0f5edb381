"""What the decoder layers of several architectures have in common: their attention, and their gated MLP."""

from __future__ import annotations

from ..words import (
    HEAD_DIM,
    HEADS,
    HIDDEN,
    INNER,
    QUERY_ROWS,
    Constant,
    Linear,
    Norm,
    Row,
    Size,
    Switch,
    by_heads,
    by_kv_heads,
    by_rows,
    columns,
    fused,
    never,
)


def attention(*, head_norms: bool = False, bias: Switch = never) -> tuple[Row, ...]:
    """Softmax attention. head_norms: whether queries and keys are normalized head by head; bias: of q, k and v."""
    norms = (Norm("self_attn.q_norm", HEAD_DIM), Norm("self_attn.k_norm", HEAD_DIM)) if head_norms else ()
    return (
        fused("self_attn.qkv_proj", (by_heads("q_proj"), by_kv_heads("k_proj"), by_kv_heads("v_proj")), HIDDEN, bias),
        *norms,
        Constant("self_attn.attn", ("_q_scale", "_k_scale", "_v_scale", "_prob_scale")),
        columns("self_attn.o_proj", n=HIDDEN, k=QUERY_ROWS, dealt=HEADS),
    )


def gated_mlp(name: str, inner: Size) -> tuple[Linear, Linear]:
    """Two matrices from the hidden size to an inner one, joined, and one back."""
    dot = "." if name else ""
    return (
        fused(f"{name}{dot}gate_up_proj", (by_rows("gate_proj", inner), by_rows("up_proj", inner)), k=HIDDEN),
        columns(f"{name}{dot}down_proj", n=HIDDEN, k=inner),
    )


MLP: tuple[Row, ...] = gated_mlp("mlp", INNER)


def dense_layer(*, head_norms: bool = False, bias: Switch = never) -> tuple[Row, ...]:
    """A decoder layer of attention and a gated MLP, a norm in front of each."""
    return (
        Norm("input_layernorm", HIDDEN),
        *attention(head_norms=head_norms, bias=bias),
        Norm("post_attention_layernorm", HIDDEN),
        *MLP,
    )
