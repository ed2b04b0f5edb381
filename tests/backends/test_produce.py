"""Reading ahead: the same pieces in the same order, errors where they belong, and no thread left behind."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from w8a8sc_tool.backends import produce
from w8a8sc_tool.backends.produce import blocks
from w8a8sc_tool.checkpoint.reader import SourceReader
from w8a8sc_tool.checkpoint.tensors import FileTensor
from w8a8sc_tool.errors import WorkError
from w8a8sc_tool.io import reading
from w8a8sc_tool.layouts import Output, Slice

ROWS, COLUMNS = 103, 8


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileTensor:
    """Half-precision rows of 16 bytes, which are read ten at a time."""
    path = tmp_path / "model.safetensors"
    np.arange(ROWS * COLUMNS, dtype=np.uint16).tofile(path)
    monkeypatch.setattr(produce, "PIECE_BYTES", 160)
    return FileTensor("t", str(path), 2 * ROWS * COLUMNS, "F16", (ROWS, COLUMNS), 0, 2 * ROWS * COLUMNS)


def output(*cuts: tuple[int, int]) -> Output:
    """The tensor, each rank having some of its rows."""
    slices = tuple((Slice("t", first, last),) for first, last in cuts)
    return Output("t", "F16", (max(last - first for first, last in cuts), COLUMNS), "float16", slices)


@pytest.mark.parametrize("cuts", [[(0, 103)], [(0, 52), (52, 103)], [(0, 103), (0, 5)], [(40, 40)]])
def test_ahead_is_the_same(source: FileTensor, cuts: list[tuple[int, int]]) -> None:
    made, hashes = [], []
    for ahead in (False, True):
        reader = SourceReader()
        pieces = blocks([output(*cuts)], {"t": source}, reader, ahead=ahead)
        made.append([(number, rank, position, values.tobytes()) for number, rank, position, values in pieces])
        hashes.append(source.hash(reader))
    assert made[0] == made[1]
    assert hashes[0] == hashes[1]


def test_an_error_ahead_comes_in_its_turn(source: FileTensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file cannot be read from row 30 on."""
    read_at = reading.read_at

    def broken(fd: int, path: Path, view: memoryview, offset: int, subject: str) -> None:
        row = (offset - source.begin) // (source.nbytes // ROWS)
        if row >= 30:
            raise WorkError(f"row {row} cannot be read")
        read_at(fd, path, view, offset, subject)

    monkeypatch.setattr(reading, "read_at", broken)
    threads = threading.active_count()
    positions = []
    with pytest.raises(WorkError, match="row 30"):
        for _, _, position, _ in blocks([output((0, ROWS))], {"t": source}, SourceReader(), ahead=True):
            positions.append(position)
    assert positions == [0, 160, 320]
    assert threading.active_count() == threads


def test_who_stops_in_between_leaves_no_thread(source: FileTensor) -> None:
    threads = threading.active_count()
    pieces = blocks([output((0, ROWS))], {"t": source}, SourceReader(), ahead=True)
    next(pieces)
    assert threading.active_count() > threads
    pieces.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads
