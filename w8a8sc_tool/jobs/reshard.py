"""From one directory to another: cut for other tensor-parallel sizes, or back to what it was made of."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from ..backends.msmodelslim.installed import NATIVE
from ..checking.verify import refuse_broken, target_of
from ..checkpoint import Checkpoint, Description, ModelConfig
from ..checkpoint.reader import SourceReader
from ..conversion.convert import Compressed, convert
from ..conversion.preparation import Settings, check_name, prepare
from ..conversion.space import check_space, held_bytes
from ..errors import AccessError, InputError, WorkError, refuse
from ..io import files, reading
from ..io.files import as_bytes
from ..io.limits import noting
from ..io.names import given_name
from ..io.safetensors import DTYPES, TensorInfo, header_for, tensor_info
from ..layouts import ARCHITECTURES, modules
from ..options import as_file_size, as_sizes
from ..planning import Options, make_plan, side_files
from ..resharding.source import open_source
from ..sharded_state import SealedDirectory, ShardedState, check_target, partial_of
from ..sharded_state.manifest import options_of
from ..workers.progress import Progress, working

_DESCRIPTION: Final = "quant_model_description.json"
_NAME_SUFFIX: Final = re.compile(r"-w8a8sc?-310-vllm-tp\d+$", re.IGNORECASE)


@dataclass(frozen=True)
class Opened:
    """A directory as the checkpoint it was made of, with the options it was made with."""

    checkpoint: Checkpoint
    options: Options
    name: str
    tp: int


@contextmanager
def opened(directory: str | os.PathLike[str], progress: Progress, processes: int | None) -> Iterator[Opened]:
    """Open a directory as a source.

    One with a manifest is checked against it, tensor by tensor, as it is read; one without is verified first, as far as
    that can be done.

    Raises InputError for a directory that is broken.
    """
    folder = Path(directory)
    sealed = reading.exists(folder / "w8a8sc_manifest.json")
    report = refuse_broken(folder, quick=sealed, processes=processes, progress=progress)
    for gap in report.not_checked if not sealed else ():
        progress.note(f"not checked: {gap}")
    with ShardedState.open(folder) as state:
        config = ModelConfig.parse(folder / "config.json", ARCHITECTURES)
        description = Description.parse(folder / _DESCRIPTION)
        manifest = state.manifest
        options = Options(target=target_of(state)) if manifest is None else options_of(manifest)
        planned_modules, problems = modules(config, description, state.tp, options.target)
        refuse(problems)
        name = manifest.model if manifest is not None else _NAME_SUFFIX.sub("", given_name(folder)) or "model"
        yield Opened(open_source(state, config, description, planned_modules), options, name, state.tp)


def reshard(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str] = ".",
    *,
    tp: int | Sequence[int] | None = None,
    compress: bool = True,
    max_file_size: int | str | None = None,
    processes: int | None = None,
    overwrite: bool = False,
    resume: bool = True,
    verify: bool = True,
    progress: Progress | None = None,
) -> list[Compressed]:
    """Make directories for other tensor-parallel sizes from one directory alone, without its source.

    Tiles are moved as they are; only those that a cut goes through are decoded and encoded again. For a directory of
    this tool the results are those of `compress` from the source. tp: one size or several, None for the directory's
    own. compress: False for uncompressed W8A8S directories. The rest is as in `compress`. Raises InputError for a
    broken directory or a size that does not work, WorkError if the work fails.
    """
    progress = progress or Progress()
    sizes = None if tp is None else as_sizes(tp)
    most = as_file_size(max_file_size)
    with opened(directory, progress, processes) as source:
        options = source.options
        if not compress:
            options = msgspec.structs.replace(options, compress=False, backend="native")
        plans = [make_plan(source.checkpoint, size, options) for size in sizes or [source.tp]]
        settings = Settings(Path(output), source.name, NATIVE, processes, overwrite, resume, verify, most)
        return convert(prepare(source.checkpoint, plans, settings, progress), progress)


def to_checkpoint(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str] = ".",
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the W8A8S checkpoint that a directory was made of, under the original tensor names, below `output`.

    What conversion changed stays changed: float16 instead of bfloat16, deq_scale as int64, one scalar for fused layers,
    no tensors that had no place in the directory. Compressing it again gives the same rank files. Raises InputError,
    WorkError.
    """
    progress = progress or Progress()
    with opened(directory, progress, None) as source:
        check_name(source.name)
        target = Path(output) / f"{source.name}-w8a8s-310"
        check_target(target, overwrite=overwrite)
        check_space({target: source.checkpoint.nbytes - held_bytes(partial_of(target))})
        with noting(progress.note), SealedDirectory(target, overwrite=overwrite) as sealed:
            sealed.clear()
            with working(progress, "writing the checkpoint", source.checkpoint.nbytes):
                _write_weights(source.checkpoint, sealed.partial / "model.safetensors", progress)
            description = side_files.description_json(source.checkpoint.description, source.checkpoint.tensors)
            sealed.write_file(_DESCRIPTION, description)
            sealed.write_file("config.json", side_files.config_json(source.checkpoint))
            for file in source.checkpoint.side_files:
                sealed.copy_file(file.path, file.name)
            _open_again(sealed.partial, source)
            sealed.publish()
    return target


def _open_again(folder: Path, source: Opened) -> None:
    """Raises WorkError unless the checkpoint in a folder can be compressed as its directory was."""
    try:
        make_plan(Checkpoint.open(folder, ARCHITECTURES), source.tp, source.options)
    except AccessError:  # it says nothing of the checkpoint
        raise
    except InputError as error:
        first = error.problems[0]
        raise WorkError(
            f"the checkpoint that was written is refused, first: {first.message}", first.where, "report this"
        ) from None


def _write_weights(checkpoint: Checkpoint, path: Path, progress: Progress) -> None:
    """One safetensors file, tensor after tensor in blocks of rows."""
    # The largest items first, so that every tensor is aligned whatever sizes came before.
    order = sorted(checkpoint.tensors.values(), key=lambda tensor: -_item_bytes(tensor.dtype))
    placed: list[TensorInfo] = []
    end = 0
    for tensor in order:
        info = tensor_info(tensor.name, tensor.dtype, tensor.shape)
        placed.append(msgspec.structs.replace(info, begin=end, end=end + info.nbytes))
        end += info.nbytes
    header = header_for(placed)
    reader = SourceReader()
    fd = files.create(path)
    try:
        files.write_at(fd, path, header, 0)
        for tensor, info in zip(order, placed):
            rows = tensor.shape[0] if tensor.shape else 1
            step = max(1, reading.PIECE_BYTES * rows // max(1, info.nbytes))
            for first in range(0, rows, step):
                values = reader.read_rows(tensor, first, min(first + step, rows))
                offset = len(header) + info.begin + first * (info.nbytes // rows)
                files.write_at(fd, path, as_bytes(np.ascontiguousarray(values)), offset)
                progress.advance(values.nbytes)
        progress.stage("waiting for the disk")
        files.settle(fd, path)
    finally:
        os.close(fd)
        reader.close()


def _item_bytes(dtype: str) -> int:
    return DTYPES[dtype].itemsize
