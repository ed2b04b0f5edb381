"""A directory that appears whole or not at all: it grows beside its place and is renamed when it is sealed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from .. import hashing
from ..errors import InputError, WorkError
from . import manifest as manifest_file
from .manifest import FileEntry, Manifest

PARTIAL: Final = ".partial"
REPLACED: Final = ".replaced"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class SealedDirectory:
    """A context in which a directory's files are made below `partial`: `seal` completes it, `publish` puts it in place.

    Leaving the context before that keeps the partial directory.
    """

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        """Raises InputError if the target exists and may not be replaced."""
        self.target = target
        self.partial = target.with_name(target.name + PARTIAL)
        self._replaced = target.with_name(target.name + REPLACED)
        self._overwrite = overwrite
        self._files: list[FileEntry] = []
        check_target(target, overwrite=overwrite)

    def __enter__(self) -> SealedDirectory:
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._restore()
            if self.partial.exists() or self.partial.is_symlink():
                _remove(self.partial)
            self.partial.mkdir()
        except OSError as error:
            raise WorkError(f"cannot be created ({error.strerror})", str(self.partial)) from None
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def _restore(self) -> None:
        """Finish what an interrupted replacement left: the old directory back, or away if the new one is in place."""
        if self._replaced.exists():
            if self.target.exists():
                _remove(self._replaced)
            else:
                self._replaced.rename(self.target)
            sync_folder(self.target.parent)

    def write_file(self, name: str, data: bytes) -> None:
        """Write and sync a side file."""
        try:
            with (self.partial / name).open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise WorkError(f"writing failed ({error.strerror})", str(self.partial / name)) from None
        self._files.append(FileEntry(name, len(data), hashing.of_bytes(data)))

    def copy_file(self, source: Path) -> None:
        """Copy and sync a side file; its hash is that of the bytes written."""
        target = self.partial / source.name
        try:
            state, size = hashing.new(), 0
            with source.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
                while piece := reader.read(4 << 20):
                    state.update(piece)
                    size += len(piece)
                    while piece:
                        piece = piece[writer.write(piece) :]
                os.fsync(writer.fileno())
        except OSError as error:
            raise WorkError(f"copying {source} failed ({error.strerror})", str(target)) from None
        self._files.append(FileEntry(source.name, size, hashing.text(state)))

    @property
    def files(self) -> list[FileEntry]:
        """The side files so far, by name."""
        return sorted(self._files, key=lambda entry: entry.file)

    def seal(self, manifest: Manifest) -> None:
        """Write the manifest, the last file; all files and their names are durable then."""
        self.write_file(manifest_file.NAME, manifest.to_bytes())
        sync_folder(self.partial)

    def publish(self) -> None:
        """Rename the sealed directory into place; an old one is deleted only when that is durable."""
        try:
            if self._overwrite and self.target.exists():
                self.target.rename(self._replaced)
            self.partial.rename(self.target)
            sync_folder(self.target.parent)
            if self._replaced.exists():
                _remove(self._replaced)
        except OSError as error:
            raise WorkError(f"cannot be put in place ({error.strerror})", str(self.target)) from None


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raises InputError if something is in the way of a new directory."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise InputError("exists and is not a directory", str(target), "choose another output")
    if target.exists() and not overwrite:
        raise InputError("exists already", str(target), "choose another output, or give --overwrite to replace it")


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)
