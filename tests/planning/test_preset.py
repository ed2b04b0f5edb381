"""Presets: the shipped ones, which model each is for, and what is refused in a file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from w8a8sc_tool.checkpoint import Checkpoint
from w8a8sc_tool.errors import InputError
from w8a8sc_tool.layouts import ARCHITECTURES
from w8a8sc_tool.planning import preset as presets
from w8a8sc_tool.planning.patterns import matches
from w8a8sc_tool.synthesis.synthesize import MODELS, synthesize


def test_shipped_presets_are_those_of_the_published_recipes() -> None:
    shipped = {preset.name: preset for preset in presets.shipped() if preset.float_layers is not None}
    assert set(shipped) == {"qwen3-8b", "qwen3-14b", "qwen3-32b", "qwen3-vl-8b"}
    for name, preset in shipped.items():
        model = MODELS[name]
        assert preset.match is not None
        assert (preset.match.num_hidden_layers, preset.match.hidden_size) == (model.layers, model.hidden_size)
        assert preset.match.architecture == model.architecture
        assert preset.match.intermediate_size == model.intermediate_size
        assert set(preset.float_layers or ()) == set(model.float_layers)
    served = shipped["qwen3-32b"].serving(4)
    assert served is not None and served.capture_sizes == [16, 32]
    other = shipped["qwen3-32b"].serving(2)
    assert other is not None and other.capture_sizes is None


def test_presets_without_a_recipe_are_serving_advice_alone() -> None:
    advice = {preset.name: preset for preset in presets.shipped() if preset.float_layers is None}
    assert {name: list(preset.serve) for name, preset in advice.items()} == {
        "qwen3-30b-a3b": ["2"],
        "qwen3.5-9b": ["1", "2"],
        "qwen3.6-27b": ["2", "4"],
        "qwen3.6-35b-a3b": ["2"],
    }
    for name in advice.keys() & MODELS.keys():
        model, match = MODELS[name], advice[name].match
        assert match == presets.Match(model.architecture, model.layers, model.hidden_size, model.intermediate_size)
    assert advice["qwen3.6-27b"].serving(1) is None


def test_every_shipped_preset_is_recognized_without_parsing_others() -> None:
    for preset in presets.shipped():
        assert preset.match is not None
        sizes = msgspec.structs.astuple(preset.match)
        assert preset in presets.shipped(*sizes) and preset in presets.shipped(preset.name)
        assert preset not in presets.shipped(*sizes[:-1], 10**6)
    assert not [*presets.shipped("a file \udcff")]


def test_a_model_is_recognized_and_deviations_are_told(tmp_path: Path) -> None:
    folder = synthesize(tmp_path / "m", "tiny", layers=2)
    checkpoint = Checkpoint.open(folder, ARCHITECTURES)
    assert presets.choose(checkpoint.config).name == "none"
    own = tmp_path / "own.yaml"
    own.write_text(
        "name: own\nmatch: {architecture: Qwen3ForCausalLM, num_hidden_layers: 2, hidden_size: 512, "
        "intermediate_size: 1536}\nfloat_layers: ['*.down_proj']\nkeep: ['*.o_proj']\n"
    )
    preset = presets.choose(checkpoint.config, str(own))
    (deviation,) = presets.deviations(preset, checkpoint)
    assert deviation.endswith("model.layers.1.mlp.gate_proj is FLOAT, model.layers.1.mlp.up_proj is FLOAT")
    assert presets.choose(checkpoint.config, "qwen3-8b").name == "qwen3-8b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: 1\n", "Expected `str`"),
        ("name: x\nunknown: 1\n", "unknown"),
        ("name: x\nmax_ratio: 1.5\n", "between 0 and 1"),
        ("name: x\nserve: {four: {max_num_seqs: 1, max_model_len: 1}}\n", "neither a TP size nor default"),
        ("- a\n", "a mapping is wanted"),
        ("name: x\nname: y\n", "twice"),
        ("a: &a [x, x]\nname: *a\n", "aliases"),
        ("name: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("[" * 5000, "nested too deeply"),
        ("\x00", "not valid YAML"),
    ],
)
def test_files_that_are_no_presets(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        presets.load(path)
    assert str(path) in str(error.value)


def test_patterns() -> None:
    names = ("model.layers.3.self_attn.qkv_proj", "model.layers.3.self_attn.q_proj")
    assert matches("*.q_proj", names)
    assert matches("model.layers.3.*.weight", names)
    assert matches("*qkv_proj", names)
    assert not matches("q_proj", names)
    assert not matches("*.layers.1.*", names)
