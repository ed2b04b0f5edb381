"""Reading source tensors: every byte hashed once, and files that change are noticed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from w8a8sc_tool.checkpoint import FileTensor
from w8a8sc_tool.checkpoint.reader import SourceReader
from w8a8sc_tool.errors import WorkError
from w8a8sc_tool.io import hashing
from w8a8sc_tool.io.safetensors import TensorFile


@pytest.fixture
def source(tmp_path: Path) -> tuple[FileTensor, np.ndarray]:
    values = np.random.default_rng(0).integers(-128, 128, (100, 30)).astype(np.int8)
    path = tmp_path / "x.safetensors"
    save_file({"w": values, "z": np.zeros(5000, np.int8)}, path)
    with TensorFile(path) as file:
        info = file.tensors["w"]
        return FileTensor("w", str(path), file.size, info.dtype, info.shape, info.begin, info.end), values


def test_rows_and_hash(source: tuple[FileTensor, np.ndarray]) -> None:
    tensor, values = source
    reader = SourceReader()
    np.testing.assert_array_equal(reader.read_rows(tensor, 0, 40), values[:40])
    np.testing.assert_array_equal(reader.read_rows(tensor, 30, 80), values[30:80])  # an overlap is hashed once
    np.testing.assert_array_equal(reader.read_rows(tensor, 0, 10), values[:10])
    assert tensor.hash(reader) == hashing.of_bytes(values.tobytes())


def test_hash_of_what_nobody_read(source: tuple[FileTensor, np.ndarray]) -> None:
    tensor, values = source
    assert tensor.hash(SourceReader()) == hashing.of_bytes(values.tobytes())


def test_rows_outside(source: tuple[FileTensor, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="beyond"):
        SourceReader().read_rows(source[0], 90, 101)


def test_a_file_that_shrinks_or_goes(source: tuple[FileTensor, np.ndarray]) -> None:
    tensor, _ = source
    reader = SourceReader()
    reader.read_rows(tensor, 0, 1)
    os.truncate(tensor.path, tensor.begin + 10)
    with pytest.raises(WorkError, match="changed during the work"):
        reader.read_rows(tensor, 0, 100)
    with pytest.raises(WorkError, match="changed during the work"):
        SourceReader().read_rows(tensor, 0, 1)
    os.unlink(tensor.path)
    with pytest.raises(WorkError, match="cannot be read any more"):
        tensor.hash(SourceReader())
