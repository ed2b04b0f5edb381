"""Qwen3-VL's layout: what the tower holds on each rank, under which names, and what has to be refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from w8a8sc_tool.checkpoint import Checkpoint, ModelConfig
from w8a8sc_tool.cli.main import run
from w8a8sc_tool.errors import InputError
from w8a8sc_tool.jobs.inspect import inspect
from w8a8sc_tool.layouts import ARCHITECTURES, Module, check_size, modules, valid_sizes

from ..architectures import make


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("qwen3-vl", tmp_path_factory.mktemp("qwen3-vl"))


@pytest.fixture(scope="module")
def expand(source: Path) -> Callable[[int], dict[str, Module]]:
    checkpoint = Checkpoint.open(source, ARCHITECTURES)

    def at(tp: int) -> dict[str, Module]:
        planned, problems = modules(checkpoint.config, checkpoint.description, tp)
        assert not problems
        return {module.name: module for module in planned}

    return at


def config(source: Path, change: Callable[[dict[str, Any]], object] = lambda content: None) -> ModelConfig:
    content = json.loads((source / "config.json").read_text())
    change(content)
    return ModelConfig.of(content, Path("config.json"), ARCHITECTURES)


def test_names(expand: Callable[[int], dict[str, Module]], source: Path) -> None:
    """Runtime names are vLLM's, source names the checkpoint's: all of its tensors are used."""
    planned = expand(1)
    assert {"visual.pos_embed", "language_model.model.layers.2.mlp.down_proj", "language_model.lm_head"} <= set(planned)
    tensors = set(Checkpoint.open(source, ARCHITECTURES).tensors)
    assert tensors == {piece.name for module in planned.values() for piece in module.sources}
    assert {"model.visual.blocks.1.attn.qkv.bias", "lm_head.weight"} <= tensors


def test_a_rank_takes_its_heads_of_queries_keys_and_values(expand: Callable[[int], dict[str, Module]]) -> None:
    layer = expand(4)["visual.blocks.1.attn.qkv"]
    for output in layer.outputs:  # weight and bias
        cut = [(piece.first_row, piece.last_row) for piece in output.slices[1]]
        assert cut == [(32, 64), (160, 192), (288, 320)]
    assert (layer.n, layer.k) == (96, 128)


def test_what_is_whole(expand: Callable[[int], dict[str, Module]]) -> None:
    planned = expand(4)
    patches, positions = planned["visual.patch_embed.proj"], planned["visual.pos_embed"]
    assert [output.shape for output in patches.outputs] == [(128, 3, 2, 4, 4), (128,)]
    assert positions.weight.shape == (64, 128)
    for module in (patches, positions, planned["visual.blocks.0.norm2"], planned["visual.merger.norm"]):
        assert all(len(set(output.slices)) == 1 for output in module.outputs)


def test_the_towers_norms_give_the_decoders_a_bias(expand: Callable[[int], dict[str, Module]]) -> None:
    """Their keys contain norm.bias, which is what vLLM Ascend looks for."""
    norm = expand(1)["language_model.model.layers.0.self_attn.q_norm"]
    assert [output.name.rpartition(".")[2] for output in norm.outputs] == ["weight", "bias"]
    assert norm.outputs[1].slices == ((),)


def test_heads_of_the_tower_must_divide(source: Path) -> None:
    assert valid_sizes(config(source)) == [1, 2, 4, 8]
    odd = config(source, lambda content: content["vision_config"].update(num_heads=6))
    assert valid_sizes(odd) == [1, 2]
    (problem,) = check_size(odd, 4)
    assert "6 vision heads" in problem.message


def test_tied_embeddings_must_be_said_alike(source: Path) -> None:
    """One release reads the decoder's switch, the other that of the whole model; a directory says both."""
    with pytest.raises(InputError, match="tie_word_embeddings is false and true at the top of the file"):
        config(source, lambda content: content.update(tie_word_embeddings=True))
    made = config(source, lambda content: content["text_config"].pop("tie_word_embeddings")).for_serving()
    assert made["tie_word_embeddings"] is made["text_config"]["tie_word_embeddings"] is False


def test_nothing_takes_the_place_of_the_description(source: Path) -> None:
    quantized = config(source, lambda content: content["text_config"].update(quantization_config={"bits": 8}))
    assert quantized.replaces_description == ["text_config.quantization_config"]
    assert "quantization_config" not in quantized.for_serving()["text_config"]


def test_rotations_of_images_change_nothing_for_text(source: Path) -> None:
    assert config(source).not_run == ()
    with pytest.raises(InputError, match="mrope_section .* does not add up to half of head_dim, 128"):
        config(source, lambda content: content["text_config"]["rope_scaling"].update(mrope_section=[24, 20, 19]))


def test_a_missing_decoder_is_one_problem(source: Path) -> None:
    with pytest.raises(InputError, match="text_config is missing"):
        config(source, lambda content: content.pop("text_config"))
    with pytest.raises(InputError, match=r"num_heads is 0, a size above 0 is wanted, config.json \(vision_config\)"):
        config(source, lambda content: content["vision_config"].update(num_heads=0))
    with pytest.raises(InputError, match="depth is 16777216.*no model has so many"):
        config(source, lambda content: content["vision_config"].update(depth=1 << 24))
    with pytest.raises(InputError, match="vision_config is no object"):
        config(source, lambda content: content.update(vision_config=[1]))


def test_inspect_tells_the_towers_linear_layers(source: Path) -> None:
    rows = {row.name: row for row in inspect(source).modules}
    linear = {name for name, row in rows.items() if row.linear}
    assert {"model.visual.blocks.0.attn.qkv", "model.visual.blocks.1.mlp.linear_fc2"} <= linear
    assert "model.visual.merger.linear_fc1" in linear and "model.visual.pos_embed" not in linear
    assert rows["model.language_model.layers.2.mlp.up_proj"].layer == 2


def test_inspect_shows_a_table_of_the_decoder_alone(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(source)]) == 0
    shown = capsys.readouterr().out.splitlines()
    (head,) = [line for line in shown if line.startswith("layer")]
    assert head.split() == ["layer", "q", "k", "v", "o", "gate", "up", "down", "bytes"]
    assert len(shown) < 12
