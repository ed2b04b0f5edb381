"""Inspection of checkpoints and directories."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from w8a8sc_tool.errors import InputError
from w8a8sc_tool.jobs.inspect import inspect
from w8a8sc_tool.synthesis.synthesize import synthesize


def test_checkpoint(tmp_path: Path) -> None:
    folder = synthesize(tmp_path / "m", "tiny", layers=2, types=[("*.1.*.o_proj", "W8A8"), ("*.down_proj", "FLOAT")])
    inspection = inspect(folder)
    assert (inspection.kind, inspection.architecture, inspection.files) == ("checkpoint", "Qwen3ForCausalLM", 1)
    rows = {row.name: row for row in inspection.modules}
    assert rows["model.layers.1.self_attn.o_proj"].quantization == "W8A8"
    assert rows["model.layers.0.self_attn.q_proj"].shape == (1536, 512)
    assert {quantization: count for quantization, (count, _) in inspection.totals().items()} == {
        "W8A8S": 11,
        "W8A8": 1,
        "FLOAT": 2,
        "embeddings, norms, scalars": 11,
    }
    on_disk = (folder / "quant_model_weight_w8a8s.safetensors").stat().st_size
    assert 0 < on_disk - inspection.bytes < 20_000
    assert [row.name for row in inspection.modules][0] == "model.embed_tokens"
    assert [row.short_name for row in inspection.modules if row.layer == 1][:2] == [
        "self_attn.q_proj",
        "self_attn.k_proj",
    ]


def test_sealed_directory(sealed: Callable[[int], Path]) -> None:
    inspection = inspect(sealed(2))
    assert (inspection.kind, inspection.tp, inspection.sealed, inspection.files) == ("sharded_state", 2, True, 2)
    rows = {row.name: row for row in inspection.modules}
    qkv = rows["model.layers.0.self_attn.qkv_proj"]
    assert (qkv.quantization, qkv.shape, qkv.fallback) == ("W8A8SC", (1280, 512), None)
    assert qkv.ratio is not None and qkv.ratio < 0.7
    down = rows["model.layers.0.mlp.down_proj"]
    assert (down.quantization, down.fallback) == ("FLOAT", "source")


def test_directory_without_a_manifest(sealed_copy: Path) -> None:
    (sealed_copy / "w8a8sc_manifest.json").unlink()
    inspection = inspect(sealed_copy)
    assert (inspection.tp, inspection.sealed) == (2, False)
    types = {row.short_name: row.quantization for row in inspection.modules if row.layer == 0 and row.linear}
    assert types == {
        "self_attn.qkv_proj": "W8A8SC",
        "self_attn.o_proj": "W8A8SC",
        "mlp.gate_up_proj": "W8A8SC",
        "mlp.down_proj": "FLOAT",
    }


def test_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        inspect(tmp_path / "missing")
    with pytest.raises(InputError, match="config.json"):
        inspect(tmp_path)
