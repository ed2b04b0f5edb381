"""File systems that offer less: what is optional is left out with one note, what is not stays an error."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from w8a8sc_tool.errors import WorkError
from w8a8sc_tool.io import files, limits
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.jobs.reshard import to_checkpoint
from w8a8sc_tool.sharded_state import SealedDirectory

from ..conversion.test_resume import Watch


def refuse_syncs(monkeypatch: pytest.MonkeyPatch, number: int, is_refused: Callable[[int], bool]) -> None:
    """Have fsync fail for folders or for files, by the mode of what is synced."""
    real = os.fsync

    def fsync(fd: int) -> None:
        if is_refused(os.fstat(fd).st_mode):
            raise OSError(number, os.strerror(number))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize(
    "number",
    [
        errno.EINVAL,
        *(pytest.param(n, marks=pytest.mark.slow) for n in (errno.ENOTSUP, errno.ENOSYS, errno.EBADF)),
        errno.EIO,
    ],
)
def test_folders_that_cannot_be_synced(
    number: int, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_syncs(monkeypatch, number, stat.S_ISDIR)
    watch = Watch()
    (made,) = compress(tiny, tmp_path, processes=1, progress=watch)
    assert (made.directory / "w8a8sc_manifest.json").is_file()
    notes = [note for note in watch.notes if "cannot sync folders" in note]
    assert len(notes) == 1
    assert str(tmp_path) in notes[0] and os.strerror(number) in notes[0]


def test_a_checkpoint_where_folders_cannot_be_synced(
    sealed: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_syncs(monkeypatch, errno.EINVAL, stat.S_ISDIR)
    watch = Watch()
    assert to_checkpoint(sealed(2), tmp_path, progress=watch).is_dir()
    assert sum("cannot sync folders" in note for note in watch.notes) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_folder_without_room_for_its_names_is_an_error(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_syncs(monkeypatch, number, stat.S_ISDIR)
    with pytest.raises(WorkError, match="syncing the folder failed"):
        files.sync_folder(tmp_path)


@pytest.mark.parametrize(
    ("number", "is_error"),
    [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True), (errno.ENOSPC, True), (errno.EDQUOT, True)],
)
def test_files_that_cannot_be_synced(
    number: int, is_error: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_syncs(monkeypatch, number, stat.S_ISREG)
    notes: list[str] = []
    with limits.noting(notes.append):
        if is_error:
            with pytest.raises(WorkError, match="syncing failed"):
                files.write_file(tmp_path / "a", b"1")
        else:
            files.write_file(tmp_path / "a", b"1")
            files.write_file(tmp_path / "b", b"2")
    assert len(notes) == (0 if is_error else 1)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EBADF, errno.EINVAL])
def test_folders_that_cannot_be_locked(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    notes: list[str] = []
    with limits.noting(notes.append), SealedDirectory(tmp_path / "a", overwrite=False):
        pass
    assert len(notes) == 1 and "cannot lock folders" in notes[0]
    # Whoever would remove what nobody uses cannot know that here.
    assert files.lock(tmp_path, surely=True) is None


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EACCES])
def test_a_lock_that_somebody_holds(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert files.lock(tmp_path) is None


def refuse_moves(monkeypatch: pytest.MonkeyPatch, number: int, name: str) -> None:
    """Have the renaming of what has this name fail."""
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if path.name == name:
            raise OSError(number, os.strerror(number))
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)


def test_an_old_directory_that_cannot_be_moved_aside(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As overlayfs has it for a directory that came with the image."""
    (old,) = compress(tiny, tmp_path, processes=1)
    (old.directory / "mark").touch()
    refuse_moves(monkeypatch, errno.EXDEV, old.directory.name)
    watch = Watch()
    (new,) = compress(tiny, tmp_path, processes=1, overwrite=True, progress=watch)
    assert not (new.directory / "mark").exists() and (new.directory / "w8a8sc_manifest.json").exists()
    assert [path.name for path in new.directory.parent.iterdir()] == [new.directory.name]
    assert sum("cannot move the old directory aside" in note for note in watch.notes) == 1


@pytest.mark.parametrize(
    "number", [errno.EXDEV, *(pytest.param(n, marks=pytest.mark.slow) for n in (errno.ENOTEMPTY, errno.EEXIST))]
)
def test_a_new_directory_that_cannot_be_put_in_place(
    number: int, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "Tiny-w8a8sc-310-vllm-tp1"
    with monkeypatch.context() as patch:
        refuse_moves(patch, number, f"{name}.partial")
        with pytest.raises(WorkError, match="renaming failed") as caught:
            compress(tiny, tmp_path, processes=1)
    assert ("cannot rename" if number == errno.EXDEV else "appeared") in caught.value.problems[0].remedy
    (made,) = compress(tiny, tmp_path, processes=1)  # nothing of the work is lost
    assert made.directory.name == name
