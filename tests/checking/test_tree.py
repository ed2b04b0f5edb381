"""Verification of a published tree: every directory has its line, the worst decides, and nothing is passed over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from w8a8sc_tool.checking.tree import TreeReport, verify_tree
from w8a8sc_tool.cli.main import run
from w8a8sc_tool.errors import InputError
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.synthesis.synthesize import synthesize


def check(tree: Path, **options: object) -> TreeReport:
    return verify_tree(tree, processes=1, **options)  # type: ignore[arg-type]


def directory(tree: Path, tp: int) -> Path:
    return tree / f"TP{tp}" / f"Tiny-w8a8sc-310-vllm-tp{tp}"


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_all_directories_in_one_go(tree: Path, tiny: Path) -> None:
    report = check(tree, source=tiny)
    assert report.ok and report.exit_code == 0 and not report.findings and not report.not_checked
    assert [part.directory for part in report.reports] == [directory(tree, 1), directory(tree, 2)]
    assert [part.tp for part in report.reports] == [1, 2]
    assert all(part.against_source == tiny and part.compressed_weights for part in report.reports)


def test_a_damaged_directory_decides_and_the_others_are_verified(tree: Path) -> None:
    damage(directory(tree, 1) / "model-rank-0-part-0.safetensors")
    report = check(tree)
    assert (report.exit_code, [part.ok for part in report.reports]) == (1, [False, True])
    assert check(tree, quick=True).ok  # as of a directory: no bytes are read
    (directory(tree, 2) / "w8a8sc_manifest.json").write_text("{")
    report = check(tree)
    assert [part.ok for part in report.reports] == [False, False]
    assert "not a manifest" in report.reports[1].findings[0].message


def test_a_directory_that_cannot_be_of_the_source(tree: Path, tmp_path: Path) -> None:
    """Sizes that a source's layout does not allow are what is wrong with these directories alone."""
    other = synthesize(tmp_path / "Other-w8a8s-310", "tiny", layers=1)
    report = check(tree, source=other)
    assert [part.ok for part in report.reports] == [False, False]
    with pytest.raises(InputError, match="no such folder"):
        check(tree, source=tmp_path / "none")


def test_a_lost_manifest_is_not_passed_over(tree: Path) -> None:
    (directory(tree, 2) / "w8a8sc_manifest.json").unlink()
    report = check(tree)
    assert [part.has_manifest for part in report.reports] == [True, False]
    assert any("there is no manifest" in gap for gap in report.reports[1].not_checked)


def test_unfinished_and_foreign_folders_are_named(tree: Path) -> None:
    unfinished = tree / "TP4" / "Tiny-w8a8sc-310-vllm-tp4.partial"
    shutil.copytree(directory(tree, 1), unfinished)
    (tree / "notes").mkdir()
    (tree / "TP8").mkdir()
    (tree / ".cache").mkdir()
    (tree / "README.md").touch()
    report = check(tree, quick=True)
    assert report.ok and len(report.reports) == 2
    assert report.not_checked == [
        f"{unfinished}: unfinished work, or what a replacement left",
        f"{tree / 'TP8'}: no sharded_state directory",
        f"{tree / 'notes'}: no sharded_state directory",
    ]


def test_a_directory_in_another_sizes_folder(tree: Path) -> None:
    directory(tree, 2).rename(tree / "TP1" / "two")
    report = check(tree, quick=True)
    assert all(part.ok for part in report.reports) and report.exit_code == 1
    assert [finding.message for finding in report.findings] == ["the directory is for TP 2, its folder says TP 1"]


def test_directories_of_two_checkpoints(tree: Path, tmp_path: Path) -> None:
    other = synthesize(tmp_path / "Other-w8a8s-310", "tiny", layers=1)
    (made,) = compress(other, tmp_path, tp=4, name="Tiny", processes=1)
    assert made.directory == directory(tree, 4)
    report = check(tree, quick=True)
    assert all(part.ok for part in report.reports) and not report.ok
    assert [(f.message, f.where) for f in report.findings] == [
        (f"it was made of another checkpoint than {directory(tree, 1)}", str(directory(tree, 4)))
    ]


@pytest.mark.parametrize(
    "choose", [lambda tree: directory(tree, 1), lambda tree: tree / "TP1", lambda tree: tree.parent]
)
def test_what_is_no_tree(tree: Path, choose: Callable[[Path], Path]) -> None:
    with pytest.raises(InputError, match="not a tree of sharded_state directories"):
        check(choose(tree))


def test_a_tree_of_one(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(tree / "TP2")
    assert run(["verify", str(tree), "-j", "1"]) == 0
    assert f"{tree}: 1 directory, all verified" in capsys.readouterr().out


def test_the_command(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(directory(tree, 2) / "config.json")
    (tree / "TP4" / "\x1b[2J.partial").mkdir(parents=True)
    assert run(["verify", str(tree), "-j", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"{directory(tree, 2) / 'config.json'}: ") for line in lines)
    assert f"not checked: {tree / 'TP4'}/\\x1b[2J.partial: unfinished work, or what a replacement left" in lines
    assert lines[-3].startswith("TP1/Tiny-w8a8sc-310-vllm-tp1: verified: TP 1, ")
    assert lines[-2].startswith("TP2/Tiny-w8a8sc-310-vllm-tp2: ") and " errors: TP 2" in lines[-2]
    assert lines[-1] == f"{tree}: 2 directories, 1 with errors"
    assert run(["verify", str(tree), "--quick", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["tree"], document["ok"], len(document["directories"])) == (str(tree), False, 2)
