"""Layers that fall back: every kind of layer in one model, told alike in every file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from w8a8sc_tool.checking.verify import verify
from w8a8sc_tool.errors import UsageError
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.jobs.inspect import inspect
from w8a8sc_tool.synthesis.synthesize import synthesize

from .. import tensors
from ..jobs.test_compress import check_values

TYPES = [
    ("*.0.self_attn.*", "W8A8"),
    ("*.1.self_attn.*", "W8A8_DYNAMIC"),
    ("*.1.mlp.down_proj", "W8A8_DYNAMIC"),
    ("*.2.mlp.down_proj", "W8A8"),
    ("*.3.mlp.down_proj", "FLOAT"),
]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("mixed") / "Mixed-w8a8s", "tiny", types=TYPES, dtype="bfloat16")


def test_every_kind_of_layer_in_one_model(mixed: Path, tmp_path: Path) -> None:
    results = compress(mixed, tmp_path, tp=[1, 2], keep=["*.layers.3.self_attn.q_proj", "*.2.mlp.gate_up_proj"])
    for result in results:
        check_values(mixed, result.directory, result.tp)
        assert verify(result.directory, source=mixed).ok
        layers = {layer.name.removeprefix("model.layers."): layer for layer in result.manifest.layers}
        kinds = {name: (layer.quantization, layer.fallback) for name, layer in layers.items()}
        assert kinds["0.self_attn.qkv_proj"] == ("W8A8", "source")
        assert kinds["1.self_attn.o_proj"] == ("W8A8_DYNAMIC", "source")
        assert kinds["3.mlp.down_proj"] == ("FLOAT", "source")
        assert kinds["3.self_attn.qkv_proj"] == ("W8A8S", "pinned")
        assert kinds["2.mlp.gate_up_proj"] == ("W8A8S", "pinned")
        assert kinds["2.self_attn.qkv_proj"] == ("W8A8SC", None)
        rows = {row.name.removeprefix("model.layers."): row for row in inspect(result.directory).modules}
        assert {name: (rows[name].quantization, rows[name].fallback) for name in kinds} == kinds
        description = json.loads((result.directory / "quant_model_description.json").read_text())
        for name, member in (("2.mlp.gate_up_proj", "2.mlp.up_proj"), ("2.self_attn.qkv_proj", "2.self_attn.v_proj")):
            assert description[f"model.layers.{member}.weight"] == kinds[name][0]


def test_targets_differ_in_what_dynamic_layers_have(mixed: Path, tmp_path: Path) -> None:
    (older,) = compress(mixed, tmp_path / "old")
    (newer,) = compress(mixed, tmp_path / "new", target="0.23")
    names = [set(tensors.read(r.directory / "model-rank-0-part-0.safetensors")) for r in (older, newer)]
    extra = names[1] - names[0]
    assert extra == {
        f"model.layers.1.{layer}.{leaf}"
        for layer in ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.down_proj")
        for leaf in ("input_scale", "input_offset")
    }
    assert newer.manifest.options["target"] == "0.23"
    for result in (older, newer):
        (result.directory / "w8a8sc_manifest.json").unlink()  # then the keys tell the release
        assert verify(result.directory, source=mixed).ok


def test_an_uncompressed_directory(mixed: Path, tmp_path: Path) -> None:
    (result,) = compress(mixed, tmp_path, tp=[2], compress=False)
    assert result.directory.name == "Mixed-w8a8s-310-vllm-tp2"
    assert result.weight_ratio is None
    check_values(mixed, result.directory, 2)
    description = json.loads((result.directory / "quant_model_description.json").read_text())
    assert description == json.loads((mixed / "quant_model_description.json").read_text())
    assert verify(result.directory, source=mixed).ok


def test_a_pattern_that_fits_nothing_is_a_mistake(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fits no layer"):
        compress(mixed, tmp_path, keep=["*.experts.*"])
    assert not list(tmp_path.iterdir())
