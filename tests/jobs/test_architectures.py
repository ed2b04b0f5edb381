"""Every architecture the whole way: values of every rank, verified, resharded up and down, decompressed, made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from w8a8sc_tool.checking.verify import verify
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.jobs.inspect import inspect
from w8a8sc_tool.jobs.reshard import reshard, to_checkpoint
from w8a8sc_tool.jobs.serving import fit

from ..architectures import CHECKPOINTS, make
from .test_compress import check_values, digests


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_whole_way(name: str, tmp_path: Path) -> None:
    source = make(name, tmp_path)
    made = {result.tp: result.directory for result in compress(source, tmp_path / "made", tp=[1, 2, 4], processes=2)}
    for tp, directory in made.items():
        check_values(source, directory, tp)
    shown = inspect(made[2])
    assert any(row.quantization == "W8A8SC" for row in shown.modules)
    assert verify(made[2], source=source).findings == []
    for result in reshard(made[2], tmp_path / "resharded", tp=[1, 4], processes=2):
        assert digests(result.directory) == digests(made[result.tp])
    back = to_checkpoint(made[4], tmp_path / "back")
    (again,) = compress(back, tmp_path / "again", tp=[1], processes=2)
    ranks = {path.name for path in made[1].glob("model-rank-*")}
    assert ranks and all(digests(again.directory)[rank] == digests(made[1])[rank] for rank in ranks)
    assert [estimate.tp for estimate in fit(source)][:3] == [1, 2, 4]
