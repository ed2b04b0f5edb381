"""Qwen3.5's layout: layers by kind, what linear attention holds on each rank, and what has to be refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from w8a8sc_tool.checkpoint import Checkpoint, ModelConfig
from w8a8sc_tool.cli.main import run
from w8a8sc_tool.errors import InputError
from w8a8sc_tool.jobs.compress import plan
from w8a8sc_tool.layouts import ARCHITECTURES, Module, Target, check_size, modules, valid_sizes
from w8a8sc_tool.layouts.architectures._gated_delta_net import SIZES

from .. import tensors
from ..architectures import make
from ..conftest import edit_json

LAYERS = "language_model.model.layers"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four layers, the third of softmax attention: 4 key heads of 64, 8 value heads of 96."""
    return make("qwen3.5", tmp_path_factory.mktemp("qwen3.5"))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """One to damage."""
    folder = make("qwen3.5 tied", tmp_path)
    for path in folder.iterdir():
        path.chmod(0o600)
    return folder


def expand(source: Path, tp: int, target: Target = "0.23") -> dict[str, Module]:
    checkpoint = Checkpoint.open(source, ARCHITECTURES)
    planned, problems = modules(checkpoint.config, checkpoint.description, tp, target)
    assert not problems
    return {module.name: module for module in planned}


def config(source: Path, change: Callable[[dict[str, Any]], object] = lambda text: None) -> ModelConfig:
    content = json.loads((source / "config.json").read_text())
    change(content["text_config"])
    return ModelConfig.of(content, Path("config.json"), ARCHITECTURES)


def ranges(module: Module, rank: int, output: int = 0) -> list[tuple[str, int, int]]:
    return [
        (piece.source.split(".")[-2], piece.first_row, piece.last_row) for piece in module.outputs[output].slices[rank]
    ]


def add(folder: Path, name: str, values: np.ndarray) -> None:
    """A float16 tensor more, described."""
    (path,) = folder.glob("*.safetensors")
    tensors.write(path, tensors.read(path) | {name: tensors.entry("F16", values)})
    edit_json(folder / "quant_model_description.json", lambda content: content.update({name: "FLOAT"}))


def test_layers_are_of_two_kinds(source: Path) -> None:
    planned = expand(source, 1)
    kinds = [f"{LAYERS}.{number}.linear_attn" in planned for number in range(4)]
    assert kinds == [True, True, False, True]
    assert [f"{LAYERS}.{number}.self_attn.o_proj" in planned for number in range(4)] == [not kind for kind in kinds]
    names = {piece.name for module in planned.values() for piece in module.sources}
    left = set(Checkpoint.open(source, ARCHITECTURES).tensors) - names
    assert left == {"mtp.fc.weight", "mtp.norm.weight"}


def test_without_layer_types_the_interval_says_which(source: Path) -> None:
    def forget(text: dict[str, Any]) -> None:
        del text["layer_types"], text["full_attention_interval"]

    assert config(source, forget).layer_types.index("full_attention") == 3
    with pytest.raises(InputError, match="layer_types has sliding_attention.*linear_attention and full_attention"):
        config(source, lambda text: text.update(layer_types=["sliding_attention", *text["layer_types"][1:]]))
    with pytest.raises(InputError, match="layer_types does not name 4 kinds of layers"):
        config(source, lambda text: text["layer_types"].pop())


def test_a_rank_takes_its_heads_of_every_part(source: Path) -> None:
    planned = expand(source, 4)
    projection = planned[f"{LAYERS}.3.linear_attn.in_proj_qkvz"]
    qkv = [("in_proj_qkv", 64, 128), ("in_proj_qkv", 320, 384), ("in_proj_qkv", 704, 896)]
    for output in range(len(projection.outputs)):
        if projection.outputs[output].name.rpartition(".")[2] in ("weight", "quant_bias", "deq_scale"):
            assert ranges(projection, 1, output) == [*qkv, ("in_proj_z", 192, 384)]
    assert (projection.n, projection.k) == (64 + 64 + 192 + 192, 512)
    assert ranges(planned[f"{LAYERS}.0.linear_attn.in_proj_ba"], 3) == [("in_proj_b", 6, 8), ("in_proj_a", 6, 8)]
    kernel = planned[f"{LAYERS}.0.linear_attn.conv1d"]
    assert kernel.weight.shape == (320, 1, 4)
    assert ranges(kernel, 1) == [("conv1d", first, last) for _, first, last in qkv]


def test_the_last_of_the_merged_scalars_is_that_of_z(source: Path) -> None:
    (scale,) = (o for o in expand(source, 2)[f"{LAYERS}.3.linear_attn.in_proj_qkvz"].outputs if "input_scale" in o.name)
    assert {piece.source.split(".")[-2] for rank in scale.slices for piece in rank} == {"in_proj_z"}


def test_queries_keep_their_gates(source: Path) -> None:
    """A head of q_proj is 256 rows of the query, then 256 of its gate."""
    assert ranges(expand(source, 4)[f"{LAYERS}.2.self_attn.qkv_proj"], 1) == [
        ("q_proj", 2 * 512, 4 * 512),
        ("k_proj", 256, 512),
        ("v_proj", 256, 512),
    ]


@pytest.mark.parametrize(("target", "dtype"), [("0.18", "F16"), ("0.23", "F32")])
def test_a_log_is_as_wide_as_the_release_makes_it(source: Path, target: Target, dtype: str) -> None:
    decay, step = expand(source, 2, target)[f"{LAYERS}.1.linear_attn"].outputs
    assert (decay.name.rpartition(".")[2], decay.dtype, decay.shape) == ("A_log", dtype, (4,))
    assert (step.name.rpartition(".")[2], step.dtype) == ("dt_bias", "F16")


def test_norms_of_the_decoder_have_no_bias(own: Path) -> None:
    """Although keys of the tower contain norm.bias; one that is not zero would be lost."""
    checkpoint = Checkpoint.open(own, ARCHITECTURES)
    assert checkpoint.description.has_norm_bias
    norm = expand(own, 1)["language_model.model.norm"]
    assert [output.name for output in norm.outputs] == ["language_model.model.norm.weight"]
    add(own, "model.language_model.layers.1.input_layernorm.bias", np.zeros(512))
    plan(own)
    add(own, "model.language_model.layers.1.input_layernorm.bias", np.ones(512))
    with pytest.raises(InputError, match=r"layers.1.input_layernorm.bias: not zero.*have no bias.*anti_method"):
        plan(own)


def test_layers_of_multi_token_prediction_are_left_out_with_a_note(own: Path) -> None:
    (planned,) = plan(own, target="0.23")
    (note,) = (note for note in planned.warnings if "mtp" in note)
    assert "2 tensors mtp.* are left out: directories serve without multi-token prediction" in note
    assert not any("no place" in note or "from 0.23 on" in note for note in planned.warnings)
    (early,) = plan(own, target="0.18")
    assert any("on 310P from 0.23 on" in note for note in early.warnings)


def test_heads_of_linear_attention_must_divide(source: Path) -> None:
    assert valid_sizes(config(source)) == [1, 2, 4]
    (problem,) = check_size(config(source), 8)
    assert "4 key heads of linear attention" in problem.message and "1, 2, 4" in problem.remedy
    odd = config(source, lambda text: text.update(linear_num_value_heads=6))
    assert valid_sizes(odd) == [1, 2]


@pytest.mark.parametrize("key", list(SIZES))
def test_a_list_is_no_size(key: str, source: Path) -> None:
    with pytest.raises(InputError, match=rf"{key} is \[\], a size above 0 is wanted"):
        config(source, lambda text: text.update({key: []}))


