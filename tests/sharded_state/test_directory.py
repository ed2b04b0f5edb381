"""A directory appears whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from w8a8sc_tool.errors import InputError, WorkError
from w8a8sc_tool.sharded_state import SealedDirectory
from w8a8sc_tool.sharded_state.directory import PARTIAL, REPLACED

from .test_manifest import example


def make(target: Path, content: bytes = b"new", *, overwrite: bool = False) -> None:
    with SealedDirectory(target, overwrite=overwrite) as directory:
        directory.write_file("a.json", content)
        assert not target.exists() or overwrite
        directory.seal(msgspec.structs.replace(example(), rank_files=[], files=directory.side_files))
        directory.publish()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_sealing(tmp_path: Path) -> None:
    make(tmp_path / "x" / "y")
    assert names(tmp_path / "x") == {"y"}
    assert names(tmp_path / "x" / "y") == {"a.json", "w8a8sc_manifest.json"}


def test_a_failure_leaves_only_the_partial_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), SealedDirectory(tmp_path / "y", overwrite=False) as directory:
        directory.write_file("a.json", b"1")
        raise RuntimeError
    assert names(tmp_path) == {"y" + PARTIAL}
    with SealedDirectory(tmp_path / "y", overwrite=False) as directory:
        assert directory.clear()
        assert not directory.clear()
    make(tmp_path / "y")
    assert names(tmp_path) == {"y"}


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"1234")], ids=["gone", "longer"])
def test_what_is_not_whole_is_not_sealed(damage: Callable[[Path], object], tmp_path: Path) -> None:
    with SealedDirectory(tmp_path / "y", overwrite=False) as directory:
        directory.write_file("a.json", b"123")
        damage(directory.partial / "a.json")
        with pytest.raises(WorkError, match=r"a\.json: run the same command again"):
            directory.seal(msgspec.structs.replace(example(), rank_files=[], files=directory.side_files))
    assert names(tmp_path / ("y" + PARTIAL)) <= {"a.json"}


def test_existing_targets(tmp_path: Path) -> None:
    make(tmp_path / "y", b"old")
    with pytest.raises(InputError, match=r"exists already.*overwrite=True"):
        make(tmp_path / "y")
    make(tmp_path / "y", b"new", overwrite=True)
    assert (tmp_path / "y" / "a.json").read_bytes() == b"new"
    assert names(tmp_path) == {"y"}
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("y")
    for name in ("file", "link"):
        with pytest.raises(InputError, match="not a directory"):
            make(tmp_path / name, overwrite=True)


def test_the_old_directory_stays_usable_until_the_new_one_is_complete(tmp_path: Path) -> None:
    make(tmp_path / "y", b"old")
    with pytest.raises(RuntimeError), SealedDirectory(tmp_path / "y", overwrite=True) as directory:
        directory.write_file("a.json", b"half")
        raise RuntimeError
    assert (tmp_path / "y" / "a.json").read_bytes() == b"old"


def test_a_replacement_interrupted_between_its_two_renames(tmp_path: Path) -> None:
    make(tmp_path / "y", b"old")
    (tmp_path / "y").rename(tmp_path / ("y" + REPLACED))
    with pytest.raises(RuntimeError), SealedDirectory(tmp_path / "y", overwrite=True):
        raise RuntimeError
    assert (tmp_path / "y" / "a.json").read_bytes() == b"old"


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(InputError, match="not a folder"):
        make(tmp_path / "f" / "y")


def test_side_files_are_copied_with_their_hash(tmp_path: Path) -> None:
    (tmp_path / "source.json").write_bytes(b"abc" * 1000)
    with SealedDirectory(tmp_path / "y", overwrite=False) as directory:
        directory.copy_file(tmp_path / "source.json", "source.json")
        (entry,) = directory.side_files
        assert (entry.file, entry.size) == ("source.json", 3000)
        with pytest.raises(InputError, match="no such file"):
            directory.copy_file(tmp_path / "missing.json", "missing.json")
