"""What a folder is called: by the word that its user gave, not by what links lead to."""

from __future__ import annotations

import os
from pathlib import Path

from . import reading


def given_name(path: Path) -> str:
    """The name of a folder as it was given: a link's own; of `.` and `..` that of the folder they stand for.

    A snapshot in a Hugging Face cache, models--OWNER--NAME/snapshots/COMMIT, is NAME. Empty for the root.
    """
    whole = _working_folder() / path
    if ".." in whole.parts:  # what it stands for depends on where links lead
        parent = whole if whole.name == ".." else whole.parent
        whole = Path(reading.real_path(parent), *whole.parts[len(parent.parts) :])
    parts = whole.parts
    if len(parts) > 2 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return parts[-3].rpartition("--")[2]
    return whole.name


def _working_folder() -> Path:
    """The working folder under the name by which it was entered, if the shell says so."""
    told = Path(os.environ.get("PWD", ""))
    if told.is_absolute() and ".." not in told.parts and reading.is_same(told, Path()):
        return told
    return reading.absolute(Path())
