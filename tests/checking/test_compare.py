"""Comparing directories: the same model or not, and how each was coded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from w8a8sc_tool.checking.compare import compare
from w8a8sc_tool.codec import encode_matrix
from w8a8sc_tool.codec.provenance import coding_of
from w8a8sc_tool.errors import InputError
from w8a8sc_tool.jobs.compress import compress

from .. import tensors
from ..codec.weights import sparse

RANK = "model-rank-0-part-0.safetensors"


def recoded(sealed: Path, target: Path) -> Path:
    """A copy as the vendor's script might leave it: no manifest, dictionaries of matrix scope."""
    shutil.copytree(sealed, target)
    (target / "w8a8sc_manifest.json").unlink()
    for path in target.glob("model-rank-*"):
        content = tensors.read(path)
        for name in [name for name in content if name.endswith(".info")]:
            module = name.removesuffix(".info")
            from w8a8sc_tool.codec import decode_matrix

            parts = [tensors.array(content[f"{module}.{leaf}"]) for leaf in ("weight", "index", "info")]
            again = encode_matrix(decode_matrix(*parts), dictionary="matrix")
            content[f"{module}.weight"] = tensors.entry("I8", again.weight)
            content[f"{module}.index"] = tensors.entry("I8", again.index)
        tensors.write(path, content)
    return target


def test_the_same_model_coded_otherwise(sealed: Callable[[int], Path], tmp_path: Path) -> None:
    other = recoded(sealed(2), tmp_path / "vendor")
    comparison = compare(sealed(2), other, processes=2)
    assert comparison.same_model and not comparison.same_bytes
    assert comparison.coding[0]["scope"] == {"tile": comparison.compressed_weights}
    assert comparison.coding[1]["scope"] == {"matrix": comparison.compressed_weights}
    assert comparison.coding[1]["ties"] == {"vendor": comparison.compressed_weights}
    again = compare(sealed(2), sealed(2), processes=2)
    assert again.same_model and again.same_bytes


def test_compressed_against_uncompressed(tiny: Path, sealed: Callable[[int], Path], tmp_path: Path) -> None:
    (plain,) = compress(tiny, tmp_path, tp=[2], compress=False)
    comparison = compare(sealed(2), plain.directory, processes=2)
    assert comparison.same_model and not comparison.same_bytes


def test_what_differs_is_named(sealed: Callable[[int], Path], tmp_path: Path) -> None:
    other = Path(shutil.copytree(sealed(2), tmp_path / "other"))
    content = tensors.read(other / RANK)
    content["model.norm.weight"] = tensors.entry("F16", tensors.array(content["model.norm.weight"]) + 1)
    module = "model.layers.0.mlp.gate_up_proj"
    parts = [tensors.array(content[f"{module}.{leaf}"]) for leaf in ("weight", "index", "info")]
    from w8a8sc_tool.codec import decode_matrix

    weight = decode_matrix(*parts)
    weight[0, 0] += 1
    again = encode_matrix(weight)
    for leaf in ("weight", "index"):
        content[f"{module}.{leaf}"] = tensors.entry("I8", getattr(again, leaf))
    del content["model.layers.1.self_attn.o_proj.quant_bias"]
    tensors.write(other / RANK, content)
    comparison = compare(sealed(2), other, processes=2)
    assert not comparison.same_model
    assert [line.replace("rank 0, ", "") for line in comparison.differences] == [
        f"{module}: weight differs in 1 of {weight.size} values",
        "model.layers.1.self_attn.o_proj: quant_bias is missing in the second",
        "model.norm: weight has other values",
    ]


def test_other_sizes_and_no_directory(sealed: Callable[[int], Path], tmp_path: Path) -> None:
    assert compare(sealed(1), sealed(2)).differences == ["tensor-parallel size 1 against 2"]
    with pytest.raises(InputError, match="no such folder"):
        compare(sealed(1), tmp_path / "none")


def test_coding_of_a_weight() -> None:
    """Scope, ties and filler, each told apart."""
    weight = sparse((192, 320), 6, 0.3, 3.0, 0.01)
    tile, matrix = encode_matrix(weight), encode_matrix(weight, dictionary="matrix")
    assert (coding_of(tile.weight, tile.index, tile.info).scope) == "tile"
    coding = coding_of(matrix.weight, matrix.index, matrix.info)
    assert (coding.scope, coding.ties, coding.filler) == ("matrix", "vendor", "copies")
    blank = weight.copy()
    blank[64:128] = 0  # what the last n-tile repeats
    zeros = encode_matrix(blank)
    first = sum(int(entry) & 511 for entry in tile.index.view(np.uint64)[:2]) * 128
    second = sum(int(entry) & 511 for entry in zeros.index.view(np.uint64)[:2]) * 128
    entries = np.concatenate([tile.index.view(np.uint64)[:2], zeros.index.view(np.uint64)[2:]]) & np.uint64(0xFFFFFFFF)
    lengths = entries & np.uint64(511)
    entries |= (np.cumsum(lengths, dtype=np.uint64) - lengths) << np.uint64(32)
    joined = np.concatenate([tile.weight[:first], zeros.weight[second:]])
    assert coding_of(joined, entries.view(np.int8), tile.info).filler == "zeros"
    one = (np.arange(128 * 256).reshape(128, 256) % 5 - 2).astype(np.int8)  # five values: 31 entries are never used
    alone = encode_matrix(one)
    assert coding_of(alone.weight, alone.index, alone.info).scope == "either"
    # Two unused entries of the dictionary exchanged: other ties, the same counts. Bytes 38 and 39 of every stream.
    payload = alone.weight.copy()
    for engine in range(4):
        at = 128 + engine * 32 + 6
        payload[[at, at + 1]] = payload[[at + 1, at]]
    swapped = coding_of(payload, alone.index, alone.info)
    assert (swapped.scope, swapped.ties) == ("tile", "other")