def test_what_vllm_would_build_otherwise_is_refused(source: Path) -> None:
    with pytest.raises(InputError, match="attn_output_gate is false.*without gates"):
        config(source, lambda text: text.update(attn_output_gate=False))
    with pytest.raises(InputError, match="attn_output_gate is null.*without gates"):
        config(source, lambda text: text.update(attn_output_gate=None))
    with pytest.raises(InputError, match="layer_scale is true"):
        config(source, lambda text: text.update(layer_scale=True))
    with pytest.raises(InputError, match=r"mrope_section .* does not add up to half of 0.25 of head_dim, 64"):
        config(source, lambda text: text["rope_parameters"].update(mrope_section=[11, 11, 11]))
    with pytest.raises(InputError, match="linear_num_key_heads is 0, a size above 0 is wanted"):
        config(source, lambda text: text.update(linear_num_key_heads=0))


def test_a_quarter_of_a_head_turns(source: Path) -> None:
    """That is what the key's absence means, and no reason for a note."""
    quiet = config(source, lambda text: text["rope_parameters"].pop("partial_rotary_factor"))
    assert (quiet.rope.partial, quiet.notes) == (0.25, [])
    assert config(source).notes == []
    (note,) = config(
        source, lambda text: text["rope_parameters"].update(partial_rotary_factor=0.5, mrope_section=None)
    ).notes
    assert "partial_rotary_factor 0.5" in note


def test_members_that_disagree_and_sizes_that_are_not_the_weights(own: Path) -> None:
    name = "model.language_model.layers.0.linear_attn.in_proj_z.weight"
    edit_json(own / "quant_model_description.json", lambda content: content.update({name: "W8A8"}))
    with pytest.raises(InputError, match=r"members of .*in_proj_qkvz have different types"):
        plan(own)
    edit_json(own / "quant_model_description.json", lambda content: content.update({name: "W8A8S"}))
    edit_json(own / "config.json", lambda content: content["text_config"].update(num_hidden_layers=4, layer_types=None))
    with pytest.raises(InputError, match="num_hidden_layers is 4 but the weights have 3"):
        plan(own)


def test_layers_of_another_kind_than_the_weights_are_one_problem(own: Path) -> None:
    """The third layer has softmax attention; all that is missing and too much comes of that."""
    kinds = ["linear_attention", "full_attention", "linear_attention"]
    edit_json(own / "config.json", lambda content: content["text_config"].update(layer_types=kinds))
    with pytest.raises(InputError) as caught:
        plan(own)
    (problem,) = caught.value.problems
    assert problem.message == ("layer 1 is full_attention but the weights have linear_attention, and 1 more are wrong")
    edit_json(own / "config.json", lambda content: content["text_config"].pop("layer_types"))
    edit_json(own / "config.json", lambda content: content["text_config"].pop("full_attention_interval"))
    with pytest.raises(InputError, match="layer_types is missing, which means that layer 2 is linear_attention but"):
        plan(own)


@pytest.mark.parametrize(
    ("key", "wrong", "right"),
    [
        ("linear_num_key_heads", 8, 4),
        ("linear_num_value_heads", 16, 8),
        ("linear_value_head_dim", 64, 96),
        ("linear_conv_kernel_dim", 3, 4),
        ("num_key_value_heads", 4, 2),
        ("num_attention_heads", 4, 8),
    ],
)
def test_a_wrong_size_is_one_problem(own: Path, key: str, wrong: int, right: int) -> None:
    """Rows of in_proj_qkv and of the convolution are sums, of which a size is a part."""
    edit_json(own / "config.json", lambda content: content["text_config"].update({key: wrong}))
    with pytest.raises(InputError) as caught:
        plan(own)
    (problem,) = caught.value.problems
    assert problem.message == f"{key} is {wrong} but the weights have {right}"


def test_inspect_shows_both_kinds_in_one_table(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(source)]) == 0
    shown = capsys.readouterr().out.splitlines()
    (head,) = [line for line in shown if line.startswith("layer")]
    assert head.split() == ["layer", *"qkvo", "qkv", "z", "b", "a", "out", "gate", "up", "down", "bytes"]
    assert len(shown) < 16
