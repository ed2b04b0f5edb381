"""Synthesized checkpoints: as msmodelslim would leave them, the same bytes for the same arguments."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from w8a8sc_tool.cli.main import run
from w8a8sc_tool.errors import InputError, UsageError
from w8a8sc_tool.synthesis.synthesize import MODELS, synthesize

from .. import tensors

WEIGHTS = "quant_model_weight_w8a8s.safetensors"


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    ("m4", "dtype", "golden"),
    [
        (False, "float16", "fc87b58a29f7d5630de017f73916520f7ccf4382e9db8c9cf5a6f4f8df8a73af"),
        (True, "bfloat16", "c4ab91fed349ad98f09c8a19d5cdcf059b059cb9c1fdc7ccae29d3a2656b2e22"),
    ],
)
def test_golden_bytes(m4: bool, dtype: Any, golden: str, tmp_path: Path) -> None:
    """The generator's stream, every table behind it and every sum are the same on every machine."""
    folder = synthesize(tmp_path / "m", "tiny", layers=1, vocabulary=400, seed=7, m4=m4, dtype=dtype)
    assert digest(folder)[WEIGHTS] == golden


def test_same_arguments_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    a, b, c = (
        digest(synthesize(tmp_path / name, "tiny", layers=1, seed=seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert a == b
    assert a[WEIGHTS] != c[WEIGHTS]


@pytest.mark.parametrize(
    ("preset", "zeros", "outside", "entropy"),
    [("tiny", (0.15, 0.18), (0.001, 0.005), (3.33, 3.48)), ("qwen3-32b", (0.1, 0.12), (0.038, 0.042), (3.94, 4.03))],
)
def test_statistics_of_the_recipes(
    preset: str,
    zeros: tuple[float, float],
    outside: tuple[float, float],
    entropy: tuple[float, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of checkpoints that msmodelslim made with the 8B recipe and with the others."""
    small = replace(MODELS["tiny"], sigma=MODELS[preset].sigma, layers=1)
    monkeypatch.setitem(MODELS, "small", small)
    content = tensors.read(synthesize(tmp_path / "m", "small") / WEIGHTS)
    weight = tensors.array(content["model.layers.0.mlp.up_proj.weight"])
    values, counts = np.unique(weight, return_counts=True)
    assert values[counts.argmax()] == 0
    assert -21 <= weight.min() < -8 and 7 < weight.max() <= 21
    shares = counts / weight.size
    for share, (least, most) in (
        (np.mean(weight == 0), zeros),
        (np.mean((weight < -8) | (weight > 7)), outside),
        (-(shares * np.log2(shares)).sum(), entropy),
    ):
        assert least <= share <= most


def test_the_presets_are_what_their_recipes_do() -> None:
    assert {name: (model.m4, model.sigma, model.recipe) for name, model in MODELS.items()} == {
        "qwen3-8b": (False, 2.5, "Qwen3-8B"),
        "qwen3-14b": (True, 3.87, "Qwen3-14B"),
        "qwen3-32b": (False, 3.87, "Qwen3-32B"),
        "qwen2.5-7b": (False, 2.5, None),
        "llama-3.1-8b": (False, 2.5, None),
        "qwen3-vl-8b": (False, 2.5, None),
        "qwen3-30b-a3b": (False, 2.5, None),
        "qwen3.6-27b": (False, 2.5, None),
        "qwen3.6-35b-a3b": (False, 2.5, None),
        "tiny": (False, 2.5, None),
    }


def test_help_lists_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["synthesize", "--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in MODELS if name not in shown] == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_m4_leaves(dtype: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, dtypes and shapes of a real 14B checkpoint; the biases undo the norms' shifts."""
    monkeypatch.setitem(MODELS, "small", replace(MODELS["tiny"], m4=True, layers=1, float_layers=("*.down_proj",)))
    folder = synthesize(tmp_path / "m", "small", dtype=dtype)
    content = tensors.read(folder / WEIGHTS)
    types = json.loads((folder / "quant_model_description.json").read_text())
    assert list(types)[:2] == ["version", "model_quant_type"] and set(types) == set(content) | set(list(types)[:2])
    narrow = {"float16": "F16", "bfloat16": "BF16"}[dtype]
    biased = {name for name in content if name.endswith("_proj.bias")}
    layer = "model.layers.0"
    assert biased == {
        *(f"{layer}.self_attn.{name}_proj.bias" for name in "qkv"),
        *(f"{layer}.mlp.{name}_proj.bias" for name in ("gate", "up")),
    }
    assert {(content[name][0], types[name]) for name in biased} == {(narrow, "FLOAT")}
    for name, (kind, shape, _) in content.items():
        if name.endswith((".input_scale", ".input_offset")):
            assert (kind, shape) == ("F32", [1])
    norms = {name: tensors.array(content[name]) for name in content if name.endswith("norm.bias")}
    assert len(norms) == 5
    assert {name for name, values in norms.items() if values.any()} == {
        f"{layer}.{name}_layernorm.bias" for name in ("input", "post_attention")
    }
    for module, norm in (("self_attn.k_proj", "input_layernorm"), ("mlp.up_proj", "post_attention_layernorm")):
        check_shift(content, f"{layer}.{module}", norms[f"{layer}.{norm}.bias"])


def check_shift(content: tensors.Content, module: str, shift: np.ndarray) -> None:
    weight = tensors.array(content[f"{module}.weight"]).astype(np.float64)
    deq = tensors.array(content[f"{module}.deq_scale"])
    deq = deq if deq.dtype == np.float32 else deq.astype(np.uint32).view(np.float32)
    scale, offset = (float(tensors.array(content[f"{module}.input_{leaf}"])[0]) for leaf in ("scale", "offset"))
    wanted = -(weight @ shift) * deq / scale
    assert np.abs(wanted).mean() > 0.01
    kind, _, _ = content[f"{module}.bias"]
    bias = tensors.array(content[f"{module}.bias"])
    bias = (bias.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else bias
    np.testing.assert_allclose(bias, wanted, rtol=2**-7, atol=1e-5)
    quant = tensors.array(content[f"{module}.quant_bias"])
    np.testing.assert_allclose(quant, wanted / deq - offset * weight.sum(axis=1), atol=1)


@pytest.mark.slow
def test_files_and_modes_of_msmodelslim(tmp_path: Path) -> None:
    folder = synthesize(tmp_path / "m", "qwen3-14b", layers=1, vocabulary=320, part_bytes=4 << 30)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    part = "quant_model_weight_w8a8s-00001-of-00001.safetensors"
    assert (modes[part], modes["config.json"], modes["Qwen3-14B_best_practice.yaml"]) == (0o400, 0o600, 0o644)
    recipe = yaml.safe_load((folder / "Qwen3-14B_best_practice.yaml").read_text())
    assert recipe["spec"]["anti_cfg"] == {"anti_method": "m4"}
    assert recipe["spec"]["calib_params"]["mix_cfg"] == {"*.mlp.down_proj": "float"}


def test_bias_takes_back_the_input_offset(tiny: Path) -> None:
    content = tensors.read(tiny / WEIGHTS)
    name = "model.layers.1.self_attn.k_proj"
    offset = int(tensors.array(content[f"{name}.input_offset"])[0])
    rows = tensors.array(content[f"{name}.weight"]).astype(np.int64).sum(axis=1)
    np.testing.assert_array_equal(tensors.array(content[f"{name}.quant_bias"]), -offset * rows)


def test_bfloat16_models_have_float32_scales(tmp_path: Path) -> None:
    folder = synthesize(tmp_path / "m", "tiny", layers=1, dtype="bfloat16", tied=True, m4=True)
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
