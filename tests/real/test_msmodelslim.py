"""Checkpoints that the real msmodelslim wrote, through every command; and what it writes, held as facts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from w8a8sc_tool.backends.msmodelslim import installed as backend
from w8a8sc_tool.synthesis.synthesize import MODELS, Dtype, synthesize

from .. import tensors
from .quantize import quantize

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(backend.package_folder() is None, reason="msmodelslim is not installed"),
]

DTYPES = ("float16", "bfloat16")
QWEN3 = [(recipe, dtype) for recipe in ("qwen3-8b", "qwen3-14b", "qwen3-32b") for dtype in DTYPES]
QWEN2 = [("qwen2-7b", dtype) for dtype in DTYPES]
DESCRIPTION = "quant_model_description.json"
Make = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Real checkpoints by recipe and dtype, each made once. Read only."""
    models = tmp_path_factory.mktemp("real")

    def checkpoint(recipe: str, dtype: str) -> Path:
        folder = models / dtype / f"{recipe}-w8a8s-310"
        return folder if folder.exists() else quantize(folder, recipe, dtype)

    return checkpoint


def w8a8sc(*words: object, expect: int = 0) -> str:
    """Run a command; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "w8a8sc_tool", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def content(folder: Path) -> tensors.Content:
    merged: tensors.Content = {}
    for path in folder.glob("*.safetensors"):
        merged |= tensors.read(path)
    return merged


@pytest.mark.parametrize(("recipe", "dtype"), [*QWEN3, *QWEN2])
def test_every_command(recipe: str, dtype: str, make: Make, tmp_path: Path) -> None:
    source = make(recipe, dtype)
    assert "W8A8S: " in w8a8sc("inspect", source)
    w8a8sc("compress", source, "--tp", 1, "--tp", 2, "--dry-run", "-o", tmp_path)
    made = w8a8sc("compress", source, "--tp", 1, "--tp", 2, "-o", tmp_path)
    note = "10 linear biases need no place in the output: quant_bias contains them"
    assert (note in made) == (recipe == "qwen3-14b")
    assert "tensors of the checkpoint have no place" not in made
    tree = tmp_path / f"{recipe}-w8a8sc-310-vllm"
    one, two = (tree / f"TP{tp}" / f"{recipe}-w8a8sc-310-vllm-tp{tp}" for tp in (1, 2))
    for directory in (one, two):
        assert "verified" in w8a8sc("verify", directory, "--source", source)
        generated = w8a8sc("generate", directory, "--prompt", "Why is the sky blue?", "--compare", source)
        assert "the source checkpoint gives the same tokens" in generated or "within the rounding" in generated
    w8a8sc("reshard", one, "--tp", 2, "-o", tmp_path / "resharded")
    again = tmp_path / "resharded" / two.relative_to(tmp_path)
    assert "the same model, byte for byte" in w8a8sc("compare", two, again)
    w8a8sc("decompress", two, "-o", tmp_path / "plain")
    (plain,) = (tmp_path / "plain").glob("*/TP2/*")
    assert "verified" in w8a8sc("verify", plain, "--source", source)
    w8a8sc("decompress", two, "--checkpoint", "-o", tmp_path / "back")
    back = tmp_path / "back" / f"{recipe}-w8a8s-310"
    types = json.loads((back / DESCRIPTION).read_text())
    assert {key for key in types if "." in key} == set(content(back))
    w8a8sc("compress", back, "--tp", 2, "-o", tmp_path / "twice")
    twice = tmp_path / "twice" / two.relative_to(tmp_path)
    assert "the same model, byte for byte" in w8a8sc("compare", two, twice)
    for path in (source, one, back):
        w8a8sc("fit", path)
        assert "vllm serve" in w8a8sc("serve", "--print", path)


def test_the_bias_of_a_float_layer_is_not_lost_in_silence(tmp_path: Path) -> None:
    """m4 moves a shift into it, and Qwen3's class has no parameter for it."""
    mix = {f"model.layers.1.mlp.{name}_proj": "float" for name in ("gate", "up")}
    source = quantize(tmp_path / "Mixed-w8a8s-310", "qwen3-14b", mix=mix)
    output = w8a8sc("compress", source, "-o", tmp_path / "out", expect=3)
    assert "FLOAT layers have a bias that is not zero" in output
    assert "model.layers.1.mlp.gate_proj.bias, model.layers.1.mlp.up_proj.bias" in output
    assert "anti_method m4 (Qwen3-14B_best_practice.yaml)" in output and "anti_method m6 or none" in output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("recipe", "dtype"), QWEN3)
def test_synthesize_writes_what_is_really_written(
    recipe: str, dtype: Dtype, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, modes, keys, dtypes and shapes are the same; the values of the int8 weights are as wide."""
    real = make(recipe, dtype)
    config = json.loads((real / "config.json").read_text())
    small = replace(
        MODELS[recipe],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        vocabulary=config["vocab_size"],
    )
    monkeypatch.setitem(MODELS, "small", small)
    ours = synthesize(tmp_path / "ours", "small", dtype=dtype)
    modes = [{path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} for folder in (ours, real)]
    assert modes[0] == modes[1]
    types = [json.loads((folder / DESCRIPTION).read_text()) for folder in (ours, real)]
    assert types[0] == types[1]
    a, b = content(ours), content(real)
    assert {name: entry[:2] for name, entry in a.items()} == {name: entry[:2] for name, entry in b.items()}
    assert {name for name, entry in a.items() if name.endswith("norm.bias") and any(entry[2])} == {
        name for name, entry in b.items() if name.endswith("norm.bias") and any(entry[2])
    }
    spread = [np.std(np.concatenate([tensors.array(e).ravel() for e in c.values() if e[0] == "I8"])) for c in (a, b)]
    assert abs(spread[0] - spread[1]) < 0.15


@pytest.mark.parametrize(("recipe", "least", "most"), [("qwen3-8b", 0.54, 0.57), ("qwen3-14b", 0.62, 0.64)])
def test_the_ratios_of_the_documentation(recipe: str, least: float, most: float, make: Make, tmp_path: Path) -> None:
    (made,) = json.loads(
        subprocess.run(
            [sys.executable, "-m", "w8a8sc_tool", "compress", make(recipe, "float16"), "-o", tmp_path, "--json", "-q"],
            capture_output=True,
            check=True,
        ).stdout
    )
    assert least < made["weight_ratio"] < most
