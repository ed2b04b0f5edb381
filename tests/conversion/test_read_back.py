"""Reading back what workers have written: each kind of damage is found, and nothing is read twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from w8a8sc_tool.backends.produce import blocks
from w8a8sc_tool.backends.shards import CompressedShard
from w8a8sc_tool.checking import verify as checking
from w8a8sc_tool.codec import DecodedBlock, MatrixDecoder, encode_matrix
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
    shard = CompressedShard([encoded.weight], encoded.index, encoded.info)
    ReadBack().decode(shard, tmp_path, "m", "low")
    getattr(encoded, leaf).view(np.int8)[1] = 0x7F
    with pytest.raises(WorkError, match=r"reading back what was written found an error.*\(m\.weight\)"):
        ReadBack().decode(shard, tmp_path, "m", "low")


@pytest.mark.parametrize("cuts", [[], [128], [40000, 40000, 65536], list(range(0, 300000, 1000))])
def test_a_weight_is_decoded_whatever_pieces_it_is_in(
    tmp_path: Path, cuts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of blocks of one row of tiles, each."""
    weight = np.random.default_rng(0).integers(-3, 4, (1000, 600)).astype(np.int8)
    encoded = encode_matrix(weight)
    decoded: list[np.ndarray[Any, Any]] = []
    decode = MatrixDecoder.decode

    def keep(self: MatrixDecoder, block: DecodedBlock, payload: Any) -> None:
        out = np.empty((block.last_row - block.first_row, self.tiling.k), np.int8)
        decode(self, block, payload, out)
        decoded.append(out)

    monkeypatch.setattr(MatrixDecoder, "check", keep)
    monkeypatch.setattr(MatrixDecoder, "blocks", lambda self, size=1: (self.block(n, n + 1) for n in range(8)))
    shard = CompressedShard(np.split(encoded.weight, cuts), encoded.index, encoded.info)
    ReadBack().decode(shard, tmp_path, "m", "low")
    assert len(decoded) == 8
    assert np.array_equal(np.concatenate(decoded), weight)


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


@pytest.mark.parametrize("verify", [True, False])
def test_reading_back_does_not_read_ahead(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify: bool
) -> None:
    """Linux would go on behind what is written, into what is not yet; of every file that workers have open."""
    advised: set[str] = set()
    advise = os.posix_fadvise

    def noted(fd: int, offset: int, length: int, advice: int) -> None:
        if advice == os.POSIX_FADV_RANDOM:
            assert (offset, length) == (0, 0)
            advised.add(Path(f"/proc/self/fd/{fd}").readlink().name)
        advise(fd, offset, length, advice)

    monkeypatch.setattr("w8a8sc_tool.conversion.conversion.Pool", InProcess)
    monkeypatch.setattr(os, "posix_fadvise", noted)
    (result,) = compress(tiny, tmp_path, tp=[2], verify=verify)
    assert advised == ({file.file for file in result.manifest.rank_files} if verify else set())


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
    tensors = {tensor.name: tensor for file in result.manifest.rank_files for tensor in file.tensors}
    assert names == {name for name, tensor in tensors.items() if (tensor.end - tensor.begin) % 8}
    assert 0 < len(names) < len(tensors)


def test_many_processes_read_ahead_and_write_the_same(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[bool] = []

    def noted(*arguments: Any, ahead: bool) -> Any:
        used.append(ahead)
        return blocks(*arguments, ahead=ahead)

    monkeypatch.setattr("w8a8sc_tool.conversion.conversion.Pool", InProcess)
    monkeypatch.setattr("w8a8sc_tool.conversion.worker.blocks", noted)
    results = []
    for processes in (2, 64):
        used.clear()
        (result,) = compress(tiny, tmp_path / str(processes), processes=processes, verify=False)
        results.append(result.manifest)
        assert set(used) == {processes == 64}
    assert results[0] == results[1]
