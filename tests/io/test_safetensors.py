"""The safetensors container: what it takes from a stranger's file, and the headers it writes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from w8a8sc_tool.errors import InputError, WorkError
from w8a8sc_tool.io.safetensors import TensorFile, TensorInfo, header_for

from ..tensors import raw


def test_reads_what_the_library_wrote(tmp_path: Path) -> None:
    tensors = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.array([1, -2], np.int8), "c": np.float32(4)}
    tensors["c"] = np.array(4, np.float32)
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "np"})
    with TensorFile(tmp_path / "x.safetensors") as file:
        assert set(file.tensors) == set(tensors)
        for name, values in tensors.items():
            np.testing.assert_array_equal(file.read(name), values)


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    infos = [TensorInfo("a", "F16", (2, 2), 0, 8), TensorInfo("s", "F32", (), 8, 12)]
    header = header_for(infos, 512)
    assert len(header) == 512
    path = tmp_path / "x.safetensors"
    path.write_bytes(header + np.arange(4, dtype=np.float16).tobytes() + np.float32(1).tobytes())
    loaded = load_file(path)
    assert loaded["a"].tolist() == [[0, 1], [2, 3]]
    assert loaded["s"] == 1


def test_a_header_too_large_for_its_space() -> None:
    with pytest.raises(ValueError, match="more than the 16"):
        header_for([TensorInfo("a", "F16", (2, 2), 0, 8)], 16)


def one(dtype: object = "I8", shape: object = (4,), offsets: object = (0, 4), name: str = "t", **more: object) -> bytes:
    return json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}}).encode()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "JSON object"),
        (b"\xff{}", "not valid JSON"),
        (b'{"a":' * 100_000, "nested too deeply|not valid JSON"),
        (b'{"t": NaN}', "NaN is not JSON"),
        (one()[:-1] + b', "t": {}}', "occurs twice"),
        (one(name=""), "not a tensor name"),
        (one(name="n" * 2000), "not a tensor name"),
        (one(name="a\x00b"), "not a tensor name"),
        (b'{"t": 3}', "dtype, shape and data_offsets"),
        (one(extra=1), "dtype, shape and data_offsets"),
        (one(dtype="F7"), "not supported"),
        (one(dtype=["I8"]), "not supported"),
        (one(shape=[-4]), "list of sizes"),
        (one(shape=[2**70]), "list of sizes"),
        (one(shape=[True, 4]), "list of sizes"),
        (one(shape="4"), "list of sizes"),
        (one(shape=[1] * 40), "list of sizes"),
        (one(offsets=[0]), "byte offsets"),
        (one(offsets=[-4, 0]), "byte offsets"),
        (one(offsets=[0, 2**64]), "byte offsets"),
        (one(offsets=[0.0, 4.0]), "byte offsets"),
        (one(offsets=[4, 0]), "its offsets span"),
        (one(shape=[2**40, 2**40]), "its offsets span"),
        (one(offsets=[0, 3]), "its offsets span"),
        (one(shape=[8], offsets=[0, 8]), "truncated"),
        (one(shape=[3], offsets=[0, 3]), "truncated or damaged"),
        (one(offsets=[4, 8]), "begin at"),
        (b'{"__metadata__": {"a": 1}}', "object of strings"),
    ],
)
def test_headers_that_lie(tmp_path: Path, header: bytes, message: str) -> None:
    path = raw(tmp_path / "x.safetensors", header, b"1234")
    with pytest.raises(InputError, match=message) as error:
        TensorFile(path)
    assert str(path) in str(error.value)


def test_overlap_and_gap(tmp_path: Path) -> None:
    for second, message in (([2, 6], "begin at"), ([5, 9], "begin at")):
        header = {
            "a": {"dtype": "I8", "shape": [4], "data_offsets": [0, 4]},
            "b": {"dtype": "I8", "shape": [4], "data_offsets": second},
        }
        path = raw(tmp_path / "x.safetensors", json.dumps(header).encode(), bytes(second[1]))
        with pytest.raises(InputError, match=message):
            TensorFile(path)


@pytest.mark.parametrize("length", [5, 2**40, 2**63, 2**64 - 1, 100_000_001])
def test_header_lengths_that_lie(tmp_path: Path, length: int) -> None:
    path = raw(tmp_path / "x.safetensors", b"{}", length=length)
    with pytest.raises(InputError, match="header claims|truncated"):
        TensorFile(path)


def test_tiny_missing_and_strange_files(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1234")
    with pytest.raises(InputError, match="too few"):
        TensorFile(tmp_path / "x")
    with pytest.raises(InputError, match="no such file"):
        TensorFile(tmp_path / "missing")
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 2**42)  # 4 TB of zeros: a header of length 0
    with pytest.raises(InputError, match="not valid JSON"):
        TensorFile(tmp_path / "sparse")


def test_a_file_that_shrinks_is_an_error_not_a_signal(tmp_path: Path) -> None:
    save_file({"a": np.zeros(100_000, np.int8)}, tmp_path / "x.safetensors")
    with TensorFile(tmp_path / "x.safetensors") as file:
        os.truncate(tmp_path / "x.safetensors", 500)
        with pytest.raises(WorkError, match="changed during the work"):
            file.read("a")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_random_headers(tmp_path_factory: pytest.TempPathFactory, header: bytes) -> None:
    path = raw(tmp_path_factory.mktemp("fuzz") / "x.safetensors", header, b"12345678")
    with pytest.raises(InputError):
        TensorFile(path)


def test_a_checkpoint_of_many_experts_in_one_file(tmp_path: Path) -> None:
    """As many tensors as Qwen3.6-35B-A3B has, with names as long as those of its experts."""
    name = "model.language_model.layers.39.mlp.experts.255.down_proj.weight_offset.{:05}"
    entry = json.dumps({"dtype": "I8", "shape": [2048, 0], "data_offsets": [0, 0]}, separators=(",", ":"))
    entries = (f'"{name.format(number)}":{entry}' for number in range(92_806))
    with TensorFile(raw(tmp_path / "many.safetensors", f"{{{','.join(entries)}}}".encode())) as file:
        assert len(file.tensors) == 92_806
