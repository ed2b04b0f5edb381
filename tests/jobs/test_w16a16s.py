"""W16A16S layers: float16, most values zero, coded high-sparse as bytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from w8a8sc_tool.checking.compare import compare
from w8a8sc_tool.checking.verify import verify
from w8a8sc_tool.codec import decode_matrix
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.jobs.inspect import inspect
from w8a8sc_tool.synthesis.synthesize import Dtype, synthesize

from .. import tensors

NAME = "model.layers.0.mlp.down_proj"


@pytest.mark.parametrize("dtype", ["float16", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_every_rank_decodes_to_the_sources_values(dtype: Dtype, tmp_path: Path) -> None:
    source = synthesize(tmp_path / "m-w8a8s", "tiny", layers=1, dtype=dtype, types=[("*.mlp.*", "W16A16S")])
    results = compress(source, tmp_path / "out", tp=[1, 2], processes=2)
    (weights,) = source.glob("*.safetensors")
    kind, shape, data = tensors.read(weights)[f"{NAME}.weight"]
    if kind == "BF16":
        wide = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        wanted = wide.astype(np.float16).reshape(shape)
    else:
        wanted = np.frombuffer(data, np.float16).reshape(shape)
    assert (wanted == 0).mean() > 0.7
    for result in results:
        assert verify(result.directory, source=source).ok
        parts = []
        for path in sorted(result.directory.glob("*.safetensors")):
            content = tensors.read(path)
            three = [tensors.array(content[f"{NAME}.{leaf}"]) for leaf in ("weight", "index", "info")]
            assert three[2].tolist() == [8, 8, 2 * shape[1] // result.tp, shape[0], 1]  # k in bytes
            parts.append(decode_matrix(*three, sparsity="high").view(np.float16))
        assert np.array_equal(np.concatenate(parts, axis=1), wanted)
        described = json.loads((result.directory / "quant_model_description.json").read_text())
        assert described[f"{NAME}.weight"] == "W16A16SC"
        layer = next(layer for layer in result.manifest.layers if layer.name == NAME)
        assert layer.quantization == "W16A16SC" and 0 < (layer.ratio or 0) < 0.7
        row = next(row for row in inspect(result.directory).modules if row.name == NAME)
        assert row.quantization == "W16A16SC"
        assert compare(result.directory, result.directory).same_model


def test_damage_and_the_other_coding_are_found(tmp_path: Path) -> None:
    source = synthesize(tmp_path / "m-w8a8s", "tiny", layers=1, types=[("*.mlp.*", "W16A16S")])
    (result,) = compress(source, tmp_path / "out")
    (path,) = result.directory.glob("*.safetensors")
    (result.directory / "w8a8sc_manifest.json").unlink()
    content = tensors.read(path)
    dtype, shape, data = content[f"{NAME}.weight"]
    content[f"{NAME}.weight"] = (dtype, shape, data[:40] + bytes([data[40] ^ 1]) + data[41:])
    tensors.write(path, content)
    report = verify(result.directory, source=source)
    assert any(NAME in finding.where for finding in report.findings)
