"""Reading back what workers have written: each kind of damage is found, and nothing is read twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from w8a8sc_tool.checking import verify as checking
from w8a8sc_tool.codec import encode_matrix
from w8a8sc_tool.conversion.convert import target_folder
from w8a8sc_tool.conversion.read_back import ReadBack
from w8a8sc_tool.errors import WorkError
from w8a8sc_tool.io import files
from w8a8sc_tool.io.reading import PIECE_BYTES
from w8a8sc_tool.jobs.compress import compress

from ..jobs.test_reshard import InProcess

Write = Callable[[int, Path, Any, int], None]


@pytest.mark.parametrize("position", [0, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 6])
def test_a_byte_that_differs(tmp_path: Path, position: int) -> None:
    """In the first piece, at its end, in the second, at the end of all."""
    values = np.arange(PIECE_BYTES + 7, dtype=np.uint8)
    path = tmp_path / "file"
    path.write_bytes(b"head" + values.tobytes() + b"tail")
    with path.open("r+b") as file:
        ReadBack().compare(file.fileno(), path, values, 4, "t")
        os.pwrite(file.fileno(), bytes([values[position] ^ 1]), 4 + position)
        with pytest.raises(WorkError, match=r"not those that were written.*file \(t\)"):
            ReadBack().compare(file.fileno(), path, values, 4, "t")


@pytest.mark.parametrize("leaf", ["weight", "index", "info"])
def test_a_weight_that_does_not_decode(tmp_path: Path, leaf: str) -> None:
    encoded = encode_matrix(np.random.default_rng(0).integers(-3, 4, (200, 300)).astype(np.int8))
    edges: dict[str, tuple[int, int]] = {}
    data = b""
    for name in ("weight", "index", "info"):
        content = getattr(encoded, name).tobytes()
        edges[name] = len(data), len(data) + len(content)
        data += content
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("r+b") as file:
        ReadBack().decode(file.fileno(), path, "m", edges, "low")
        os.pwrite(file.fileno(), b"\x7f", edges[leaf][0] + 1)
        with pytest.raises(WorkError, match=r"reading back what was written found an error.*\(m\.weight\)"):
            ReadBack().decode(file.fileno(), path, "m", edges, "low")


def test_damage_on_the_way_to_the_disk_ends_the_job(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write: Write = files.write_at

    def write_otherwise(fd: int, path: Path, data: Any, offset: int) -> None:
        write(fd, path, data, offset)
        if len(data) > 4096 and path.name.startswith("model-rank-1"):
            write(fd, path, bytes([data[100] ^ 4]), offset + 100)

    monkeypatch.setattr("w8a8sc_tool.conversion.conversion.Pool", InProcess)
    monkeypatch.setattr(files, "write_at", write_otherwise)
    with pytest.raises(WorkError, match="reading back"):
        compress(tiny, tmp_path, tp=[2], name="Tiny")
    assert not target_folder(tmp_path, "Tiny", 2).exists()


def test_what_workers_have_read_back_is_not_read_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end only those tensors are left to read that are too small to have an offset before."""
    names: set[str] = set()
    run = checking._run

    def noted(tasks: list[Any], *arguments: Any) -> Any:
        names.update(tensor.info.name for task in tasks for tensor in task.arguments[0])
        return run(tasks, *arguments)

    monkeypatch.setattr(checking, "_run", noted)
    (result,) = compress(tiny, tmp_path, processes=1)
    tensors = {tensor.name: tensor for rank in result.manifest.ranks for tensor in rank.tensors}
    assert names == {name for name, tensor in tensors.items() if (tensor.end - tensor.begin) % 8}
    assert 0 < len(names) < len(tensors)
