"""The files and folders beside the weights: what goes along with them, and what is left out."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..errors import AccessError, InputError
from ..io import lfs, reading
from ..io.folders import MANIFEST, RANK_FILE
from ..io.names import is_inside
from ..text import is_showable
from . import chat_templates
from . import config as config_file
from . import description as description_file
from .description import Description

WEIGHT_SUFFIXES: Final = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx")
INDEX_SUFFIX: Final = ".safetensors.index.json"
LEVELS: Final = 2  # a file in the folder itself, or in a folder of it

# The largest tokenizers have tens of megabytes, a rotation of a 32B model a hundred; templates have kilobytes.
_LARGEST_FILE: Final = 1 << 30
_LARGEST_FOLDER: Final = 16 << 20
_MOST_FILES: Final = 100
_MOST_TOLD: Final = 10

_NOT_SHOWABLE: Final = "its name is not UTF-8 or has control characters: a manifest could not name it"

# What a folder of ours has itself.
_OWN: Final = frozenset({description_file.NAME, *description_file.LEGACY_NAMES, config_file.NAME, MANIFEST})


class SideFile(NamedTuple):
    """A file that goes along: where it is, and its name relative to the folder, with / between levels."""

    path: Path
    name: str


def is_hidden(name: str) -> bool:
    """Whether neither vLLM nor a tokenizer looks at a name: hidden files, as macOS and git leave them, and caches."""
    return name.startswith(".") or name == "__pycache__"


def named_files(folder: Path, description: Description) -> tuple[set[str], list[str]]:
    """The files that the description's `optional` names, and a sentence for each name that is none.

    msmodelslim names there what belongs to a model besides its weights, such as rotations.
    """
    names: set[str] = set()
    notes = []
    for text in dict.fromkeys(_strings(description.content.get("optional"))):
        safe = is_inside(text, LEVELS) and text not in _OWN and not RANK_FILE.fullmatch(text)
        if safe and reading.is_file(folder / text):
            names.add(text)
        elif "/" in text or text.endswith((*WEIGHT_SUFFIXES, ".json")):
            why = "is not there" if safe else "cannot be taken along"
            notes.append(f"{folder}: the description's optional names {text[:80]!r}, which {why}")
    return names, notes[:_MOST_TOLD]


def _strings(content: Any) -> Iterator[str]:
    pending = [content]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            pending += reversed(item.values())
        elif isinstance(item, list):
            pending += reversed(item)


def side_files_of(folder: Path, named: Collection[str], weights: Collection[str]) -> tuple[list[SideFile], list[str]]:
    """What goes along with the weights, and notes on what is left out and what is notably absent.

    named: files that the description names; weights: names of the files that hold tensors, and of their index. Small
    folders come along, too; a Git LFS pointer comes along as it is, and is named.
    """
    files: list[SideFile] = []
    left_out: list[str] = []
    for path in reading.entries(folder):
        if path.name in _OWN or path.name in weights or is_hidden(path.name):
            continue
        if not is_showable(path.name):
            left_out.append(f"{path.name} ({_NOT_SHOWABLE})")
        elif reading.is_folder(path):
            try:
                taken, left = _of_folder(path, named)
            except AccessError:
                taken, left = [], [f"{path.name} (may not be read)"]
            files += taken
            left_out += left
        elif reason := _reason_against(path, path.name, named):
            left_out.append(f"{path.name} ({reason})")
        else:
            files.append(SideFile(path, path.name))
    pointers = [file.path for file in files if is_pointer_file(file.path)]
    notes = [f"{path} is {lfs.WHAT}: fetch it with git lfs pull before serving" for path in pointers]
    if left_out:
        more = f" and {len(left_out) - _MOST_TOLD} more" if len(left_out) > _MOST_TOLD else ""
        notes.append(f"{folder}: left out are {', '.join(left_out[:_MOST_TOLD])}{more}")
    return files, [*notes, *_absent(folder, {file.name for file in files})]


def _of_folder(folder: Path, named: Collection[str]) -> tuple[list[SideFile], list[str]]:
    """The files of a folder that go along, and what of it is left out."""
    files: list[SideFile] = []
    left_out: list[str] = []
    weights = False
    for path in reading.entries(folder):
        name = f"{folder.name}/{path.name}"
        if is_hidden(path.name):
            continue
        if not is_showable(path.name):
            left_out.append(f"{name} ({_NOT_SHOWABLE})")
        elif reading.is_folder(path):
            left_out.append(f"{name} (a folder in a folder)")
        elif reason := _reason_against(path, name, named):
            weights = weights or path.name.endswith(WEIGHT_SUFFIXES)
            left_out.append(f"{name} ({reason})")
        else:
            files.append(SideFile(path, name))
    others = [file for file in files if file.name not in named]
    reason = "it holds weights" if weights else ""
    if len(others) > _MOST_FILES or sum(_size(file.path) for file in others) > _LARGEST_FOLDER:
        reason = f"more than {_MOST_FILES} files or {_LARGEST_FOLDER >> 20} MiB"
    if reason:
        return [file for file in files if file.name in named], [f"{folder.name} ({reason})"]
    return files, left_out


def _reason_against(path: Path, name: str, named: Collection[str]) -> str:
    if not reading.is_file(path):
        return "not a regular file"
    if path.name.endswith((INDEX_SUFFIX, *WEIGHT_SUFFIXES)) and name not in named:
        return "weights that do not belong to this checkpoint"
    if _size(path) > _LARGEST_FILE:
        return f"larger than {_LARGEST_FILE >> 30} GiB"
    return ""


def is_pointer_file(path: Path) -> bool:
    """Whether a regular file is a Git LFS pointer."""
    return _size(path) <= lfs.LARGEST and lfs.is_pointer(reading.whole(path, lfs.LARGEST))


def _size(path: Path) -> int:
    answer = reading.status(path)
    return answer.st_size if answer else 0


def _absent(folder: Path, names: Collection[str]) -> Iterator[str]:
    if not {"tokenizer.json", "tokenizer.model", "vocab.json"} & set(names):
        yield f"{folder} has no tokenizer: add tokenizer files to the output before serving it"
    elif "vocab.json" in names and "tokenizer.json" not in names and "merges.txt" not in names:
        yield f"{folder} has vocab.json but no merges.txt: the tokenizer will not load"
    try:
        if chat_templates.find(folder) is None:
            yield (
                f"{folder} has no chat template, without which vLLM answers no chats: if the float model has "
                f"{chat_templates.FILE}, copy it here before compressing"
            )
    except InputError as error:
        yield f"the chat template will not work: {error}"
