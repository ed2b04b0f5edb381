"""The engine behind compress and reshard: one pass over a checkpoint that fills a directory per tensor-parallel size.

Read it from top to bottom: `run` opens a draft per directory, goes on with what an earlier run left, follows the events
of a schedule, and seals, reads back and publishes what has become of the drafts.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from ..checking.verify import verify_opened
from ..checkpoint import SourceTensor
from ..errors import InputError, WorkError
from ..io.limits import noting
from ..io.safetensors import StoredTensor
from ..sharded_state import Journal, JournalEntry, Manifest, SealedDirectory
from ..workers.pool import Pool
from ..workers.progress import Part, Progress, working
from ..workers.tasks import Task, run_all
from .draft import DirectoryDraft, expected_head
from .identity import identity, read_identity, shallow_identity
from .messages import DAMAGE_REMEDY, Unit
from .preparation import Prepared
from .recorder import Recorder
from .schedule import Event, Made, Schedule, Turn, Written

_HANDLER: Final = "w8a8sc_tool.conversion.worker:Converter"
_WAITING: Final = "waiting for the disk"
_READING_BACK: Final = "reading back"
_CHECK_BYTES: Final = 256 << 20  # of earlier work, checked by one worker at a time
_MANY_PROCESSES: Final = 8  # so many end with the largest tensor: docs/performance.md, Many cores


class Conversion:
    """A checkpoint into one directory per plan. Modules are worked on once, for all plans together."""

    def __init__(self, prepared: Prepared, progress: Progress) -> None:
        """Of what is prepared, what is not done already."""
        self._checkpoint = prepared.checkpoint
        self._settings = prepared.settings
        self._progress = progress
        self._drafts = []
        for plan, split, target, done in zip(prepared.plans, prepared.splits, prepared.targets, prepared.done):
            if done is None:
                sealed = SealedDirectory(target, overwrite=self._settings.overwrite)
                self._drafts.append(DirectoryDraft(plan, split, sealed, Journal(sealed.partial)))
        self._processes = self._settings.workers
        self._sources: dict[str, str] = {}  # hash of every source tensor read so far

    def run(self) -> list[Manifest]:
        """Make what is missing, seal, check and put in place; returns the manifests."""
        with ExitStack() as stack:
            stack.enter_context(noting(self._progress.note))
            for draft in self._drafts:
                stack.enter_context(draft.sealed)
                stack.callback(draft.close)
            earlier = [self._prepare(draft) for draft in self._drafts]
            again = [self._to_read_again(draft, entries) for draft, entries in zip(self._drafts, earlier)]
            unfinished = [draft for draft in self._drafts if draft.finished is None]
            checked = sum(map(_nbytes, earlier)) + sum(again)
            to_make = self._drafts[0].plan.source_bytes if unfinished else 0
            copied = checked + to_make - self._to_compress(earlier)
            with working(self._progress, self._made_as if unfinished else _READING_BACK, checked + to_make, copied):
                if unfinished:
                    self._make(earlier)
                manifests = [draft.finished or self._seal(draft) for draft in self._drafts]
                for draft, nbytes in zip(self._drafts, again):
                    with Part(self._progress, nbytes, _READING_BACK) as part:
                        self._check(draft, part, quick=not self._settings.verify and draft.finished is None)
                self._progress.stage("putting in place")
                for draft in self._drafts:
                    draft.sealed.publish()
        return manifests

    @property
    def _made_as(self) -> str:
        """What is done to modules."""
        return "compressing" if self._drafts[0].plan.options.compress else "writing"

    def _to_compress(self, earlier: Sequence[list[JournalEntry]]) -> int:
        """Bytes of the source that a worker will try to compress, beside what earlier runs have made."""
        made = [{entry.module for entry in entries} for entries in earlier]
        return sum(
            items[0].source_bytes
            for items in zip(*(draft.plan.modules for draft in self._drafts))
            if items[0].compress
            and any(d.finished is None and items[0].module.name not in names for d, names in zip(self._drafts, made))
        )

    def _to_read_again(self, draft: DirectoryDraft, earlier: list[JournalEntry]) -> int:
        """About how many bytes an earlier run wrote that are read at the end; workers read back their own."""
        if draft.finished is not None:
            return draft.finished.tensor_bytes
        return _nbytes(earlier) if self._settings.verify else 0

    # ------------------------------------------------------------------------------------------ what is there already

    def _prepare(self, draft: DirectoryDraft) -> list[JournalEntry]:
        """Go on with what an earlier run left, if it may be, else begin; returns what the journal says is complete."""
        if self._settings.resume:
            manifest = draft.was_sealed(self._settings.name)
            if manifest and manifest.source == read_identity(self._checkpoint, self._processes, self._progress):
                draft.finished = manifest
                return []
        head = expected_head(draft.plan, draft.split, self._settings.name)
        head |= {"source": shallow_identity(self._checkpoint)}
        entries = draft.go_on(head) if self._settings.resume else None
        if entries is None and draft.begin(head):
            self._progress.note(f"{draft.sealed.partial} held nothing to go on with: it is made afresh")
        return entries or []

    def _take_earlier(self, pool: Pool, earlier: Sequence[list[JournalEntry]]) -> None:
        """Check what the journals say is complete, and take it over."""
        parts = [(draft, part) for draft, entries in zip(self._drafts, earlier) for part in _parts(entries)]
        if not parts:
            return
        tasks = [
            Task(part[0].module, "check", (draft.stored(part), self._expected_sources(part)), _nbytes(part))
            for draft, part in parts
        ]
        self._progress.stage("checking what an earlier run made")
        for number, (wrong, changed) in run_all(pool, tasks):
            _refuse_damage(parts[number][0].sealed.partial, wrong, changed)
            self._progress.advance(tasks[number].nbytes)
        self._progress.stage(self._made_as)
        for draft, entries in zip(self._drafts, earlier):
            draft.adopt(entries)
            for entry in entries:
                self._sources |= entry.sources

    def _expected_sources(self, entries: Sequence[JournalEntry]) -> list[tuple[SourceTensor, str]]:
        return [(self._checkpoint.tensors[name], value) for entry in entries for name, value in entry.sources.items()]

    # ----------------------------------------------------------------------------------------------------- the work

    def _make(self, earlier: Sequence[list[JournalEntry]]) -> None:
        """Have workers make every module that is missing."""
        plan = self._drafts[0].plan
        paths = [[[str(file.path) for file in files] for files in draft.ranks] for draft in self._drafts]
        with ExitStack() as stack:
            msmodelslim = None
            if self._settings.backend.executor is not None:
                from ..backends.msmodelslim.compressor import temporary_folder  # it brings the codec along

                msmodelslim = (str(stack.enter_context(temporary_folder())), self._settings.backend.executor)
            ahead = self._processes >= _MANY_PROCESSES
            arguments = (paths, plan.options.max_ratio, msmodelslim, self._settings.verify, ahead)
            pool = stack.enter_context(Pool(self._processes, _HANDLER, *arguments, preload=True))
            self._take_earlier(pool, earlier)
            units = self._units()
            self._progress.skip(plan.source_bytes - sum(unit.source_bytes for unit in units))
            self._follow(Schedule(units, pool))
            unused = [tensor for tensor in plan.unused if tensor.name not in self._sources]
            for _, hashes in run_all(pool, [Task("unused tensors", "hash_sources", (unused,))] if unused else []):
                self._sources |= hashes

    def _units(self) -> list[Unit]:
        """What is still to be made, in the order of the plan."""
        units = []
        for items in zip(*(draft.plan.modules for draft in self._drafts)):
            name = items[0].module.name
            planned = {n: item for n, item in enumerate(items) if self._drafts[n].missing(name)}
            if planned:
                parts = {number: self._drafts[number].split.part_of[name] for number in planned}
                offsets = {number: self._drafts[number].offsets(item) for number, item in planned.items()}
                units.append(Unit(name, planned, parts, offsets))
        return units

    def _follow(self, schedule: Schedule) -> None:
        """Keep what workers make, and record it as it becomes durable; also of what is made when something fails."""
        recorder = Recorder(self._drafts, self._sources)
        try:
            for event in schedule:
                self._apply(event, schedule)
                recorder.worked(event.unit.source_bytes if isinstance(event, Made) else 0)
                if schedule.only_writes:
                    self._progress.stage("writing and reading back" if self._settings.verify else "writing")
        except BaseException:
            recorder.save()
            raise
        self._progress.stage(_WAITING)
        recorder.finish()

    def _apply(self, event: Event, schedule: Schedule) -> None:
        if isinstance(event, Made):
            self._sources |= event.result.sources
            for number, result in event.result.modules.items():
                self._drafts[number].take(event.unit.planned[number], result)
            self._progress.advance(event.unit.source_bytes, *self._compressed_bytes(event))
        elif isinstance(event, Turn):
            name, results = event.unit.name, event.result.modules.items()
            schedule.write(
                event.unit, {number: self._drafts[number].append(name, result) for number, result in results}
            )
        elif isinstance(event, Written):
            for number, hashes in event.hashes.items():
                self._drafts[number].written(event.unit.name, hashes)

    def _compressed_bytes(self, event: Made) -> tuple[int, int]:
        """Bytes of the weights that a unit has compressed, before and after, all directories and ranks together."""
        before = after = 0
        for number, result in event.result.modules.items():
            if result.variable:
                module, tp = event.unit.planned[number].module, self._drafts[number].plan.tp
                before += module.n * module.row_bytes * tp
                after += sum(tensor.nbytes for tensors in result.variable for tensor in tensors)
        return before, after

    # -------------------------------------------------------------------------------------------------------- the end

    def _seal(self, draft: DirectoryDraft) -> Manifest:
        self._progress.stage(_WAITING)
        draft.sync()
        self._progress.stage("sealing")
        return draft.seal(self._checkpoint, self._settings.name, identity(self._checkpoint, self._sources))

    def _check(self, draft: DirectoryDraft, progress: Progress, *, quick: bool) -> None:
        """Open the directory as whoever uses it will, and read what workers have not read back; quick: not that."""
        report = verify_opened(
            *(draft.sealed.partial, None, draft.written_now),
            quick=quick,
            processes=self._processes,
            progress=progress,
        )
        if not report.ok:
            first = report.findings[0]
            raise WorkError(
                f"reading back what was written found {len(report.findings)} errors, first: {first.message}",
                first.where,
                DAMAGE_REMEDY,
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
    remedy = "give resume=False to discard it and start afresh"
    if changed:
        raise InputError(f"holds unfinished work on another checkpoint: {changed[0]} differs", str(partial), remedy)
    if wrong:
        raise InputError(f"{wrong[0].info.name} is not what was written: it was damaged since", wrong[0].path, remedy)
