"""The layout of Qwen3-MoE: stacks of experts at every size and release, what makes experts impossible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from w8a8sc_tool.checkpoint import Description, ModelConfig
from w8a8sc_tool.errors import InputError, Problem
from w8a8sc_tool.layouts import (
    ARCHITECTURES,
    Module,
    architecture_of,
    check_size,
    expert_members,
    linear_members,
    modules,
)
from w8a8sc_tool.targets import TARGETS, Target

SIZES = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 2,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 1001,
    "num_experts": 3,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 192,
}
MLP = "model.layers.1.mlp."
GATE = f"{MLP}gate.weight"


def config(**changes: Any) -> ModelConfig:
    return ModelConfig.of(SIZES | changes, Path("config.json"), ARCHITECTURES)


def expand(
    tp: int, target: Target = "0.18", experts: str = "W8A8_DYNAMIC", types: dict[str, str | None] | None = None
) -> tuple[dict[str, Module], list[Problem]]:
    model = config()
    described: dict[str, Any] = {f"{name}.weight": "W8A8S" for name in linear_members(model)}
    described |= {f"{name}.weight": experts for name in expert_members(model)}
    described |= dict.fromkeys((GATE, GATE.replace(".1.", ".0.")), "FLOAT")
    described = {name: kind for name, kind in (described | (types or {})).items() if kind}
    planned, problems = modules(model, Description(Path("description"), described, described), tp, target)
    return {module.name: module for module in planned}, problems


def test_experts_are_joined_one_after_the_other() -> None:
    """Of w13 a rank has its gate rows, then its up rows of every expert, and of w2 its columns."""
    outputs = {output.name.rpartition(".")[2]: output for output in expand(2)[0][f"{MLP}experts"].outputs}
    shapes = {name: (output.dtype, output.shape) for name, output in outputs.items()}
    assert shapes == {
        "w13_weight": ("I8", (3, 192, 256)),
        "w13_weight_scale": ("F32", (3, 192, 1)),
        "w13_weight_offset": ("F16", (3, 192, 1)),
        "w2_weight": ("I8", (3, 256, 96)),
        "w2_weight_scale": ("F32", (3, 256, 1)),
        "w2_weight_offset": ("F16", (3, 256, 1)),
    }
    assert (outputs["w2_weight"].rows, outputs["w2_weight"].columns) == (768, 96)
    cut = [
        (piece.source.removeprefix(MLP), piece.first_row, piece.last_row) for piece in outputs["w13_weight"].slices[1]
    ]
    assert cut == [(f"experts.{e}.{name}_proj.weight", 96, 192) for e in range(3) for name in ("gate", "up")]
    columns = [(piece.first_column, piece.last_column) for piece in outputs["w2_weight"].slices[1]]
    assert columns == [(96, 192)] * 3
    assert {len(slices) for slices in outputs["w2_weight_scale"].slices} == {3}
    assert outputs["w2_weight_scale"].slices[0] == outputs["w2_weight_scale"].slices[1]


def test_float_experts_are_weights_alone() -> None:
    outputs = expand(1, experts="FLOAT")[0][f"{MLP}experts"].outputs
    assert [(output.name, output.dtype) for output in outputs] == [
        (f"{MLP}experts.w13_weight", "F16"),
        (f"{MLP}experts.w2_weight", "F16"),
    ]


def test_vllm_wants_no_more_ranks_than_experts() -> None:
    (problem,) = check_size(config(num_attention_heads=16, num_experts=6), 8)
    assert "tensor-parallel size 8 is more than 6 experts" in problem.message
    assert problem.remedy == "sizes that work: 1, 2, 4"


@pytest.mark.parametrize(
    ("target", "router", "stacks"),
    [
        ("0.18", "experts._gate", "experts"),
        ("0.23", "experts.runner.gate", "experts"),
        ("0.27", "experts._gate", "experts.routed_experts"),
    ],
)
def test_every_release_has_names_of_its_own(target: Target, router: str, stacks: str) -> None:
    planned, problems = expand(4, target)
    assert not problems
    gate = planned[MLP + router]
    assert gate.outputs[0].name == f"{MLP}{router}.weight" and gate.sources[0].name == GATE
    assert gate.outputs[0].shape == (3, 256)
    assert planned[MLP + stacks].outputs[0].name == f"{MLP}{stacks}.w13_weight"
    table = architecture_of(config())
    assert table.split(MLP + router) == (1, "mlp.gate") and table.split(MLP + stacks) == (1, "mlp.experts")
    assert table.experts_of(MLP + stacks) == MLP + stacks and table.experts_of(MLP + router) is None
    assert table.experts_of(f"{MLP}experts.2.up_proj") == f"{MLP}experts"


def test_all_releases_are_looked_at() -> None:
    assert TARGETS == ("0.18", "0.23", "0.27")


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ({f"{MLP}experts.2.up_proj.weight": "FLOAT"}, "experts have different types: .*and 6 more are W8A8_DYNAMIC, "),
        ({f"{MLP}experts.2.up_proj.weight": None}, "experts.2.up_proj.weight has no quantization type"),
        ({f"{MLP}experts.gate_up_proj": "W8A8_DYNAMIC"}, "gate_up_proj holds all experts in one tensor"),
        ({GATE: "W8A8_DYNAMIC"}, "mlp.gate has type W8A8_DYNAMIC, which is not supported"),
        ({GATE: None}, "mlp.gate.weight has no quantization type"),
    ],
)
def test_mixtures_that_vllm_would_not_build(types: dict[str, str | None], message: str) -> None:
    (problem,) = expand(1, types=types)[1]
    with pytest.raises(InputError, match=message):
        raise InputError([problem])


@pytest.mark.parametrize("quantization", ["W8A8S", "W8A8", "W16A16S"])
def test_no_release_has_a_scheme_for_other_experts(quantization: str) -> None:
    problems = expand(1, experts=quantization)[1]
    assert len(problems) == 2  # a layer each
    assert f"{MLP}experts has type {quantization}, which is not supported" in problems[1].message
    assert problems[1].remedy == "supported: W8A8_DYNAMIC, FLOAT"


def test_sizes_that_divide_the_experts() -> None:
    many = {"num_attention_heads": 16, "num_experts": 16}
    assert check_size(config(moe_intermediate_size=192, **many), 16) == []
    (problem,) = check_size(config(moe_intermediate_size=200, **many), 16)
    assert "a moe_intermediate_size of 200" in problem.message and problem.remedy == "sizes that work: 1, 2, 4, 8"


@pytest.mark.parametrize(
    ("key", "without", "value"),
    [("mlp_only_layers", [], [1]), ("shared_expert_intermediate_size", 0, 512), ("decoder_sparse_step", 1, 2)],
)
def test_other_layers_are_refused(key: str, without: object, value: object) -> None:
    config(**{key: without})
    with pytest.raises(InputError, match=f"{key} is .*: vLLM would build"):
        config(**{key: value})


def test_a_null_is_a_value() -> None:
    """transformers has an empty list in place of this one, and vLLM divides by that one."""
    config(mlp_only_layers=None)
    with pytest.raises(InputError, match="decoder_sparse_step is null"):
        config(decoder_sparse_step=None)


@pytest.mark.parametrize("value", [[], [1], 0, -1, 1.5, True, None, 10**9])
@pytest.mark.parametrize("key", ["num_experts", "num_experts_per_tok", "moe_intermediate_size"])
def test_what_is_no_size_of_experts_is_one_problem(key: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{key} is .*, a size above 0 is wanted") as caught:
        config(**{key: value})
    assert len(caught.value.problems) == 1


def test_a_token_passes_through_experts_that_there_are() -> None:
    config(num_experts=3, num_experts_per_tok=3)
    with pytest.raises(InputError, match="num_experts_per_tok is 4, but num_experts 3"):
        config(num_experts=3, num_experts_per_tok=4)
