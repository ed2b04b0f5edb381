"""The journal of an unfinished directory: what has been made, is durable, and need not be made again."""

# One JSON object per line. The first names what is being made of what; each of the others is a module that is complete
# on all ranks. A line is written only after the bytes it speaks of have been synced, so a line that can be read is true
# unless somebody changed the files; a torn last line is ignored.

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from ..errors import InputError
from ..io import files, hashing, reading
from ..io.safetensors import TensorInfo

NAME: Final = "w8a8sc_journal.jsonl"
TOOL_VERSION: Final = "tool_version"  # in the head: the version that began the work
_LARGEST: Final = 64 << 20


class JournalTensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tensor in a rank's file, its bytes [begin, end) counted from the start of the file, and their hash.

    part: which of the rank's files.
    """

    rank: int
    info: TensorInfo
    hash: str
    part: int = 0


class JournalEntry(msgspec.Struct, frozen=True):
    """A module that is complete: its tensors, those too small to have a place yet, and what is known of its source."""

    module: str
    tensors: tuple[JournalTensor, ...]
    small: tuple[tuple[int, str, bytes, str], ...]  # rank, name, bytes, hash
    sources: dict[str, str]  # name -> hash
    ratios: tuple[float, ...] = ()
    fallback: str | None = None


def _line(content: object) -> bytes:
    """A line with its own hash in front, so that a damaged one is noticed."""
    text = msgspec.json.encode(content)
    return hashing.of_bytes(text).encode() + b" " + text + b"\n"


def _content(line: bytes) -> bytes | None:
    hash_text, _, text = line.partition(b" ")
    return text if hashing.of_bytes(text).encode() == hash_text else None


class Contents(NamedTuple):
    """What a journal says, as far as it is whole: up to byte `end`. head: as `Journal.begin` was given it."""

    head: dict[str, Any]
    entries: list[JournalEntry]
    end: int


def contents(folder: Path) -> Contents | None:
    """What the journal in a folder says, with nothing changed; None if there is none that can be used.

    Raises AccessError for one that may not be read: nothing is known of what it says, so nothing is discarded.
    """
    path = folder / NAME
    there = reading.link_status(path)
    if there is None or not stat.S_ISREG(there.st_mode) or there.st_size > _LARGEST:
        return None
    entries: list[JournalEntry] = []
    head: dict[str, Any] | None = None
    end = 0
    for line in reading.whole(path, _LARGEST).split(b"\n")[:-1]:
        text = _content(line)
        if text is None:
            break
        try:
            if head is None:
                head = dict(json.loads(text))
            else:
                entries.append(msgspec.json.decode(text, type=JournalEntry))
        except (ValueError, TypeError, RecursionError, msgspec.MsgspecError):
            break
        end += len(line) + 1
    return None if head is None else Contents(head, entries, end)


class Journal:
    """A directory's journal, opened to go on or begun anew."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._fd = -1
        self._end = 0

    def begin(self, head: dict[str, Any]) -> None:
        """Start a new journal."""
        self._fd = files.create(self.path)
        self._append(_line(head))

    def read(self) -> Contents | None:
        """What an earlier run left, and open it to go on; None if there is no journal that can be used.

        Raises AccessError as `contents` does.
        """
        state = contents(self.path.parent)
        if state is None:
            return None
        self._fd = files.open_existing(self.path)
        files.cut(self._fd, self.path, state.end)  # what a crash left of a last line
        self._end = state.end
        return state

    def add(self, entries: Iterable[JournalEntry]) -> None:
        """Record modules whose bytes are durable."""
        text = b"".join(map(_line, entries))
        if text:
            self._append(text)

    def _append(self, text: bytes) -> None:
        files.write_at(self._fd, self.path, text, self._end)
        files.sync(self._fd, self.path)
        self._end += len(text)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def end(self) -> None:
        """The directory is complete and durable: the journal does not belong to it."""
        self.close()
        files.remove(self.path)


def refuse_other(head: dict[str, Any], begun: dict[str, Any], folder: Path) -> None:
    """Raises InputError if unfinished work was begun for something else than `head`, saying what differs.

    Which version of this program began it is told, and decides nothing.
    """
    changed = [
        f"{key} was {_short(begun.get(key))}, now it is {_short(head.get(key))}"
        for key in sorted({*head, *begun} - {TOOL_VERSION})
        if head.get(key) != begun.get(key)
    ]
    if changed:
        raise InputError(
            f"holds unfinished work of another kind, begun by w8a8sc {_short(begun.get(TOOL_VERSION))} "
            f"(this is {head.get(TOOL_VERSION)}): {'; '.join(changed)}",
            str(folder),
            "give resume=False to discard it and start afresh, or run the command that began it",
        )


def _short(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else text[:57] + "..."
