"""The layouts of dense decoders beside Qwen3's: what Llama and Qwen2 have in its place, and how biases are cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from w8a8sc_tool.checkpoint import Description, ModelConfig
from w8a8sc_tool.layouts import ARCHITECTURES, Module, linear_members, modules

SIZES = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1001,
}
QKV = "model.layers.1.self_attn.qkv_proj"


def expand(architecture: str, tp: int, quantization: str = "W8A8S", biases: bool = True) -> dict[str, Module]:
    content: dict[str, Any] = SIZES | {"architectures": [architecture]}
    config = ModelConfig.of(content, Path("config.json"), ARCHITECTURES)
    members = linear_members(config)
    types = {f"{name}.weight": quantization for name in members}
    if biases:
        types |= {f"{name}.bias": "FLOAT" for name in members if name.endswith(("q_proj", "k_proj", "v_proj"))}
    planned, problems = modules(config, Description(Path("description"), types, dict(types)), tp)
    assert not problems
    return {module.name: module for module in planned}


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen2ForCausalLM"])
def test_a_layer_is_qwen3s_without_the_norms_of_heads(architecture: str) -> None:
    planned = expand(architecture, 1)
    assert not any("q_norm" in name or "k_norm" in name for name in planned)
    assert {name.replace(".1.", ".N.") for name in expand("Qwen3ForCausalLM", 1) if ".1." in name} - {
        "model.layers.N.self_attn.q_norm",
        "model.layers.N.self_attn.k_norm",
    } == {name.replace(".1.", ".N.") for name in planned if ".1." in name}
    assert planned[QKV].weight.shape == (12 * 64, 512)


def test_llama_takes_no_bias() -> None:
    assert not any(
        output.name.endswith("proj.bias") for m in expand("LlamaForCausalLM", 2).values() for output in m.outputs
    )


@pytest.mark.parametrize("quantization", ["W8A8S", "W8A8", "W8A8_DYNAMIC", "FLOAT"])
def test_qwen2s_biases_are_cut_with_the_rows(quantization: str) -> None:
    planned = expand("Qwen2ForCausalLM", 4, quantization)
    bias = planned[QKV].outputs[-1]
    assert (bias.name, bias.dtype, bias.shape) == (f"{QKV}.bias", "F16", (4 * 64,))
    cut = [(piece.source.split(".")[-2], piece.first_row, piece.last_row) for piece in bias.slices[1]]
    assert cut == [("q_proj", 128, 256), ("k_proj", 0, 64), ("v_proj", 0, 64)]  # two ranks share a kv head
    others = [name for name, module in planned.items() if module.outputs[-1].name.endswith("proj.bias")]
    assert others == ["model.layers.0.self_attn.qkv_proj", QKV]


def test_only_a_bias_that_is_added_must_be_there() -> None:
    """quant_bias contains that of a statically quantized layer: without it the parameter holds zeros."""
    static = expand("Qwen2ForCausalLM", 2, biases=False)[QKV]
    assert static.outputs[-1].name == f"{QKV}.bias" and static.outputs[-1].slices == ((), ())
    assert not any(source.name.endswith(".bias") for source in static.sources)
    added = expand("Qwen2ForCausalLM", 2, "W8A8_DYNAMIC", biases=False)[QKV]
    assert [s.name.split(".")[-2] for s in added.sources if s.name.endswith(".bias")] == ["q_proj", "k_proj", "v_proj"]
