"""What a folder is called, by its user's word and not by what links lead to; and which words may be names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ..errors import InputError
from ..text import is_showable
from . import reading

_LONGEST: Final = 200  # bytes; the folders named after a model add some 30, and file systems allow 255


def given_name(path: Path) -> str:
    """The name of a folder as it was given: a link's own; of `.` and `..` that of the folder they stand for.

    A snapshot in a hub's cache, models--OWNER--NAME/snapshots/COMMIT or models/OWNER--NAME/snapshots/REVISION, is NAME,
    and so is models/OWNER/NAME where ModelScope wrote ___ for a dot. Empty for the root. Raises InputError for a name
    that no document could hold.
    """
    name = _given_name(path)
    if not is_showable(name):
        problem = "its name is not UTF-8 or has control characters"
        raise InputError(problem, str(path), "rename it, or give name= where that can be given")
    return name


def _given_name(path: Path) -> str:
    whole = _working_folder() / path
    if ".." in whole.parts:  # what it stands for depends on where links lead
        parent = whole if whole.name == ".." else whole.parent
        whole = Path(reading.real_path(parent), *whole.parts[len(parent.parts) :])
    parts = whole.parts
    if len(parts) > 2 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return parts[-3].rpartition("--")[2]
    if len(parts) > 3 and parts[-2] == "snapshots" and parts[-4] == "models" and "--" in parts[-3]:
        return parts[-3].partition("--")[2]
    if len(parts) > 2 and parts[-3] in ("models", "hub"):
        return whole.name.replace("___", ".")
    return whole.name


def _working_folder() -> Path:
    """The working folder under the name by which it was entered, if the shell says so."""
    spelled = Path(os.environ.get("PWD", ""))
    if spelled.is_absolute() and ".." not in spelled.parts and reading.is_same(spelled, Path()):
        return spelled
    return reading.absolute(Path())


def is_inside(name: str, levels: int = 1) -> bool:
    """Whether a name read from a file means a file in a folder itself, or at most so many levels down.

    True for relative, normalized names alone, with / between levels: no `..`, no `.`, nothing empty.
    """
    parts = name.split("/")
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:  # no file has such a name
        return False
    return len(parts) <= levels and b"\0" not in encoded and not {"", ".", ".."} & set(parts)


def is_plain(name: str) -> bool:
    """Whether a word can be the name of a folder, or a part of it, on every file system and command line.

    Not empty, no path, no control characters, nothing that cannot be written as UTF-8, no option's hyphen in front.
    """
    if not name or name in (".", "..") or name[0] == "-" or "/" in name:
        return False
    return is_showable(name) and len(name.encode()) <= _LONGEST
