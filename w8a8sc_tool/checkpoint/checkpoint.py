"""A W8A8S checkpoint on disk: which files it consists of and where each tensor lies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy.typing as npt

from ..errors import InputError, Problem
from ..io import reading
from ..io.documents import parse_json, read_small
from ..io.folders import refuse_as_checkpoint
from ..io.safetensors import TensorFile
from . import config as config_file
from . import description as description_file
from .config import ModelConfig
from .description import Description

INDEX_SUFFIX: Final = ".safetensors.index.json"
WEIGHT_SUFFIXES: Final = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx")
_PART: Final = re.compile(r"(-\d+-of-\d+)?\.safetensors$")
_LARGEST_INDEX: Final = 64 << 20


class SourceTensor(msgspec.Struct, frozen=True):
    """A tensor of the checkpoint: the file, its size when it was opened, and the tensor's bytes [begin, end) in it."""

    name: str
    path: str
    file_size: int
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.begin


class AssembledTensor(SourceTensor, frozen=True):
    """A tensor that lies nowhere as a whole: it is put together when it is read. Its place in a file means nothing."""

    def assemble(self, kept: dict[str, Any], first: int, rows: npt.NDArray[Any]) -> None:
        """Fill an array with the tensor's rows from `first` on. kept: what a reader keeps between calls."""
        raise NotImplementedError

    def content_hash(self) -> str:
        """A hash that changes with the content, though it is not that of the tensor's bytes."""
        raise NotImplementedError


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. Only headers and small files have been read."""

    path: Path
    config: ModelConfig
    description: Description
    tensors: dict[str, SourceTensor]
    side_files: list[Path]
    warnings: list[str]
    identity: str | None = None  # by content, if it is known without reading

    @classmethod
    def open(cls, path: str | Path, architectures: tuple[str, ...]) -> Checkpoint:
        """Open a checkpoint folder whose architecture is one of `architectures`.

        Raises InputError with everything that is wrong with its files, at once.
        """
        folder = Path(path)
        reading.check_folder(folder, "give the folder that holds config.json and the weights")
        refuse_as_checkpoint(folder)
        problems: list[Problem] = []
        config = description = None
        try:
            config = ModelConfig.parse(folder / config_file.NAME, architectures)
        except InputError as error:
            problems += error.problems
        found, missing = description_file.find(folder)
        problems += missing
        if found:
            try:
                description = Description.parse(found)
            except InputError as error:
                problems += error.problems
        tensors, wrong = _open_tensors(folder)
        problems += wrong
        if description and not wrong:
            problems += _disagreements(description, tensors)
        if problems or config is None or description is None:
            raise InputError(problems)
        side_files, warnings = side_files_of(folder)
        return cls(folder, config, description, tensors, side_files, warnings)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def _weight_files(folder: Path) -> tuple[dict[str, str] | None, list[Path]]:
    """The tensor-to-file map of the index, if there is one, and the files that hold the tensors."""
    indexes = reading.matching(folder, "*" + INDEX_SUFFIX)
    if len(indexes) > 1:
        names = " and ".join(path.name for path in indexes)
        raise InputError(f"two index files: {names}", str(folder), "keep the one that belongs to the weights")
    if not indexes:
        files = reading.matching(folder, "*.safetensors")
        if not files:
            raise InputError("no *.safetensors file", str(folder), "give the folder that holds the weights")
        stems = sorted({_PART.sub("", path.name) for path in files})
        if len(stems) > 1:
            raise InputError(
                f"weights of two checkpoints: {' and '.join(stems)}", str(folder), "keep one, or add its index file"
            )
        return None, files
    where = str(indexes[0])
    weight_map = parse_json(read_small(indexes[0], _LARGEST_INDEX), where).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError("weight_map is missing or empty", where)
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors") or "\0" in file:
            raise InputError(
                f"{str(file)[:80]!r} is not the name of a safetensors file in this folder", f"{where} ({name[:80]})"
            )
    return weight_map, [folder / name for name in sorted(set(weight_map.values()))]


def _open_tensors(folder: Path) -> tuple[dict[str, SourceTensor], list[Problem]]:
    """Every tensor of the checkpoint, and what is wrong with the files that hold them."""
    tensors: dict[str, SourceTensor] = {}
    problems: list[Problem] = []
    try:
        weight_map, files = _weight_files(folder)
    except InputError as error:
        return tensors, error.problems
    for path in files:
        try:
            with TensorFile(path) as file:
                for info in file.tensors.values():
                    if weight_map is not None and weight_map.get(info.name) != path.name:
                        continue
                    if info.name in tensors:
                        problems.append(
                            Problem(f"{info.name} is in two files", f"{tensors[info.name].path} and {path}")
                        )
                    tensors[info.name] = SourceTensor(
                        info.name, str(path), file.size, info.dtype, info.shape, info.begin, info.end
                    )
        except InputError as error:
            problems += error.problems
    if weight_map is not None and not problems:
        problems += [
            Problem(f"{name} is not in this file, although the index says so", str(folder / file), "copy both again")
            for name, file in weight_map.items()
            if name not in tensors
        ]
    return tensors, problems


def _disagreements(description: Description, tensors: dict[str, SourceTensor]) -> list[Problem]:
    where = str(description.path)
    problems = [
        Problem(f"{key} is described as {kind} but is in no weight file", where, "the checkpoint is incomplete")
        for key, kind in description.types.items()
        if key not in tensors
    ]
    for name, tensor in tensors.items():
        if tensor.dtype == "I8" and name.endswith(".weight") and name not in description.types:
            problems.append(Problem(f"{name} is int8 but not described", where, "its type cannot be guessed"))
    return problems


def side_files_of(folder: Path, others: tuple[str, ...] = ()) -> tuple[list[Path], list[str]]:
    """Files that go along with the weights: tokenizer, generation settings, code; and what is notably absent.

    others: names of files that do not.
    """
    files = []
    for path in reading.entries(folder):
        described = path.name in (description_file.NAME, *description_file.LEGACY_NAMES, config_file.NAME, *others)
        if described or path.name.startswith(".") or path.name.endswith((INDEX_SUFFIX, *WEIGHT_SUFFIXES)):
            continue
        if reading.is_file(path):
            files.append(path)
    names = {path.name for path in files}
    warnings = []
    if not names & {"tokenizer.json", "tokenizer.model", "vocab.json"}:
        warnings.append(f"{folder} has no tokenizer: add tokenizer files to the output before serving it")
    elif "vocab.json" in names and "tokenizer.json" not in names and "merges.txt" not in names:
        warnings.append(f"{folder} has vocab.json but no merges.txt: the tokenizer will not load")
    return files, warnings
