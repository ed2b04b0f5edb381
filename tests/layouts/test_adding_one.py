"""Adding an architecture is adding a file: one that nobody made, in a copy of the package, goes the whole way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .. import tensors
from ..test_imports import PACKAGE

# Unlike Qwen3: other names and prefixes, one norm per layer, biases that attention's layers have parameters for.
TOY = '''"""A decoder that nobody made."""

from ..words import HEADS, HIDDEN, INNER, QUERY_ROWS
from ..words import Architecture, Embedding, Norm, always, by_heads, by_kv_heads, by_rows, columns, fused

ARCHITECTURE = Architecture(
    "ToyForCausalLM",
    before=(Embedding("words"),),
    layer=(
        Norm("first_norm", HIDDEN),
        fused("mix.qkv", (by_heads("wq"), by_kv_heads("wk"), by_kv_heads("wv")), k=HIDDEN, bias=always),
        columns("mix.wo", n=HIDDEN, k=QUERY_ROWS, dealt=HEADS, bias=always),
        fused("think.in", (by_rows("gate", INNER), by_rows("up", INNER)), k=HIDDEN),
        columns("think.out", n=HIDDEN, k=INNER),
    ),
    behind=(Norm("last_norm", HIDDEN), Embedding("answers", tied_to="words")),
    layers="decoder.blocks",
    config={"model_type": "toy", "max_position_embeddings": 4096, "rope_theta": 10000},
)
'''

# The copy's codec is the tree's, so that its kernels are.
CODEC = """__path__ = [{folder!r}]
with open({folder!r} + "/__init__.py") as file:
    exec(compile(file.read(), file.name, "exec"))
"""

DIRECTORY = "Toy-w8a8sc-310-vllm/TP2/Toy-w8a8sc-310-vllm-tp2"


@dataclass(frozen=True)
class Copy:
    """A copy of the package that has one file more, and the folder its commands run in."""

    folder: Path
    package: Path

    def run(self, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [sys.executable, "-m", self.package.name, *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.package.parent)},
        )
        assert result.returncode == expect, result.stderr
        return result

    def document(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json", "-q").stdout)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A synthesized checkpoint of two layers and its directory for TP 2."""
    folder = tmp_path_factory.mktemp("toy")
    copy = Copy(folder, folder / "package" / PACKAGE.name)
    shutil.copytree(PACKAGE, copy.package, ignore=shutil.ignore_patterns("codec", "__pycache__"))
    shutil.copytree(PACKAGE.parent / "configs", copy.package.parent / "configs")
    (copy.package / "codec").mkdir()
    (copy.package / "codec" / "__init__.py").write_text(CODEC.format(folder=str(PACKAGE / "codec")))
    (copy.package / "layouts" / "architectures" / "toy.py").write_text(TOY)
    copy.run(
        *("synthesize", "Toy-w8a8s-310", "--architecture", "ToyForCausalLM", "--layers", "2", "--no-float"),
        *("--w8a8", "*.0.mix.wo"),
    )
    copy.run("compress", "Toy-w8a8s-310", "--tp", "2", "-j", "2")
    return copy


def test_the_checkpoint(toy: Copy) -> None:
    """Names, shapes and types are the table's; quant_bias contains the bias that a layer has a parameter for."""
    shown = toy.document("inspect", "Toy-w8a8s-310")
    assert shown["architecture"] == "ToyForCausalLM"
    rows = {row["name"]: row for row in shown["modules"]}
    assert [row["name"] for row in shown["modules"]][:3] == ["words", *(f"decoder.blocks.0.mix.w{x}" for x in "qk")]
    assert list(rows)[-2:] == ["answers", "last_norm"]
    assert (rows["decoder.blocks.1.think.out"]["layer"], rows["words"]["layer"]) == (1, -1)
    assert rows["decoder.blocks.0.mix.wk"]["shape"] == [512, 512]
    content = tensors.read(toy.folder / "Toy-w8a8s-310" / "quant_model_weight_w8a8s.safetensors")
    name = "decoder.blocks.1.mix.wq"
    weight, bias, deq, quant_bias = (
        tensors.array(content[f"{name}.{leaf}"]) for leaf in ("weight", "bias", "deq_scale", "quant_bias")
    )
    assert f"{name.replace('mix.wq', 'think.up')}.bias" not in content
    offset = int(tensors.array(content[f"{name}.input_offset"])[0])
    without = quant_bias + offset * weight.astype(np.int64).sum(axis=1)
    np.testing.assert_allclose(without * deq.astype(np.uint32).view(np.float32), bias, atol=2e-3)
    assert np.std(bias) > 0.1


def test_the_directory(toy: Copy) -> None:
    shown = toy.document("inspect", DIRECTORY)
    layers = {row["name"]: row["quantization"] for row in shown["modules"] if row["layer"] == 0}
    assert layers == {
        "decoder.blocks.0.mix.qkv": "W8A8SC",
        "decoder.blocks.0.mix.wo": "W8A8",
        "decoder.blocks.0.think.in": "W8A8SC",
        "decoder.blocks.0.think.out": "W8A8SC",
        "decoder.blocks.0.first_norm": "FLOAT",
    }
    report = toy.document("verify", DIRECTORY, "--source", "Toy-w8a8s-310")
    assert (report["findings"], report["not_checked"]) == ([], [])


@pytest.mark.slow
def test_other_sizes_and_back(toy: Copy) -> None:
    """Reshard makes what compress makes from the source; what decompress gives back is a source of the directory."""
    toy.run("reshard", DIRECTORY, "--tp", "4", "-o", "resharded", "-q")
    toy.run("compress", "Toy-w8a8s-310", "--tp", "4", "-o", "compressed", "-j", "2", "-q")
    inner = "Toy-w8a8sc-310-vllm/TP4/Toy-w8a8sc-310-vllm-tp4"
    assert toy.document("compare", f"resharded/{inner}", f"compressed/{inner}")["same_model"]
    toy.run("decompress", DIRECTORY, "--checkpoint", "-o", "back", "-q")
    (back,) = (toy.folder / "back").iterdir()
    assert toy.document("verify", DIRECTORY, "--source", str(back))["findings"] == []


def test_what_fits_and_what_does_not_run(toy: Copy) -> None:
    assert toy.document("fit", DIRECTORY)
    assert "--load_format sharded_state" in toy.run("serve", DIRECTORY, "--print").stdout
    assert (
        "the bundled runtime has no model for ToyForCausalLM"
        in toy.run(*("generate", DIRECTORY, "--token-ids", "1,2"), expect=4).stderr
    )
