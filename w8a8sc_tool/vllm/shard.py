"""One rank's part of a directory: checked against what is going to be served, then given out in pieces.

This file does without torch and vLLM.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ..errors import InputError, Problem, W8A8SCError
from ..io import hashing, reading
from ..io.documents import parse_json
from ..io.safetensors import TensorFile, TensorInfo
from ..sharded_state import ShardedState
from .index import payload_end

PIECE: Final = 4 << 20  # bytes of host memory that tensors pass through; more leave the processor's caches

_CONFIG: Final = "config.json"
_LARGEST_CONFIG: Final = 16 << 20  # bytes
_DESCRIPTION: Final = "quant_model_description.json"
_REMEDY: Final = "copy the directory again; w8a8sc verify tells more"
_MOST_PROBLEMS: Final = 4  # in one line


@dataclass(frozen=True)
class Wanted:
    """What the model has for a tensor: dtype as safetensors spells it, shape, and for a compressed weight its matrix.

    matrix: (k, n) of a compressed weight, whose shape is then [c] with any 0 < c <= k * n.
    """

    dtype: str
    shape: tuple[int, ...]
    matrix: tuple[int, int] | None = None


class Shard:
    """The tensors of one rank, in files that stay open until `close`."""

    def __init__(self, state: ShardedState, rank: int) -> None:
        """state: a checked directory; the shard closes it."""
        self._state = state
        self.folder = state.path
        self.tensors: dict[str, tuple[TensorFile, TensorInfo]] = {}
        for file in state.ranks[rank]:
            for name, info in file.tensors.items():
                if name in self.tensors:
                    raise InputError(f"{name} is in two files", str(file.path), "remove what an earlier run left")
                self.tensors[name] = (file, info)
        entries = state.manifest.tensors_of(rank) if state.manifest is not None else []
        self.hashes = {entry.name: entry.hash for entry in entries}

    @classmethod
    def open(cls, path: str | Path, rank: int, tp: int) -> Shard:
        """The shard of `rank` out of `tp`. Raises InputError, in one line with the remedy, for anything wrong."""
        folder = Path(path)
        try:
            if not reading.is_folder(folder):
                raise InputError("not a folder on this machine", str(folder), "give a sharded_state directory")
            state = ShardedState.open(folder)
            try:
                _check_size(state, tp)
                state.check_files()
                _check_side_files(state)
                return cls(state, rank)
            except BaseException:
                state.close()
                raise
        except W8A8SCError as error:
            raise one_line(error) from None

    def close(self) -> None:
        self._state.close()

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def check(self, wanted: Mapping[str, Wanted]) -> None:
        """Raises InputError unless the files hold exactly these tensors, and compressed ones that fit together."""
        problems = [*self._name_problems(wanted), *self._form_problems(wanted)]
        problems = problems or [p for name in wanted if (p := self._matrix_problem(name, wanted[name])) is not None]
        if problems:
            where = str(next(iter(self.tensors.values()))[0].path) if self.tensors else str(self.folder)
            raise one_line(
                InputError([Problem(problem) for problem in problems]),
                f"{where}: it was made for another model or another vLLM Ascend; w8a8sc verify tells more",
            )

    def _name_problems(self, wanted: Mapping[str, Wanted]) -> Iterator[str]:
        missing, extra = sorted(set(wanted) - set(self.tensors)), sorted(set(self.tensors) - set(wanted))
        if missing:
            yield f"{len(missing)} tensors are missing ({_some(missing)})"
        if extra:
            yield f"{len(extra)} tensors do not belong to this model ({_some(extra)})"

    def _form_problems(self, wanted: Mapping[str, Wanted]) -> Iterator[str]:
        for name in sorted(set(wanted) & set(self.tensors)):
            info, want = self.tensors[name][1], wanted[name]
            if info.dtype != want.dtype:
                yield f"{name} is {info.dtype}, {want.dtype} is wanted"
            elif want.matrix is not None:
                most = want.matrix[0] * want.matrix[1]
                if len(info.shape) != 1 or not 0 < info.nbytes <= most:
                    yield f"{name} has shape {list(info.shape)}, [c] with 0 < c <= {most} is wanted"
            elif info.shape != want.shape:
                yield f"{name} has shape {list(info.shape)}, {list(want.shape)} is wanted"

    def _matrix_problem(self, name: str, want: Wanted) -> str | None:
        """What is wrong with the info and the index of a compressed weight: the kernel follows them blindly."""
        if want.matrix is None:
            return None
        layer = name.rpartition(".")[0]
        info = self._read(f"{layer}.info")
        if info.tolist() != [8, 8, *want.matrix, 1]:
            return f"{layer}.info is {info.tolist()}, [8, 8, {want.matrix[0]}, {want.matrix[1]}, 1] is wanted"
        end = payload_end(self._read(f"{layer}.index"))
        length = self.tensors[name][1].nbytes
        return f"{layer}.index points to byte {end}, its weight has {length}" if end > length else None

    def _read(self, name: str) -> npt.NDArray[Any]:
        return self.tensors[name][0].read(name)

    def pieces(self, verify: Literal["hashes", "sizes"]) -> Iterator[tuple[str, int, npt.NDArray[np.uint8]]]:
        """(tensor, offset in bytes, bytes) of everything, in the order of the files, through one buffer of PIECE bytes.

        Bytes are valid until the next ones are asked for. Raises WorkError where a file ends early, and InputError
        where a tensor is not the one that was sealed (verify="hashes", and there is a manifest).
        """
        buffer = np.empty(PIECE, np.uint8)
        order = sorted(self.tensors.items(), key=lambda item: (str(item[1][0].path), item[1][1].begin))
        for name, (file, info) in order:
            sealed = self.hashes.get(name) if verify == "hashes" else None
            state = hashing.new()
            for begin in range(info.begin, info.end, PIECE):
                piece = buffer[: min(PIECE, info.end - begin)]
                file.read_into(begin, piece)
                if sealed is not None:
                    state.update(piece.data)
                yield name, begin - info.begin, piece
            if sealed is not None and hashing.text(state) != sealed:
                raise InputError(f"{name} is damaged (its hash is not the sealed one)", str(file.path), _REMEDY)


def one_line(error: W8A8SCError, remedy: str = _REMEDY) -> W8A8SCError:
    """The same error with all of its problems in one line that ends in a remedy."""
    lines = [f"{p.message}, {p.where}" if p.where else p.message for p in error.problems]
    more = [f"and {len(lines) - _MOST_PROBLEMS} more"] if len(lines) > _MOST_PROBLEMS else []
    remedies = dict.fromkeys(p.remedy for p in error.problems if p.remedy)
    text = "; ".join([*lines[:_MOST_PROBLEMS], *more])
    return type(error)(" ".join(text.split()), remedy=next(iter(remedies), remedy))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _check_size(state: ShardedState, tp: int) -> None:
    """The TP size. Without a manifest the files tell it: a missing last one looks like a smaller size."""
    if state.tp == tp:
        return
    where = str(state.path)
    if state.manifest is None and state.tp < tp and state.tp not in _usual_sizes():
        raise InputError(f"files of {state.tp} ranks, but served with {tp}", where, _REMEDY)
    raise InputError(
        f"made for {state.tp} ranks, but served with {tp}",
        where,
        f"give --tensor-parallel-size {state.tp}, or make another directory with w8a8sc reshard --tp {tp}",
    )


def _usual_sizes() -> Iterable[int]:
    return (1 << bit for bit in range(11))


def _check_side_files(state: ShardedState) -> None:
    """config.json and the description: those that were sealed, and nothing in the first that hides the second."""
    sealed = {entry.file: entry for entry in state.manifest.files} if state.manifest is not None else {}
    for name in (_CONFIG, _DESCRIPTION):
        path = state.path / name
        if not reading.is_file(path):
            raise InputError("no such file", str(path), _REMEDY)
        if name in sealed and hashing.of_file(path) != (sealed[name].size, sealed[name].hash):
            raise InputError("it was changed after the directory was sealed", str(path), "restore it")
    path = state.path / _CONFIG
    config = parse_json(reading.whole(path, _LARGEST_CONFIG), str(path))
    for key in ("quantization_config", "compression_config"):
        if key in config:
            raise InputError(f"{key} hides {_DESCRIPTION} from vLLM", str(path), "remove that key")
