"""Every architecture the whole way: values of every rank, verified, resharded up and down, decompressed, made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from w8a8sc_tool.checking.verify import verify
from w8a8sc_tool.cli.main import run
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.jobs.inspect import inspect
from w8a8sc_tool.jobs.reshard import reshard, to_checkpoint
from w8a8sc_tool.jobs.serving import fit

from ..architectures import CHECKPOINTS, make
from .test_compress import check_values, digests

# By default one that is dense, one with images, one with linear attention and experts: each has a layout's own tests.
FAST = ("qwen2 tied", "qwen3-vl", "qwen3.5-moe")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in CHECKPOINTS]
)
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


def test_what_differs_by_release_is_in_the_directory_and_its_manifest(tmp_path: Path) -> None:
    """A_log of linear attention, in every command that makes or judges a directory."""
    source = make("qwen3.5", tmp_path)
    (made,) = compress(source, tmp_path / "made", tp=[2], processes=2, target="0.23")
    assert made.manifest.options["target"] == "0.23"
    check_values(source, made.directory, 2, "0.23")
    assert verify(made.directory, source=source).findings == []
    (other,) = reshard(made.directory, tmp_path / "resharded", tp=[1], processes=2)
    check_values(source, other.directory, 1, "0.23")
    back = to_checkpoint(made.directory, tmp_path / "back")
    (again,) = compress(back, tmp_path / "again", tp=[2], processes=2, target="0.23")
    (older,) = compress(back, tmp_path / "older", tp=[2], processes=2)
    check_values(source, older.directory, 2)
    for rank in ("model-rank-0-part-0.safetensors", "model-rank-1-part-0.safetensors"):
        assert digests(again.directory)[rank] == digests(made.directory)[rank] != digests(older.directory)[rank]


@pytest.mark.slow
def test_an_architecture_that_is_not_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (made,) = compress(make("qwen3.5 tied", tmp_path), tmp_path / "made", tp=[1], processes=2)
    assert run(["generate", str(made.directory), "--prompt", "x"]) == 4
    assert "the bundled runtime has no model for Qwen3_5ForConditionalGeneration" in capsys.readouterr().err
