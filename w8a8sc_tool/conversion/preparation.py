"""Before the work: everything that stands in its way, looked for without writing anything. The dry run ends here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .. import codec
from .._version import VERSION
from ..backends.msmodelslim.installed import Backend
from ..checkpoint import Checkpoint
from ..errors import AccessError, InputError, UsageError
from ..io import reading
from ..io.descriptors import most_open_files
from ..io.names import is_plain
from ..planning import Plan
from ..planning.options import same_options
from ..sharded_state import Manifest, check_target, partial_of, standing
from ..sharded_state import journal as journal_file
from ..sharded_state import manifest as manifest_file
from ..workers.machine import BYTES_PER_VENDOR, BYTES_PER_WORKER, default_processes
from ..workers.progress import Progress
from . import draft
from .identity import read_identity, shallow_identity
from .parts import Split, split_of
from .space import check_space, estimated_bytes, held_bytes

_PIPES_PER_WORKER: Final = 4
_OVERWRITE: Final = "choose another output, or give overwrite=True to replace it"


@dataclass(frozen=True)
class Settings:
    """How plans are carried out, for one checkpoint. None of it changes the bytes of tensors.

    output: the folder below which directories go. name: of the model, in the names of folders. processes: None for what
    cores and memory allow. max_file_size: the most bytes of a rank file, None for the default, or as many files as what
    is there already has.
    """

    output: Path
    name: str
    backend: Backend
    processes: int | None = None
    overwrite: bool = False
    resume: bool = True
    verify: bool = True
    max_file_size: int | None = None

    def check(self) -> None:
        """Raises UsageError for what cannot work wherever it is tried."""
        check_name(self.name)
        if self.processes is not None and self.processes < 1:
            raise UsageError("the number of processes must be positive")

    @property
    def workers(self) -> int:
        """The number of worker processes."""
        return self.processes or default_processes(BYTES_PER_VENDOR if self.backend.executor else BYTES_PER_WORKER)


@dataclass(frozen=True)
class Prepared:
    """A conversion that nothing stands in the way of. By plan, splits: which files its ranks will have; done: the
    manifest of what its target holds already.
    """

    checkpoint: Checkpoint
    plans: Sequence[Plan]
    splits: Sequence[Split]
    targets: Sequence[Path]
    settings: Settings
    done: Sequence[Manifest | None] = field(default_factory=list)

    def document(self) -> list[dict[str, Any]]:
        """What a dry run prints with --json: docs/json.md."""
        return [
            {
                "directory": str(target),
                "already_done": done is not None,
                "tensor_parallel_size": plan.tp,
                "source_bytes": plan.source_bytes,
                "estimated_bytes_per_rank": plan.estimated_rank_bytes,
                "files_per_rank": split.count if done is None else done.files_per_rank,
                "warnings": list(plan.warnings),
                "tensors": list(plan.records()),
            }
            for plan, split, target, done in zip(self.plans, self.splits, self.targets, self.done)
        ]


def target_folder(output: Path, name: str, tp: int, kind: str = "w8a8sc") -> Path:
    """Where a directory goes below `output`: the tree that published directories have."""
    return output / f"{name}-{kind}-310-vllm" / f"TP{tp}" / f"{name}-{kind}-310-vllm-tp{tp}"


def check_name(name: str) -> None:
    """Raises UsageError for a model's name that no folder can have."""
    if not is_plain(name):
        raise UsageError(f"{name[:80]!r} cannot be part of a folder's name", remedy="give another name=")


def prepare(checkpoint: Checkpoint, plans: Sequence[Plan], settings: Settings, progress: Progress) -> Prepared:
    """Find out what is done already, and refuse what stands in the way of the rest; nothing is written.

    The source is read, to be compared with what made a directory, where one made with these options is in place.
    Raises UsageError, InputError.
    """
    settings.check()
    kind = "w8a8sc" if plans[0].options.compress else "w8a8s"
    targets = [target_folder(settings.output, settings.name, plan.tp, kind) for plan in plans]
    splits = [split_of(plan, settings.max_file_size) for plan in plans]
    done = [
        _already_done(target, checkpoint, plan, split, settings, progress)
        if reading.is_folder(standing(target))
        else None
        for plan, split, target in zip(plans, splits, targets)
    ]
    needs = {}
    for number, (plan, target, manifest) in enumerate(zip(plans, targets, done)):
        if manifest is None:
            check_target(target, overwrite=settings.overwrite)
            left = _unfinished(target, settings)
            if left is not None:
                splits[number] = split_of(plan, settings.max_file_size, left.head)
            needs[target] = _needed_bytes(target, checkpoint, plan, splits[number], settings, left)
    check_space(needs)
    new = [(plan.tp, split.count) for plan, split, manifest in zip(plans, splits, done) if manifest is None]
    _check_open_files([tp * count for tp, count in new if count > 1], settings)
    return Prepared(checkpoint, plans, splits, targets, settings, done)


