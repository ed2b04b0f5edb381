"""The Qwen3 layout: which sizes work, what is cut how, and what has to be refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from w8a8sc_tool.checkpoint import Checkpoint
from w8a8sc_tool.layouts import ARCHITECTURES, Module, check_size, modules, valid_sizes

from ..conftest import edit_json


def expand(folder: Path, tp: int) -> dict[str, Module]:
    checkpoint = Checkpoint.open(folder, ARCHITECTURES)
    assert not check_size(checkpoint.config, tp)
    expanded, problems = modules(checkpoint.config, checkpoint.description, tp)
    assert not problems
    return {module.name: module for module in expanded}


def problems_of(folder: Path) -> str:
    checkpoint = Checkpoint.open(folder, ARCHITECTURES)
    return " | ".join(str(problem) for problem in modules(checkpoint.config, checkpoint.description, 1)[1])


def test_sizes_that_work(tiny: Path) -> None:
    config = Checkpoint.open(tiny, ARCHITECTURES).config  # 12 heads, 4 kv heads, 1536, 2048 tokens
    assert valid_sizes(config) == [1, 2, 4]
    (problem,) = check_size(config, 8)
    assert "12 attention heads" in problem.message
    assert problem.remedy == "sizes that work: 1, 2, 4"
    assert "config.json" in problem.where


def test_names_and_order(tiny: Path) -> None:
    names = list(expand(tiny, 1))
    assert names[0] == "model.embed_tokens"
    assert names[-2:] == ["model.norm", "lm_head"]
    layer = [name.removeprefix("model.layers.0.") for name in names if ".layers.0." in name]
    assert layer == [
        "input_layernorm",
        "self_attn.qkv_proj",
        "self_attn.q_norm",
        "self_attn.k_norm",
        "self_attn.attn",
        "self_attn.o_proj",
        "post_attention_layernorm",
        "mlp.gate_up_proj",
        "mlp.down_proj",
    ]


def test_rows_of_a_fused_layer(tiny: Path) -> None:
    weight = expand(tiny, 2)["model.layers.0.self_attn.qkv_proj"].weight
    cut = [(piece.source.split(".")[-2], piece.first_row, piece.last_row) for piece in weight.slices[1]]
    assert cut == [("q_proj", 768, 1536), ("k_proj", 256, 512), ("v_proj", 256, 512)]
    assert weight.shape == (1280, 512)


def test_more_ranks_than_kv_heads_share_them(tiny_copy: Path) -> None:
    edit_json(tiny_copy / "config.json", lambda c: c.update(num_key_value_heads=2, head_dim=256, num_attention_heads=8))
    weight = expand(tiny_copy, 8)["model.layers.0.self_attn.qkv_proj"].weight
    rows = [(pieces[1].first_row, pieces[1].last_row) for pieces in weight.slices]
    assert rows == [(0, 256)] * 4 + [(256, 512)] * 4


def test_row_parallel_layers_cut_only_the_weight(tiny: Path) -> None:
    module = expand(tiny, 4)["model.layers.0.self_attn.o_proj"]
    by_leaf = {output.name.rpartition(".")[2]: output for output in module.outputs}
    assert [(s[0].first_column, s[0].last_column) for s in by_leaf["weight"].slices] == [
        (0, 384),
        (384, 768),
        (768, 1152),
        (1152, 1536),
    ]
    assert by_leaf["quant_bias"].shape == by_leaf["deq_scale"].shape == (512,)
    assert len(set(by_leaf["quant_bias"].slices)) == 1


def test_padding_falls_on_the_last_ranks(tiny_copy: Path) -> None:
    edit_json(tiny_copy / "config.json", lambda c: c.update(vocab_size=65))
    table = expand(tiny_copy, 4)["lm_head"].weight
    assert table.shape == (32, 512)
    assert [[(p.first_row, p.last_row) for p in pieces] for pieces in table.slices] == [
        [(0, 32)],
        [(32, 64)],
        [(64, 65)],
        [],
    ]


def test_tied_embeddings_are_stored_once(tiny_copy: Path) -> None:
    edit_json(tiny_copy / "config.json", lambda c: c.update(tie_word_embeddings=True))
    expanded = expand(tiny_copy, 1)
    assert "model.embed_tokens" not in expanded
    assert expanded["lm_head"].weight.slices[0][0].source == "model.embed_tokens.weight"


def test_one_norm_bias_gives_every_norm_one(tiny_copy: Path) -> None:
    description = tiny_copy / "quant_model_description.json"
    edit_json(description, lambda c: c.update({"model.layers.0.self_attn.q_norm.bias": "FLOAT"}))
    from w8a8sc_tool.checkpoint import Description, ModelConfig

    config = ModelConfig.parse(tiny_copy / "config.json", ARCHITECTURES)
    expanded, _ = modules(config, Description.parse(description), 2)
    norms = {module.name: module for module in expanded if module.kind == "norm"}
    assert all(len(module.outputs) == 2 for module in norms.values())
    assert norms["model.layers.0.self_attn.q_norm"].outputs[1].slices[0]
    assert not norms["model.norm"].outputs[1].slices[0]  # zeros


def test_attention_bias(tiny_copy: Path) -> None:
    edit_json(tiny_copy / "config.json", lambda c: c.update(attention_bias=True))
    module = expand(tiny_copy, 2)["model.layers.0.self_attn.qkv_proj"]
    assert module.outputs[-1].name.endswith("qkv_proj.bias")
    assert module.outputs[-1].shape == (1280,)


def test_the_last_members_scalars_stay(tiny: Path) -> None:
    expanded = expand(tiny, 2)
    for name, last in (("self_attn.qkv_proj", "v_proj"), ("mlp.gate_up_proj", "up_proj")):
        module = expanded[f"model.layers.0.{name}"]
        scale = next(output for output in module.outputs if output.name.endswith("input_scale"))
        assert scale.slices[1][0].source.endswith(f"{last}.input_scale")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("self_attn.k_proj", "FLOAT", "members of model.layers.0.self_attn.qkv_proj have different types"),
        ("self_attn.o_proj", "W4A16", "type W4A16"),
    ],
)
def test_types_that_do_not_work(tiny_copy: Path, name: str, kind: str, message: str) -> None:
    description = tiny_copy / "quant_model_description.json"
    edit_json(description, lambda c: c.update({f"model.layers.0.{name}.weight": kind}))
    assert message in problems_of(tiny_copy)


def test_a_layer_without_a_type(tiny_copy: Path) -> None:
    edit_json(tiny_copy / "quant_model_description.json", lambda c: c.pop("model.layers.1.mlp.down_proj.weight"))
    assert "model.layers.1.mlp.down_proj.weight has no quantization type" in problems_of(tiny_copy)
