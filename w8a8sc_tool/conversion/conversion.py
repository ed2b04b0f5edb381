"""One pass over a checkpoint that fills a directory per tensor-parallel size, and can go on where it was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from .._version import VERSION
from ..backends.msmodelslim.installed import Backend
from ..checking.verify import verify
from ..checkpoint import Checkpoint, SourceTensor
from ..errors import InputError, WorkError
from ..io.limits import noting
from ..io.safetensors import StoredTensor
from ..planning import Plan
from ..sharded_state import Journal, JournalEntry, Manifest, SealedDirectory
from ..workers.pool import Pool
from ..workers.progress import Progress
from ..workers.tasks import Task, run_all
from .draft import CODEC_VERSION, Making
from .identity import identity, read_identity, shallow_identity
from .messages import Answer, Key, Unit
from .schedule import Schedule

_HANDLER: Final = "w8a8sc_tool.conversion.worker:Converter"
_CHECK_BYTES: Final = 256 << 20  # of earlier work, checked by one worker at a time

Batch = dict[int, list[JournalEntry]]
"""What is made durable together: journal entries by directory."""


class Conversion:
    """A checkpoint into one directory per plan. Modules are worked on once, for all plans together."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        plans: Sequence[Plan],
        targets: Sequence[Path],
        name: str,
        processes: int,
        progress: Progress,
        *,
        backend: Backend,
        overwrite: bool,
        resume: bool,
        verify_output: bool,
    ) -> None:
        self._checkpoint = checkpoint
        self._name = name
        self._processes = processes
        self._progress = progress
        self._backend = backend
        self._resume = resume
        self._verify_output = verify_output
        self._makings = []
        for plan, target in zip(plans, targets):
            sealed = SealedDirectory(target, overwrite=overwrite)
            self._makings.append(Making(plan, sealed, Journal(sealed.partial)))
        self._sources: dict[str, str] = {}  # hash of every source tensor read so far
        self._unsynced = 0

    def run(self) -> list[Manifest]:
        """Make what is missing, seal, check and put in place; returns the manifests."""
        with ExitStack() as stack:
            stack.enter_context(noting(self._progress.note))
            for making in self._makings:
                stack.enter_context(making.sealed)
                stack.callback(making.close)
            earlier = [self._prepare(making) for making in self._makings]
            unfinished = [making for making in self._makings if making.finished is None]
            if unfinished:
                self._work(earlier)
                source = identity(self._checkpoint, self._sources)
            sealed = {id(making): making.seal(self._checkpoint, self._name, source) for making in unfinished}
            manifests = [making.finished or sealed[id(making)] for making in self._makings]
            for making in self._makings:
                self._read_back(making, quick=not self._verify_output and making.finished is None)
            for making in self._makings:
                making.sealed.publish()
        return manifests

    # ------------------------------------------------------------------------------------------ what is there already

    def _prepare(self, making: Making) -> list[JournalEntry]:
        """Go on with what an earlier run left, if it may be, else begin; returns what the journal says is complete."""
        # Whatever differs here may change the output's bytes.
        head: dict[str, Any] = {
            "tool_version": VERSION,
            "codec_version": CODEC_VERSION,
            "model": self._name,
            "tensor_parallel_size": making.plan.tp,
            "options": making.plan.options.document(),
        }
        if self._resume:
            manifest = making.was_sealed(head)
            if manifest and manifest.source == read_identity(self._checkpoint, self._processes, self._progress):
                making.finished = manifest
                return []
        head["source"] = shallow_identity(self._checkpoint)
        found = making.go_on(head) if self._resume else None
        if found is None and making.begin(head):
            self._progress.note(f"{making.sealed.partial} held nothing to go on with: it is made afresh")
        return found or []

    def _take_earlier(self, pool: Pool, earlier: Sequence[list[JournalEntry]]) -> None:
        """Check what the journals say is complete, and take it over."""
        parts = [(making, part) for making, entries in zip(self._makings, earlier) for part in _parts(entries)]
        if not parts:
            return
        tasks = [
            Task(part[0].module, "check", (making.stored(part), self._expected_sources(part)), _nbytes(part))
            for making, part in parts
        ]
        self._progress.begin("checking what an earlier run made", sum(task.nbytes for task in tasks))
        for number, (wrong, changed) in run_all(pool, tasks):
            _refuse_damage(parts[number][0].sealed.partial, wrong, changed)
            self._progress.advance(tasks[number].nbytes)
        self._progress.end()
        for making, entries in zip(self._makings, earlier):
            making.adopt(entries)
            for entry in entries:
                self._sources |= entry.sources

    def _expected_sources(self, entries: Sequence[JournalEntry]) -> list[tuple[SourceTensor, str]]:
        return [(self._checkpoint.tensors[name], value) for entry in entries for name, value in entry.sources.items()]

    # ----------------------------------------------------------------------------------------------------- the work

    def _work(self, earlier: Sequence[list[JournalEntry]]) -> None:
        """Have workers make every module that is missing."""
        plan = self._makings[0].plan
        paths = [[str(rank.path) for rank in making.ranks] for making in self._makings]
        with ExitStack() as stack:
            vendor = None
            if self._backend.executor is not None:
                from ..backends.msmodelslim.compressor import temporary_folder  # it brings the codec along

                vendor = (str(stack.enter_context(temporary_folder())), self._backend.executor)
            pool = stack.enter_context(Pool(self._processes, _HANDLER, paths, plan.options.max_ratio, vendor))
            self._take_earlier(pool, earlier)
            units = self._units()
            sizes = ", ".join(str(making.plan.tp) for making in self._makings if making.finished is None)
            self._progress.begin(f"compressing for TP {sizes}", plan.source_bytes)
            self._progress.advance(plan.source_bytes - sum(unit.source_bytes for unit in units))
            try:
                Schedule(units, pool, self).run()
            except BaseException:
                self._save()
                raise
            unused = [tensor for tensor in plan.unused if tensor.name not in self._sources]
            for number in pool.idle()[:1]:
                pool.call(number, "unused tensors", "hash_sources", unused)
            for _, hashes in pool.wait():
                self._sources |= hashes
        self._progress.end()

    def _units(self) -> list[Unit]:
        """What is still to be made, in the order of the plan."""
        units = []
        for items in zip(*(making.plan.modules for making in self._makings)):
            name = items[0].module.name
            planned = {
                number: item
                for number, (making, item) in enumerate(zip(self._makings, items))
                if making.finished is None and name not in making.made
            }
            if planned:
                units.append(Unit(name, planned))
        return units

    def offsets(self, unit: Unit) -> dict[Key, int]:
        """The places of a module's fixed tensors, but for those too small to have one yet."""
        places = {
            (number, rank, output.name): file.offset(output.name)
            for number, planned in unit.planned.items()
            for rank, file in enumerate(self._makings[number].ranks)
            for output in planned.fixed
        }
        return {key: offset for key, offset in places.items() if offset is not None}

    def place(self, unit: Unit, answer: Answer) -> dict[Key, int]:
        """Places for the tensors of a compressed module, next in every rank's file."""
        return {
            (number, rank, tensor.name): self._makings[number].ranks[rank].append(tensor)
            for number, made in answer.made.items()
            for rank, tensors in enumerate(made.variable)
            for tensor in tensors
        }

    def take(self, unit: Unit, answer: Answer) -> None:
        """Keep what a worker made."""
        self._sources |= answer.sources
        original = compressed = 0
        for number, made in answer.made.items():
            making, planned = self._makings[number], unit.planned[number]
            making.take(unit.name, made)
            if made.variable:
                original += planned.module.n * planned.module.row_bytes * making.plan.tp
                compressed += sum(tensor.nbytes for tensors in made.variable for tensor in tensors)
            if not planned.compress:
                making.completed(unit.name)
        self._unsynced += unit.source_bytes
        self._progress.advance(unit.source_bytes, original, compressed)

    def placed(self, unit: Unit, hashes: dict[Key, str]) -> None:
        """Keep the hashes of a compressed module that has been written."""
        for (number, rank, name), value in hashes.items():
            self._makings[number].hashes[rank][name] = value
        for number, planned in unit.planned.items():
            if planned.compress:
                self._makings[number].completed(unit.name)

    def complete(self) -> int:
        """Source bytes of what has been made since the last sync began."""
        return self._unsynced

    def start_sync(self) -> Batch:
        """Take note of what is complete now."""
        self._unsynced = 0
        return {number: making.unrecorded(self._sources) for number, making in enumerate(self._makings)}

    def sync(self, batch: Batch) -> None:
        """Make it durable; called from a thread."""
        for number in batch:
            for rank in self._makings[number].ranks:
                rank.sync()

    def record(self, batch: Batch) -> None:
        """It is durable: say so in the journals."""
        for number, entries in batch.items():
            self._makings[number].record(entries)

    def _save(self) -> None:
        """Before giving up: record what is complete, if that can be done."""
        with suppress(WorkError):
            batch = self.start_sync()
            self.sync(batch)
            self.record(batch)

    def _read_back(self, making: Making, *, quick: bool) -> None:
        """Open the directory as whoever uses it will; quick: without reading the tensors."""
        report = verify(making.sealed.partial, quick=quick, processes=self._processes, progress=self._progress)
        if not report.ok:
            first = report.findings[0]
            raise WorkError(
                f"reading back what was written found {len(report.findings)} errors, first: {first.what}",
                first.where,
                "check disk and memory of this machine, then run the command again with --no-resume",
            )


def _nbytes(entries: Sequence[JournalEntry]) -> int:
    return sum(tensor.info.nbytes for entry in entries for tensor in entry.tensors)


def _parts(entries: Sequence[JournalEntry]) -> list[list[JournalEntry]]:
    """Entries in groups that a worker checks at a time."""
    parts: list[list[JournalEntry]] = []
    for entry in entries:
        if not parts or _nbytes(parts[-1]) >= _CHECK_BYTES:
            parts.append([])
        parts[-1].append(entry)
    return parts


def _refuse_damage(partial: Path, wrong: Sequence[StoredTensor], changed: Sequence[str]) -> None:
    """Raises InputError if what an earlier run left cannot be gone on with."""
    remedy = "give --no-resume to discard it and start afresh"
    if changed:
        raise InputError(f"holds unfinished work on another checkpoint: {changed[0]} differs", str(partial), remedy)
    if wrong:
        raise InputError(f"{wrong[0].info.name} is not what was written: it was damaged since", wrong[0].path, remedy)
