"""The folder beside the right one is recognized, and the right ones are listed; for every command that takes one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from w8a8sc_tool.cli.main import run
from w8a8sc_tool.io.folders import directories_below, is_checkpoint, is_sharded_state, is_tree, tree_contents


@pytest.fixture
def tree(sealed: Callable[[int], Path], tmp_path: Path) -> Path:
    """A published tree with two sizes, and what must not be listed: a directory in the making and a hidden one."""
    root = tmp_path / "Tiny-w8a8sc-310-vllm"
    for tp in (1, 2):
        shutil.copytree(sealed(tp), root / f"TP{tp}" / f"Tiny-tp{tp}")
    shutil.copytree(sealed(1), root / "TP4" / "Tiny-tp4.partial")
    shutil.copytree(sealed(1), root / ".cache" / "Tiny-tp1")
    return root


def test_what_a_folder_is(tree: Path, tiny: Path, tmp_path: Path) -> None:
    directory = tree / "TP1" / "Tiny-tp1"
    assert is_sharded_state(directory) and not is_checkpoint(directory)
    assert is_checkpoint(tiny) and not is_sharded_state(tiny)
    assert directories_below(tree) == [directory, tree / "TP2" / "Tiny-tp2"]
    assert directories_below(tmp_path) == directories_below(tree)
    assert is_tree(tree) and not any(map(is_tree, (directory, directory.parent, tmp_path, tiny, tmp_path / "none")))
    assert tree_contents(tree) == (directories_below(tree), [tree / "TP4" / "Tiny-tp4.partial"])


def test_sizes_are_listed_as_numbers(tmp_path: Path) -> None:
    for tp in (16, 2, 4):
        (tmp_path / f"TP{tp}").mkdir()
        (tmp_path / f"TP{tp}" / "w8a8sc_manifest.json").touch()
    assert [path.name for path in directories_below(tmp_path)] == ["TP2", "TP4", "TP16"]


COMMANDS_OF_DIRECTORIES = [
    line.split()
    for line in (
        "inspect {}",
        "fit {}",
        "serve --print {}",
        "generate --prompt a {}",
        "compare {} {}",
        "reshard --tp 2 {}",
        "decompress {}",
        "decompress --checkpoint {}",
        "compress {}",
        "compress --dry-run {}",
    )
]


@pytest.mark.parametrize("words", COMMANDS_OF_DIRECTORIES, ids=" ".join)
def test_the_root_of_a_published_tree(
    words: list[str], tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([word.format(tree) for word in words]) == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    for tp in (1, 2):
        assert str(tree / f"TP{tp}" / f"Tiny-tp{tp}") in line
    assert ".partial" not in line and ".cache" not in line
    assert [path.name for path in tmp_path.iterdir()] == [tree.name]


@pytest.mark.parametrize("words", [["compress"], ["compress", "--dry-run"], ["verify", "{directory}", "--source"]])
def test_a_directory_where_a_checkpoint_is_wanted(
    words: list[str], sealed: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """It has as many stems as ranks; the advice to keep one of them would delete the others."""
    directory = sealed(2)
    assert run([*(word.format(directory=directory) for word in words), str(directory)]) == 3
    error = capsys.readouterr().err
    assert "a sharded_state directory, not a checkpoint" in error and f"w8a8sc reshard {directory}" in error
    assert "keep one" not in error


@pytest.mark.parametrize("words", [["verify"], ["compare", "{model}"], ["reshard", "--tp", "2"], ["decompress"]])
def test_a_checkpoint_where_a_directory_is_wanted(
    words: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*(word.format(model=tiny) for word in words), str(tiny)]) == 3
    assert f"w8a8sc compress {tiny}" in capsys.readouterr().err
