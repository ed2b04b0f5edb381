"""Which files of a folder hold the tensors: those of its index, or all that there are."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import InputError, Problem
from ..io import reading
from ..io.documents import parse_json, read_small
from .beside import INDEX_SUFFIX, is_hidden

_PART: Final = re.compile(r"(-\d+-of-\d+)?\.safetensors$")
_LARGEST_INDEX: Final = 64 << 20


@dataclass(frozen=True)
class WeightFiles:
    """The files with the tensors. index, weight_map: the index file and what it says, by tensor, if there is one."""

    files: list[Path]
    index: Path | None = None
    weight_map: dict[str, str] | None = None

    @property
    def names(self) -> set[str]:
        return {path.name for path in (*self.files, *([self.index] if self.index else []))}


def weight_files(folder: Path, others: Collection[str]) -> WeightFiles:
    """The weights of a folder; others: names of safetensors files that are something else.

    Raises InputError if there are none, or more than one checkpoint's.
    """
    paths = [path for path in reading.matching(folder, "*.safetensors") if not is_hidden(path.name)]
    files = [path for path in paths if path.name not in others]
    indexes = [path for path in reading.matching(folder, "*" + INDEX_SUFFIX) if not is_hidden(path.name)]
    if not indexes:
        return WeightFiles(_one_checkpoint(files, folder))
    maps = {path: _weight_map(path) for path in indexes}
    missing = {path: sorted(set(maps[path].values()) - {file.name for file in paths}) for path in indexes}
    whole = [path for path in indexes if not missing[path]]
    if len(whole) < len(indexes):
        raise InputError([_not_here(path, missing[path], maps, files) for path in indexes if missing[path]])
    if len(whole) > 1:
        names = " and ".join(path.name for path in indexes)
        raise InputError(f"two index files: {names}", str(folder), "keep the one that belongs to the weights")
    return WeightFiles([folder / name for name in sorted(set(maps[whole[0]].values()))], whole[0], maps[whole[0]])


def missing_weights(folder: Path) -> str:
    """What shows that weights were not all copied to a folder; empty if nothing does.

    An index of which nothing is there is another checkpoint's. Raises InputError for one that cannot be read.
    """
    here = {path.name for path in reading.matching(folder, "*.safetensors") if not is_hidden(path.name)}
    if not here:
        return "it has no *.safetensors file"
    for index in reading.matching(folder, "*" + INDEX_SUFFIX):
        named = set() if is_hidden(index.name) else set(_weight_map(index).values())
        if named & here and named - here:
            return f"{min(named - here)} is missing"
    return ""


def _one_checkpoint(files: list[Path], folder: Path) -> list[Path]:
    if not files:
        raise InputError("no *.safetensors file", str(folder), "give the folder that holds the weights")
    stems = sorted({_PART.sub("", path.name) for path in files})
    if len(stems) > 1:
        names = " and ".join(stems)
        raise InputError(f"weights of two checkpoints: {names}", str(folder), "keep one, or add its index file")
    return files


def _weight_map(index: Path) -> dict[str, str]:
    where = str(index)
    weight_map = parse_json(read_small(index, _LARGEST_INDEX), where).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError("weight_map is missing or empty", where)
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors") or "\0" in file:
            raise InputError(
                f"{str(file)[:80]!r} is not the name of a safetensors file in this folder", f"{where} ({name[:80]})"
            )
    return weight_map


def _not_here(index: Path, missing: list[str], maps: dict[Path, dict[str, str]], files: list[Path]) -> Problem:
    """An index that names files which are not there: of other weights, if there are some, else of a part of these."""
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    count = f"{len(missing)} files that are" if len(missing) > 1 else "a file that is"
    mine = set(maps[index].values())
    others = sorted({_PART.sub("", path.name) for path in files if path.name not in mine})
    remedy = "the checkpoint is incomplete: copy what is missing"
    if others:
        remedy = f"it belongs to other weights, such as the float model's: remove it; the weights here are {others[0]}"
    return Problem(f"it names {count} not here: {', '.join(missing[:3])}{more}", str(index), remedy)
