"""What a container is given: the folder, and whatever its links lead to, or a refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from w8a8sc_tool.errors import InputError
from w8a8sc_tool.serving.mounts import mounts_of


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A folder of a Hugging Face cache."""
    hub = tmp_path / "models--acme--Toy"
    folder = hub / "snapshots" / "0123"
    folder.mkdir(parents=True)
    (hub / "blobs").mkdir()
    for number, name in enumerate(("config.json", "weights.safetensors")):
        (hub / "blobs" / str(number)).write_text(name)
        (folder / name).symlink_to(f"../../blobs/{number}")
    return folder


def inside(path: Path, mounts: list[Path]) -> bool:
    """Whether a file can be read where nothing but the mounts is there."""
    for _ in range(5):
        if not any(path.is_relative_to(mount) for mount in mounts):
            return False
        if not path.is_symlink():
            return path.exists()
        path = Path(*(path.parent / path.readlink()).parts)
        while ".." in path.parts:
            at = path.parts.index("..")
            path = Path(*path.parts[: at - 1], *path.parts[at + 1 :])
    return False


def test_a_folder_without_links_is_all_that_is_mounted(tiny: Path) -> None:
    assert mounts_of(tiny) == [tiny]


def test_a_cache_is_mounted_with_its_blobs(snapshot: Path, tmp_path: Path) -> None:
    hub = snapshot.parents[1]
    assert mounts_of(snapshot) == [snapshot, hub / "blobs"]
    link = tmp_path / "Toy"
    link.symlink_to(snapshot)
    mounts = mounts_of(link)
    assert mounts == [snapshot, hub / "blobs"]
    assert all(inside(mounts[0] / name, mounts) for name in ("config.json", "weights.safetensors"))


def test_links_of_links_and_absolute_ones(snapshot: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a").symlink_to(tmp_path / "far")
    (tmp_path / "far").touch()
    (snapshot / "more.json").symlink_to(tmp_path / "store" / "a")
    (snapshot / "same.json").symlink_to("config.json")
    (snapshot / ".hidden").symlink_to("nowhere")
    mounts = mounts_of(snapshot)
    assert all(inside(snapshot / name, mounts) for name in ("more.json", "same.json", "config.json"))
    assert tmp_path in mounts and tmp_path / "store" not in mounts  # the outer one holds it


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere", "not there"),
        ("../../blobs", "links to a folder"),
        ("loop", "not there"),
        ("/etc/../proc/../vmlinuz-of-nobody", "not there"),
    ],
)
def test_links_that_cannot_be_mounted(target: str, message: str, snapshot: Path) -> None:
    (snapshot / "loop").symlink_to(target)
    with pytest.raises(InputError, match=rf"{message}, .*loop"):
        mounts_of(snapshot)


def test_a_link_through_a_linked_folder(snapshot: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(snapshot.parents[1] / "blobs")
    (snapshot / "x.json").symlink_to(tmp_path / "elsewhere" / "0")
    with pytest.raises(InputError, match=r"through the linked folder .*elsewhere"):
        mounts_of(snapshot)


def test_a_colon(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    with pytest.raises(InputError, match="a path with a colon"):
        mounts_of(tmp_path / "a:b")