def _check_open_files(numbers: Sequence[int], settings: Settings) -> None:
    """Raises InputError if all rank files cannot be open at a time, as they are while they are written.

    numbers: of files, for each directory whose ranks have several.
    """
    allowed = most_open_files() - _PIPES_PER_WORKER * settings.workers
    if numbers and sum(numbers) > allowed:
        raise InputError(
            f"{sum(numbers)} rank files would be made at a time, and this process may open {max(0, allowed)}",
            str(settings.output),
            "allow more (ulimit -Hn), or give a larger max_file_size",
        )


def _already_done(
    target: Path, checkpoint: Checkpoint, plan: Plan, split: Split, settings: Settings, progress: Progress
) -> Manifest | None:
    """The manifest of a target that is in place, if it is what would be made; None if it is to be replaced.

    What decides is the version of the codec and of the manifest, not that of this program. Raises InputError for any
    other that may not be replaced, saying what it is.
    """
    if settings.overwrite:
        return None
    folder = standing(target)
    try:
        manifest = manifest_file.load(folder)
    except AccessError:
        raise
    except InputError as error:
        raise InputError(f"exists already ({error.problems[0].message})", str(target), _OVERWRITE) from None
    if manifest is None:
        raise InputError("exists already, without a manifest", str(target), _OVERWRITE)
    difference = _difference(manifest, plan, split)
    if difference is None and manifest.source != read_identity(checkpoint, settings.workers, progress):
        difference = "of another checkpoint"
    if difference is not None:
        raise InputError(
            f"exists already, made by w8a8sc {manifest.tool_version} (this is {VERSION}) {difference}",
            str(target),
            _OVERWRITE,
        )
    return manifest


def _difference(manifest: Manifest, plan: Plan, split: Split) -> str | None:
    """In what a directory was made otherwise than it would be made now, its source aside."""
    if manifest.codec_version != codec.CODEC_VERSION:
        return f"with version {manifest.codec_version} of the codec, not {codec.CODEC_VERSION}"
    if manifest.tensor_parallel_size != plan.tp:
        return f"for tensor-parallel size {manifest.tensor_parallel_size}"
    if not same_options(manifest.options, plan.options):
        wanted = plan.options.document()
        other = [key for key in wanted if manifest.options.get(key, wanted[key]) != wanted[key]]
        return f"with other options ({', '.join(f'{key} {manifest.options.get(key)}' for key in other)})"
    if split.asked and manifest.files_per_rank != split.count:
        files = "1 file" if manifest.files_per_rank == 1 else f"{manifest.files_per_rank} files"
        return f"with {files} per rank, not {split.count}"
    return None


def _unfinished(target: Path, settings: Settings) -> journal_file.Contents | None:
    """What the journal of unfinished work says that may be gone on with; None if there is none."""
    partial = partial_of(target)
    return journal_file.contents(partial) if settings.resume and not reading.is_link(partial) else None


def _needed_bytes(
    target: Path,
    checkpoint: Checkpoint,
    plan: Plan,
    split: Split,
    settings: Settings,
    left: journal_file.Contents | None,
) -> int:
    """Bytes that a directory will take beyond those that an interrupted run's take; negative if it gives some back.

    left: the journal of unfinished work. Raises InputError for some that may not be gone on with.
    """
    partial = partial_of(target)
    held = held_bytes(partial)
    if left is not None:
        head = draft.expected_head(plan, split, settings.name) | {"source": shallow_identity(checkpoint)}
        journal_file.refuse_other(head, draft.comparable(left.head, plan), partial)
    side_bytes = sum(there.st_size for side in checkpoint.side_files if (there := reading.status(side.path)))
    other_bytes = side_bytes + split.header_bytes * plan.tp
    needed = estimated_bytes(plan, other_bytes, left.entries if left else ()) - held
    # Files that are gone on with stay; others are removed before the work.
    return max(0, needed) if left is not None else needed
