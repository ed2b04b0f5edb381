"""What a disk may hold after a crash: file operations replayed, with and without what was never synced."""

# The model is pessimistic where POSIX is silent. Bytes are durable once their file was synced; of later writes any part
# may be there, in pieces of a sector. Names are durable once their folder was synced; of later changes to a folder the
# first few may be there, each folder for itself. A rename happens as a whole.

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECTOR = 512

Operation = tuple[str, str, tuple[Any, ...]]


@dataclass
class File:
    """A file's bytes now, those that are durable, and what was written since."""

    now: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    writes: list[tuple[int, bytes]] = field(default_factory=list)

    def apply(self, operation: str, details: tuple[Any, ...]) -> None:
        if operation == "writing":
            self.write(details[1], details[0])
        elif operation == "syncing":
            self.sync()
        else:
            self.cut(details[0])

    def write(self, offset: int, data: bytes) -> None:
        if len(self.now) < offset:
            self.now.extend(bytes(offset - len(self.now)))
        self.now[offset : offset + len(data)] = data
        self.writes.append((offset, data))

    def cut(self, size: int) -> None:
        # Treated as durable at once: whoever cuts a file off does so at bytes nobody relies on.
        del self.now[size:]
        self.durable = self.durable[:size]

    def sync(self) -> None:
        self.durable = bytes(self.now)
        self.writes.clear()

    def torn(self, chance: random.Random) -> bytes:
        """The durable bytes with some of what was written since."""
        data = bytearray(self.durable)
        for offset, new in self.writes:
            for begin in range(0, len(new), SECTOR):
                if chance.random() < 0.5:
                    piece = new[begin : begin + SECTOR]
                    if len(data) < offset + begin:
                        data.extend(bytes(offset + begin - len(data)))
                    data[offset + begin : offset + begin + len(piece)] = piece
        return bytes(data)


@dataclass
class Folder:
    """A folder's names now, those that are durable, and the changes since."""

    now: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    changes: list[Callable[[dict[str, File | Folder]], object]] = field(default_factory=list)

    def change(self, change: Callable[[dict[str, File | Folder]], object]) -> None:
        change(self.now)
        self.changes.append(change)

    def sync(self) -> None:
        self.durable = dict(self.now)
        self.changes.clear()

    def partly(self, chance: random.Random) -> dict[str, File | Folder]:
        """The durable names with the first few changes since."""
        names = dict(self.durable)
        for change in self.changes[: chance.randint(0, len(self.changes))]:
            change(names)
        return names


class Disk:
    """A folder that operations are replayed on."""

    def __init__(self, root: Path) -> None:
        """root: what is there before, all of it durable."""
        self._root = root
        self._top = _durable(root)

    def apply(self, operation: Operation) -> None:
        action, path, details = operation
        if action == "syncing the folder" and Path(path) == self._root:
            self._top.sync()
            return
        if self._root not in Path(path).parents:  # the folder itself, which is there, and what is above it
            return
        parent, name = self._folder(Path(path).parent), Path(path).name
        if action == "creating the folder":
            if name not in parent.now:
                new = Folder()
                parent.change(lambda names: names.__setitem__(name, new))
        elif action == "creating the file":
            file = File()
            parent.change(lambda names: names.__setitem__(name, file))
        elif action == "removing":
            parent.change(lambda names: names.pop(name, None))
        elif action == "renaming":
            self._rename(parent, name, Path(details[0]).name)
        elif action == "syncing the folder":
            self._folder(Path(path)).sync()
        elif action in ("writing", "cutting off the end", "syncing"):
            entry = parent.now[name]
            assert isinstance(entry, File)
            entry.apply(action, details)
        elif action not in ("opening", "opening the folder"):
            raise ValueError(f"an operation nobody knows: {action}")

    def _rename(self, parent: Folder, name: str, target: str) -> None:
        def change(names: dict[str, File | Folder]) -> None:
            if name in names:
                names[target] = names.pop(name)

        parent.change(change)

    def _folder(self, path: Path) -> Folder:
        folder = self._top
        for part in path.relative_to(self._root).parts:
            entry = folder.now[part]
            assert isinstance(entry, Folder)
            folder = entry
        return folder

    def images(self, seed: int) -> Iterator[tuple[str, Callable[[Path], None]]]:
        """What a crash now may leave, as functions that write it to a folder."""
        yield "nothing but what was synced", lambda to: _write(self._top, to, None, all_of_it=False)
        yield "everything", lambda to: _write(self._top, to, None, all_of_it=True)
        yield "parts", lambda to: _write(self._top, to, random.Random(seed), all_of_it=False)


def _durable(path: Path) -> Folder:
    folder = Folder()
    for entry in path.iterdir():
        if entry.is_dir():
            folder.now[entry.name] = _durable(entry)
        else:
            file = File(bytearray(entry.read_bytes()))
            file.sync()
            folder.now[entry.name] = file
    folder.sync()
    return folder


def _write(folder: Folder, to: Path, chance: random.Random | None, *, all_of_it: bool) -> None:
    to.mkdir(exist_ok=True)
    names = folder.now if all_of_it else folder.partly(chance) if chance else folder.durable
    for name, entry in names.items():
        if isinstance(entry, Folder):
            _write(entry, to / name, chance, all_of_it=all_of_it)
        else:
            data = bytes(entry.now) if all_of_it else entry.torn(chance) if chance else entry.durable
            (to / name).write_bytes(data)


def read_log(path: Path) -> list[Operation]:
    """The operations that a run recorded, in order."""
    operations = []
    with path.open("rb") as file:
        while file.peek(1):
            operations.append(pickle.load(file))  # our own processes wrote it
    return operations
