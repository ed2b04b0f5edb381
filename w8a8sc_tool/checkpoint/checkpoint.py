"""A W8A8S checkpoint on disk: which files it consists of and where each tensor lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, Problem
from ..io import reading
from ..io.folders import refuse_as_checkpoint
from ..io.safetensors import TensorFile
from . import config as config_file
from . import description as description_file
from .beside import SideFile, named_files, side_files_of
from .config import ModelConfig, Supported
from .description import Description
from .tensors import FileTensor, SourceTensor
from .weights import WeightFiles, weight_files


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. Only headers and small files have been read."""

    path: Path
    config: ModelConfig
    description: Description
    tensors: dict[str, SourceTensor]
    side_files: list[SideFile]
    warnings: list[str]
    identity: str | None = None  # by content, if it is known without reading

    @classmethod
    def open(cls, path: str | Path, architectures: Supported) -> Checkpoint:
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
        description_path, missing = description_file.find(folder)
        problems += missing
        if description_path:
            try:
                description = Description.parse(description_path)
            except InputError as error:
                problems += error.problems
        named, notes = named_files(folder, description) if description else (set(), [])
        weights, tensors, wrong = _open_tensors(folder, named)
        problems += wrong
        if description and not wrong:
            problems += _disagreements(description, tensors)
        try:
            side_files, warnings = side_files_of(folder, named, weights.names)
        except InputError as error:
            problems += error.problems
        if problems or config is None or description is None:
            raise InputError(problems)
        return cls(folder, config, description, tensors, side_files, [*notes, *warnings, *config.notes])

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def _open_tensors(folder: Path, others: set[str]) -> tuple[WeightFiles, dict[str, SourceTensor], list[Problem]]:
    """Every tensor of the checkpoint, the files that hold them, and what is wrong with those.

    others: names of safetensors files that are something else.
    """
    tensors: dict[str, SourceTensor] = {}
    problems: list[Problem] = []
    try:
        weights = weight_files(folder, others)
    except InputError as error:
        return WeightFiles([]), tensors, error.problems
    weight_map = weights.weight_map
    for path in weights.files:
        try:
            with TensorFile(path) as file:
                for info in file.tensors.values():
                    if weight_map is not None and weight_map.get(info.name) != path.name:
                        continue
                    if info.name in tensors:
                        problems.append(
                            Problem(f"{info.name} is in two files", f"{tensors[info.name].path} and {path}")
                        )
                    tensors[info.name] = FileTensor(
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
    return weights, tensors, problems


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
