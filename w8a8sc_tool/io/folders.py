"""What a folder is, told by the names in it: a sharded_state directory, a checkpoint, or a tree that holds directories.

People give the folder beside the right one: the directory in place of the checkpoint, the root of a published tree in
place of one of its sizes. The errors here say which it is and list the right ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..errors import AccessError, InputError
from . import reading

MANIFEST: Final = "w8a8sc_manifest.json"

# What vLLM's loader globs for, with its rank and part.
RANK_FILE: Final = re.compile(r"model-rank-(0|[1-9]\d{0,5})-part-(.*)\.safetensors")

# A published tree has its directories two levels down: NAME-w8a8sc-310-vllm/TP4/NAME-w8a8sc-310-vllm-tp4.
_LEVELS: Final = 3
_SIZE: Final = re.compile(r"TP([1-9]\d{0,3})")
_MOST_FOLDERS: Final = 1000  # looked at; whoever gives / as a path should not wait
_MOST_LISTED: Final = 8

# Directories in the making, and those a replacement has moved aside.
NOT_DIRECTORIES: Final = (".partial", ".replaced")


def is_sharded_state(path: Path) -> bool:
    """Whether a folder looks like a sharded_state directory rather than a checkpoint."""
    if reading.exists(path / MANIFEST):
        return True
    return reading.is_folder(path) and any(RANK_FILE.fullmatch(file.name) for file in reading.entries(path))


def is_foreign_link(path: Path) -> bool:
    """Whether a path is a link that a sealed directory cannot hold: what it leads to may change, or stay behind.

    Hugging Face's cache is all links, from models--OWNER--NAME/snapshots into its own blobs: those are the files.
    """
    if not reading.is_link(path):
        return False
    if not reading.exists(path):  # or it leads in a circle, which has no real path
        return True
    blobs = reading.real_path(path).parent
    snapshots = blobs.parent / "snapshots"
    in_cache = blobs.name == "blobs" and blobs.parent.name.startswith("models--")
    return not (in_cache and snapshots in reading.real_path(path.parent).parents)


def is_checkpoint(path: Path) -> bool:
    """Whether a folder looks like a checkpoint: a configuration and weights that are no rank's."""
    weights = reading.exists(path / "config.json") and reading.matching(path, "*.safetensors")
    return bool(weights) and not is_sharded_state(path)


def directories_below(folder: Path) -> list[Path]:
    """The sharded_state directories in a tree, at most three levels down, sorted by path with numbers as numbers."""
    return sorted(_directories(folder, _LEVELS, [0]), key=_natural)


def is_tree(path: Path) -> bool:
    """Whether a folder is a published tree: no sharded_state directory itself, with such in folders TP1, TP2, ..."""
    return reading.is_folder(path) and not is_sharded_state(path) and bool(tree_contents(path)[0])


def tree_contents(tree: Path) -> tuple[list[Path], list[Path]]:
    """The sharded_state directories of a published tree in the order of their sizes, and everything else in it.

    Unfinished directories are among the others, as is a size's folder without anything; hidden names are left out.
    """
    directories: list[Path] = []
    others: list[Path] = []
    for path in _shown(tree):
        if not _SIZE.fullmatch(path.name) or not reading.is_folder(path):
            others.append(path)
            continue
        for item in [path] if is_sharded_state(path) else _shown(path) or [path]:
            finished = not item.name.endswith(NOT_DIRECTORIES) and is_sharded_state(item)
            (directories if finished else others).append(item)
    return sorted(directories, key=_natural), sorted(others, key=_natural)


def _shown(folder: Path) -> list[Path]:
    return [path for path in reading.entries(folder) if not path.name.startswith(".")]


def size_in_tree(directory: Path) -> int | None:
    """The tensor-parallel size that the folders of a tree give for a directory; None if they give none."""
    return next(filter(None, map(size_of_folder, (directory.parent.name, directory.name))), None)


def size_of_folder(name: str) -> int | None:
    """The tensor-parallel size that a folder of a tree is named after; None for another name."""
    match = _SIZE.fullmatch(name)
    return int(match[1]) if match else None


def _directories(folder: Path, levels: int, looked_at: list[int]) -> Iterator[Path]:
    for path in reading.entries(folder):
        looked_at[0] += 1
        hidden = path.name.startswith(".") or path.name.endswith(NOT_DIRECTORIES)
        if hidden or looked_at[0] > _MOST_FOLDERS or not reading.is_folder(path):
            continue
        with suppress(AccessError):  # what may not be looked at is not offered
            if is_sharded_state(path):
                yield path
            elif levels > 1:
                yield from _directories(path, levels - 1, looked_at)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", str(path))]


def refuse_as_directory(folder: Path) -> None:
    """Raise InputError for a folder that was given as a sharded_state directory and has no rank file."""
    refuse_tree(folder)
    if is_checkpoint(folder):
        raise InputError(
            "a checkpoint, not a sharded_state directory", str(folder), f"make one of it: w8a8sc compress {folder}"
        )
    raise InputError("no model-rank-*-part-*.safetensors file", str(folder), "give a sharded_state directory")


def refuse_as_checkpoint(folder: Path) -> None:
    """Raise InputError for a folder given as a checkpoint that is a sharded_state directory, or a tree of some."""
    if is_sharded_state(folder):
        raise InputError(
            "a sharded_state directory, not a checkpoint",
            str(folder),
            f"give the checkpoint it was made of; for another size: w8a8sc reshard {folder} --tp N; back to a "
            f"checkpoint: w8a8sc decompress {folder} --checkpoint",
        )
    if not is_checkpoint(folder):
        refuse_tree(folder)


def refuse_tree(folder: Path) -> None:
    """Raise InputError, listing them, for a folder that has sharded_state directories below it and is none itself."""
    directories = [] if is_sharded_state(folder) else directories_below(folder)
    if directories:
        listed = ", ".join(str(path) for path in directories[:_MOST_LISTED])
        more = f" and {len(directories) - _MOST_LISTED} more" if len(directories) > _MOST_LISTED else ""
        one_of = "one of " if len(directories) > 1 else ""
        raise InputError(
            "not a sharded_state directory, but a folder that holds such", str(folder), f"give {one_of}{listed}{more}"
        )


def directory_of_size(folder: Path, tp: int | None, remedy: str = "") -> Path:
    """The directory of a tree that has this size; what is no tree, if its size is not another.

    remedy: against a tree that does not have it.
    """
    if tp is None:
        return folder
    if is_tree(folder):
        directories, _ = tree_contents(folder)
        chosen = [path for path in directories if size_in_tree(path) == tp]
        sizes = sorted({size for path in directories if (size := size_in_tree(path)) is not None})
        if len(chosen) != 1:
            listed = ", ".join(f"TP {size}" for size in sizes)
            problem = f"it has several directories for TP {tp}" if chosen else f"it has no TP {tp}, but {listed}"
            raise InputError(problem, str(folder), "give the directory itself" if chosen else remedy)
        return chosen[0]
    if is_sharded_state(folder):
        ranks = {match[1] for path in reading.entries(folder) if (match := RANK_FILE.fullmatch(path.name))}
        if ranks and len(ranks) != tp:
            problem = f"the directory is made for TP {len(ranks)}, not {tp}"
            raise InputError(problem, str(folder), f"for another size: w8a8sc reshard {folder} --tp {tp}")
    return folder
