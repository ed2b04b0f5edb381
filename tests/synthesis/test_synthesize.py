"""Synthesized checkpoints: as msmodelslim would leave them, the same bytes for the same arguments."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from w8a8sc_tool.errors import InputError, UsageError
from w8a8sc_tool.synthesis.synthesize import MODELS, synthesize

from .. import tensors

WEIGHTS = "quant_model_weight_w8a8s.safetensors"


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_golden_bytes(tmp_path: Path) -> None:
    """Fixed for ever: the generator's stream and every table behind it are the same on every machine."""
    folder = synthesize(tmp_path / "m", "tiny", layers=1, vocabulary=400, seed=7)
    assert digest(folder)[WEIGHTS] == GOLDEN


GOLDEN = "4bad305d50be94ff5f9bd50a0bff1ee704e063989c4f35731bb5d87873857689"


def test_same_arguments_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    a, b, c = (
        digest(synthesize(tmp_path / name, "tiny", layers=1, seed=seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert a == b
    assert a[WEIGHTS] != c[WEIGHTS]


def test_statistics_of_the_recipes(tiny: Path) -> None:
    weight = tensors.array(tensors.read(tiny / WEIGHTS)["model.layers.0.mlp.up_proj.weight"])
    assert 0.010 < np.mean((weight < -8) | (weight > 7)) < 0.012
    values, counts = np.unique(weight, return_counts=True)
    assert values[counts.argmax()] == 0


def test_bias_takes_back_the_input_offset(tiny: Path) -> None:
    content = tensors.read(tiny / WEIGHTS)
    name = "model.layers.1.self_attn.k_proj"
    offset = int(tensors.array(content[f"{name}.input_offset"])[0])
    rows = tensors.array(content[f"{name}.weight"]).astype(np.int64).sum(axis=1)
    np.testing.assert_array_equal(tensors.array(content[f"{name}.quant_bias"]), -offset * rows)


def test_bfloat16_models_have_float32_scales(tmp_path: Path) -> None:
    folder = synthesize(tmp_path / "m", "tiny", layers=1, dtype="bfloat16", tied=True, norm_bias=True)
    content = tensors.read(folder / WEIGHTS)
    assert content["model.layers.0.self_attn.q_proj.deq_scale"][0] == "F32"
    assert content["model.norm.weight"][0] == "BF16"
    assert content["model.layers.0.self_attn.q_norm.bias"][0] == "F32"
    assert "lm_head.weight" not in content


def test_parts_and_types(tmp_path: Path) -> None:
    folder = synthesize(
        tmp_path / "m", "tiny", layers=2, part_bytes=3_000_000, types=[("*.0.*.o_proj", "W8A8"), ("*.up_proj", "FLOAT")]
    )
    index = json.loads((folder / "quant_model_weight_w8a8s.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 2
    assert all(name in tensors.read(folder / file) for name, file in index["weight_map"].items())
    types = json.loads((folder / "quant_model_description.json").read_text())
    assert types["model.layers.0.self_attn.o_proj.weight_scale"] == "W8A8"
    assert types["model.layers.1.mlp.up_proj.weight"] == "FLOAT"
    assert types["model.layers.1.mlp.down_proj.weight"] == "W8A8S"


def test_the_recipes_float_layers() -> None:
    from fnmatch import fnmatchcase

    def floats(preset: str, module: str) -> list[int]:
        model = MODELS[preset]
        return [
            layer
            for layer in range(model.layers)
            if any(fnmatchcase(f"model.layers.{layer}.mlp.{module}", p) for p in model.float_layers)
        ]

    assert floats("qwen3-8b", "gate_proj") == floats("qwen3-8b", "up_proj") == [1, 3, 4, 7, 16]
    for preset in ("qwen3-8b", "qwen3-14b", "qwen3-32b"):
        assert floats(preset, "down_proj") == list(range(MODELS[preset].layers))


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        synthesize(tmp_path)
    with pytest.raises(UsageError, match="presets: "):
        synthesize(tmp_path / "m", "qwen9")
    with pytest.raises(UsageError, match="dtype"):
        synthesize(tmp_path / "m", dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="tokens"):
        synthesize(tmp_path / "m", vocabulary=10)
    with pytest.raises(UsageError, match="W4A4"):
        synthesize(tmp_path / "m", types=[("*", "W4A4")])
    assert not (tmp_path / "m").exists()
