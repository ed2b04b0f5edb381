"""A rank's file in three parts: aligned known tensors, those of unknown size in order, small ones last."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from w8a8sc_tool.errors import WorkError
from w8a8sc_tool.io.safetensors import TensorFile, tensor_info
from w8a8sc_tool.sharded_state import RankFile

FIXED = [
    tensor_info("scale", "F16", (1,)),
    tensor_info("deq", "I64", (3,)),
    tensor_info("one", "F32", ()),
    tensor_info("table", "F16", (4, 2)),
    tensor_info("offset", "I8", (1,)),
]
LARGEST = [tensor_info("w", "I8", (1000, 1000)), tensor_info("index", "I8", (10**6,))]


def rank_file(folder: Path) -> RankFile:
    return RankFile(folder, 3, FIXED, LARGEST)


def write_at(file: RankFile, offset: int | None, data: bytes) -> None:
    assert offset is not None
    with file.path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def test_a_file_written_in_any_order(tmp_path: Path) -> None:
    file = rank_file(tmp_path)
    weight = np.arange(256, dtype=np.uint8).astype(np.int8)
    region = file.append(tensor_info("w", "I8", (256,)))
    table = np.arange(8, dtype=np.float16).reshape(4, 2)
    write_at(file, region, weight.tobytes())
    write_at(file, file.offset("table"), table.tobytes())
    write_at(file, file.offset("deq"), np.array([1, 2, 3], np.int64).tobytes())
    for name, data in (("offset", b"\3"), ("scale", b"\0\x3c"), ("one", np.float32(1).tobytes())):
        assert file.offset(name) is None
        file.put_small(name, data)
    size, _, placed = file.finish()
    assert file.path.name == "model-rank-3-part-0.safetensors"
    assert size == file.path.stat().st_size
    assert [t.name for t in placed] == ["deq", "table", "w", "one", "scale", "offset"]
    assert all(t.begin % min(8, t.nbytes) == 0 for t in placed if t.nbytes)
    loaded = load_file(file.path)
    np.testing.assert_array_equal(loaded["w"], weight)
    np.testing.assert_array_equal(loaded["table"], table)
    assert [loaded[name].tolist() for name in ("one", "scale", "offset")] == [1, [1.0], [3]]
    with TensorFile(file.path) as read:
        assert list(read.tensors.values()) == placed


def test_header_space_does_not_depend_on_what_came_of_it(tmp_path: Path) -> None:
    sizes = set()
    for number, length in enumerate((128, 900_000)):
        (tmp_path / str(number)).mkdir()
        file = rank_file(tmp_path / str(number))
        sizes.add((file.header_bytes, file.append(tensor_info("w", "I8", (length,)))))
        file.close()
    assert len(sizes) == 1


def test_mistakes_are_refused(tmp_path: Path) -> None:
    file = rank_file(tmp_path)
    with pytest.raises(ValueError, match="1 bytes, not 2"):
        file.put_small("offset", b"12")
    with pytest.raises(WorkError, match="creating the file failed"):
        rank_file(tmp_path)
    file.append(tensor_info("w", "I8", (8,)))
    with pytest.raises(ValueError, match="twice"):
        file.append(tensor_info("w", "I8", (8,)))
    file.close()


def test_a_file_of_another_size_is_not_finished(tmp_path: Path) -> None:
    file = rank_file(tmp_path)
    for name, data in (("offset", b"\3"), ("scale", b"\0\x3c"), ("one", bytes(4))):
        file.put_small(name, data)
    with file.path.open("ab") as stream:
        stream.truncate(10_000)
    with pytest.raises(WorkError, match="size it was written with"):
        file.finish()
    file.close()
    assert os.path.exists(file.path)
