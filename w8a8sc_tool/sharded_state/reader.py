"""Opening a sharded_state directory: its rank files, its manifest if it has one, and what does not belong."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import AccessError, InputError, Problem
from ..io import reading
from ..io.folders import RANK_FILE, is_foreign_link, refuse_as_directory
from ..io.safetensors import TensorFile
from . import manifest as manifest_file
from .manifest import Manifest, RankFileEntry


@dataclass
class ShardedState:
    """A directory with its rank files opened. `problems` says what is wrong with the files themselves."""

    path: Path
    manifest: Manifest | None
    ranks: dict[int, list[TensorFile]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def open(cls, path: str | Path) -> ShardedState:
        """Open a directory; raises InputError if it is no sharded_state directory at all or its manifest is bad.

        Raises AccessError if a file system does not give a file: that says nothing about the file.
        """
        folder = Path(path)
        reading.check_folder(folder)
        matches = [(RANK_FILE.fullmatch(file.name), file) for file in reading.entries(folder)]
        files = [(int(match[1]), file) for match, file in matches if match]
        manifest = manifest_file.load(folder)
        if not files and manifest is None:
            refuse_as_directory(folder)
        state = cls(folder, manifest)
        try:
            for rank, file in files:
                state._open(rank, file)
        except BaseException:
            state.close()
            raise
        return state

    def _open(self, rank: int, file: Path) -> None:
        if rank >= manifest_file.LARGEST_TP:
            self.problems.append(Problem(f"there is no rank {rank}", str(file), "remove the file"))
            return
        opened = self.ranks.setdefault(rank, [])
        try:
            if self.manifest is not None and is_foreign_link(file):
                raise InputError("a sealed directory holds no links", str(file))
            opened.append(TensorFile(file))
        except AccessError:
            raise
        except InputError as error:
            self.problems += error.problems

    @property
    def tp(self) -> int:
        """The tensor-parallel size: what the manifest says, else one more than the highest rank."""
        if self.manifest is not None:
            return self.manifest.tensor_parallel_size
        return max(self.ranks, default=-1) + 1

    def check_files(self) -> None:
        """Raises InputError unless every rank has its files and they are those of the manifest: name, size, header."""
        if self.problems:
            raise InputError(self.problems)
        if sorted(self.ranks) != list(range(self.tp)):
            missing = ", ".join(map(str, sorted(set(range(self.tp)) - set(self.ranks))))
            problem = f"there is no file of rank {missing}" if missing else f"there are over {self.tp} ranks' files"
            raise InputError(problem, str(self.path), "copy the directory again")
        if self.manifest is None:
            return
        remedy = f"copy it and {manifest_file.NAME} again, from one directory; w8a8sc verify tells more"
        opened = {file.path.name: file for files in self.ranks.values() for file in files}
        listed = {entry.file: entry for entry in self.manifest.rank_files}
        for name in sorted(set(opened) ^ set(listed)):
            problem = (
                "the manifest does not list this file" if name in opened else "the manifest lists it, it is missing"
            )
            raise InputError(problem, str(self.path / name), remedy)
        for name, entry in listed.items():
            difference = _difference(opened[name], entry)
            if difference:
                raise InputError(f"not the file that the manifest lists: {difference}", str(self.path / name), remedy)

    def close(self) -> None:
        for files in self.ranks.values():
            for file in files:
                file.close()

    def __enter__(self) -> ShardedState:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _difference(file: TensorFile, entry: RankFileEntry) -> str:
    """How a rank's file differs from the manifest in size and header; nothing if it does not."""
    listed = {tensor.name: tensor for tensor in entry.tensors}
    if others := sorted(set(file.tensors) ^ set(listed)):
        owner = "the file" if others[0] in file.tensors else "the manifest"
        more = f", {len(others)} tensors in all" if len(others) > 1 else ""
        return f"only {owner} has {others[0]}{more}"
    if file.size != entry.size:
        return f"it has {file.size} bytes, {entry.size} are listed"
    for name, tensor in file.tensors.items():
        form, sealed = ((t.dtype, list(t.shape), t.begin, t.end) for t in (tensor, listed[name]))
        if form != sealed:
            texts = (f"{dtype} {shape} in bytes {begin} to {end}" for dtype, shape, begin, end in (form, sealed))
            return f"{name} is {' and listed as '.join(texts)}"
    return ""
