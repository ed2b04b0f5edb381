"""Names come from the word that was given: not from what a link leads to, and not from a cache's hash."""

from __future__ import annotations

from pathlib import Path

import pytest

from w8a8sc_tool.io.names import given_name, is_inside

COMMIT = ("0123456789abcdef" * 3)[:40]


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    folder = tmp_path / "models--acme--Toy-8B-w8a8s-310" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    return folder


def test_links_and_snapshots(snapshot: Path, tmp_path: Path) -> None:
    link = tmp_path / "Mine"
    link.symlink_to(snapshot)
    assert given_name(link) == "Mine"
    assert given_name(Path(f"{link}/")) == "Mine"
    assert given_name(snapshot) == "Toy-8B-w8a8s-310"
    assert given_name(snapshot / "TP1") == "TP1"
    assert given_name(tmp_path / "models--gpt" / "snapshots" / COMMIT) == "gpt"
    assert given_name(tmp_path / "plain" / "snapshots" / "b") == "b"
    assert given_name(Path("/")) == ""
    modelscope = tmp_path / "models"
    assert given_name(modelscope / "acme--Toy-8B-w8a8s-310" / "snapshots" / "master") == "Toy-8B-w8a8s-310"
    assert (
        given_name(modelscope / "acme" / "Toy1___5-8B") == given_name(tmp_path / "hub/acme/Toy1___5-8B") == "Toy1.5-8B"
    )
    assert given_name(tmp_path / "acme" / "Toy1___5-8B") == "Toy1___5-8B"


@pytest.mark.parametrize("pwd", ["link", "real", "elsewhere", "relative", ""])
def test_dots(pwd: str, snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a linked folder `.` is called as it was entered; a PWD that is not this folder is not believed."""
    link = tmp_path / "Mine"
    link.symlink_to(snapshot)
    (tmp_path / "Other").mkdir()
    (snapshot / "inner").mkdir()
    names = {"link": str(link), "real": str(snapshot), "elsewhere": str(tmp_path / "Other"), "relative": "Mine", "": ""}
    monkeypatch.chdir(link)
    monkeypatch.setenv("PWD", names[pwd])
    expected = "Mine" if pwd == "link" else "Toy-8B-w8a8s-310"
    assert given_name(Path(".")) == given_name(Path("")) == expected
    assert given_name(Path("inner/..")) == "Toy-8B-w8a8s-310"  # where the folder really is
    assert given_name(Path("..")) == "snapshots"
    assert given_name(Path(f"../{COMMIT}")) == "Toy-8B-w8a8s-310"
    assert given_name(Path("./inner/.")) == "inner"


@pytest.mark.parametrize("name", ["a", "a b.json", "...", "\u4e2d/x", "a/b"])
def test_names_inside(name: str) -> None:
    assert is_inside(name, 2)
    assert is_inside(name) == ("/" not in name)


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "./a", "a/.", "a/b/c", "a\0", "\ud800"]
)
def test_names_elsewhere(name: str) -> None:
    assert not is_inside(name, 2)
