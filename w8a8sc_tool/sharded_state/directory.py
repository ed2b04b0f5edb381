"""A directory that appears whole or not at all: it grows beside its place and is renamed when it is sealed."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from ..errors import InputError, WorkError
from ..io import files, hashing, reading
from . import manifest as manifest_file
from .manifest import FileEntry, Manifest

PARTIAL: Final = ".partial"
REPLACED: Final = ".replaced"


class SealedDirectory:
    """A context in which a directory's files are made below `partial`: `seal` completes it, `publish` puts it in place.

    The partial directory is locked meanwhile; leaving the context before `publish` keeps it.
    """

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        """Raises InputError if the target exists and may not be replaced."""
        recover(target)
        self.target = target
        self.partial = partial_of(target)
        self._replaced = target.with_name(target.name + REPLACED)
        self._overwrite = overwrite
        self._side_files: list[FileEntry] = []
        self._lock: int | None = None
        check_target(target, overwrite=overwrite)

    def __enter__(self) -> SealedDirectory:
        files.make_parents(self.target.parent)
        if reading.is_link(self.partial) or (reading.exists(self.partial) and not reading.is_folder(self.partial)):
            files.remove(self.partial)
        if not reading.exists(self.partial):
            files.make_folder(self.partial)
            files.sync_folder(self.target.parent)
        self._take_lock()
        return self

    def _take_lock(self) -> None:
        self._lock = files.lock(self.partial)
        if self._lock is None:
            raise WorkError("another run is working on it", str(self.partial), "wait for it, or end it")
        held, there = os.fstat(self._lock), reading.status(self.partial)
        if there is None or (held.st_dev, held.st_ino) != (there.st_dev, there.st_ino):
            raise WorkError("another run has just finished it", str(self.target), "run the same command again")

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def clear(self) -> bool:
        """Discard what an earlier run left; returns whether there was anything."""
        left = reading.entries(self.partial)
        for path in left:
            files.remove(path)
        return bool(left)

    def remove_others(self, keep: set[str]) -> None:
        """Remove all files but these from the partial directory."""
        for path in reading.entries(self.partial):
            if path.name not in keep:
                files.remove(path)

    def write_file(self, name: str, data: bytes) -> None:
        """Write and sync a side file."""
        files.write_file(self.partial / name, data)
        self._side_files.append(FileEntry(name, len(data), hashing.of_bytes(data)))

    def copy_file(self, source: Path, name: str) -> None:
        """Copy and sync a side file; its hash is that of the bytes written. name: its own, or FOLDER/ITS_OWN."""
        target = self.partial / name
        if not reading.exists(target.parent):
            files.make_folder(target.parent)
        fd = files.create(target)
        try:
            state, size = hashing.new(), 0
            for piece in reading.pieces(source, reading.PIECE_BYTES):
                state.update(piece)
                files.write_at(fd, target, piece, size)
                size += len(piece)
            files.sync(fd, target)
        finally:
            os.close(fd)
        if target.parent != self.partial:
            files.sync_folder(target.parent)
        self._side_files.append(FileEntry(name, size, hashing.text(state)))

    @property
    def side_files(self) -> list[FileEntry]:
        """The side files so far, by name."""
        return sorted(self._side_files, key=lambda entry: entry.file)

    def absent(self, manifest: Manifest) -> list[str]:
        """The files that a manifest names and that are not there, or not with that size."""
        wanted = manifest.sizes
        return [name for name, size in wanted.items() if not _is_file_of(self.partial / name, size)]

    def seal(self, manifest: Manifest) -> None:
        """Write the manifest, the last file; all files and their names are durable then.

        Raises WorkError if a file has gone meanwhile.
        """
        if absent := self.absent(manifest):
            message = "was removed or cut while it was in the making"
            raise WorkError(message, str(self.partial / absent[0]), "run the same command again")
        files.sync_folder(self.partial)
        self.write_file(manifest_file.NAME, manifest.to_bytes())
        files.sync_folder(self.partial)

    def publish(self) -> None:
        """Rename the sealed directory into place; an old one is deleted only when that is durable."""
        files.sync_folder(self.partial)
        if self._overwrite and reading.exists(self.target):
            files.move_aside(self.target, self._replaced)
        files.rename(self.partial, self.target)
        files.sync_folder(self.target.parent)
        if reading.exists(self._replaced):
            files.remove(self._replaced)


def contents(folder: Path) -> dict[str, Path]:
    """Everything in a directory by its name, what is in a folder of it by FOLDER/NAME; links are not followed."""
    paths: dict[str, Path] = {}
    for path in reading.entries(folder):
        inner = reading.entries(path) if reading.is_folder(path) and not reading.is_link(path) else []
        paths |= {f"{path.name}/{item.name}": item for item in inner} or {path.name: path}
    return paths


def _is_file_of(path: Path, size: int) -> bool:
    there = reading.link_status(path)
    return there is not None and stat.S_ISREG(there.st_mode) and there.st_size == size


def partial_of(target: Path) -> Path:
    """Where a directory grows until it is put in place."""
    return target.with_name(target.name + PARTIAL)


def standing(target: Path) -> Path:
    """What is at a directory's place; what an interrupted replacement moved aside, if `recover` will put it back."""
    replaced = target.with_name(target.name + REPLACED)
    return replaced if not reading.exists(target) and reading.is_folder(replaced) else target


def recover(target: Path) -> None:
    """Finish what an interrupted replacement left: the old directory back, or away if the new one is in place."""
    partial, replaced = (target.with_name(target.name + suffix) for suffix in (PARTIAL, REPLACED))
    if not reading.is_folder(replaced):
        return
    check_access(target)
    # Whoever is replacing the directory just now holds the lock of the new one, under either name.
    kept = next((folder for folder in (partial, target) if reading.is_folder(folder)), None)
    held = files.lock(kept) if kept is not None else None
    if kept is not None and held is None:
        return
    try:
        if reading.exists(target):
            files.remove(replaced)
        else:
            files.rename(replaced, target)
        files.sync_folder(target.parent)
    finally:
        if held is not None:
            os.close(held)


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raises InputError if something is in the way of a new directory, or if this user may not make it there."""
    if reading.is_link(target) or (reading.exists(target) and not reading.is_folder(target)):
        raise InputError("exists and is not a directory", str(target), "choose another output")
    if reading.exists(target) and not overwrite:
        raise InputError("exists already", str(target), "choose another output, or give overwrite=True to replace it")
    check_access(target)


def check_access(target: Path) -> None:
    """Raises InputError unless this user may make, replace and rename a directory and what stands beside it."""
    partial, replaced = (target.with_name(target.name + suffix) for suffix in (PARTIAL, REPLACED))
    reading.check_can_create(replaced)
    for folder in (target, partial, replaced):
        if reading.is_folder(folder):
            reading.check_writable(folder)
