"""A draft of a directory: its files, what is known of its tensors, and its journal, until it is sealed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import codec
from .._version import VERSION
from ..checkpoint import Checkpoint
from ..errors import AccessError, InputError
from ..io import files, reading
from ..io.safetensors import StoredTensor, TensorInfo
from ..layouts import COMPRESSED, UNCOMPRESSED
from ..planning import Plan, PlannedModule, side_files
from ..planning.options import same_options
from ..sharded_state import (
    Journal,
    JournalEntry,
    JournalTensor,
    LayerEntry,
    Manifest,
    RankFile,
    RankFileEntry,
    SealedDirectory,
    TensorEntry,
    refuse_other,
)
from ..sharded_state import journal as journal_file
from ..sharded_state import manifest as manifest_file
from ..sharded_state.meaning import format_of
from ..sharded_state.rank_file import file_name
from .earlier import unplanned
from .messages import ModuleResult, RankTensor
from .parts import FILES_PER_RANK, Split, fixed_forms, largest_forms


def expected_head(plan: Plan, split: Split, name: str) -> dict[str, Any]:
    """What the journal of a directory begins with, but for its source: whatever changes the output's bytes.

    name: of the model. The version of this program is there to be told.
    """
    return {
        journal_file.TOOL_VERSION: VERSION,
        "format_version": format_of(split.count),
        "codec_version": codec.CODEC_VERSION,
        "model": name,
        "tensor_parallel_size": plan.tp,
        "options": plan.options.document(),
        FILES_PER_RANK: split.count,
    }


def comparable(head: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """A journal's head as this version would have written it: what it does not name has its first value or default."""
    known = {"format_version": 1, FILES_PER_RANK: 1, **head}
    return known | {"options": plan.options.document()} if same_options(head.get("options"), plan.options) else known


@dataclass
class DirectoryDraft:
    """A directory in the making, for one plan. `finished`: an earlier run sealed it but did not put it in place."""

    plan: Plan
    split: Split
    sealed: SealedDirectory
    journal: Journal
    ranks: list[list[RankFile]] = field(default_factory=list)  # by rank and part
    hashes: list[dict[str, str]] = field(default_factory=list)  # of the tensors, by rank
    results: dict[str, ModuleResult] = field(default_factory=dict)  # by module
    finished: Manifest | None = None
    written_now: set[tuple[str, str]] = field(default_factory=set)  # by workers of this run: file, tensor
    _complete: set[str] = field(default_factory=set)  # modules that are written
    _recorded: set[str] = field(default_factory=set)  # of them, those that the journal has

    def close(self) -> None:
        for file in self.files:
            file.close()
        self.journal.close()

    @property
    def files(self) -> list[RankFile]:
        """All ranks' files."""
        return [file for files in self.ranks for file in files]

    def _files_of(self, module: str) -> list[RankFile]:
        """The file of each rank that holds a module's tensors."""
        return [files[self.split.part_of[module]] for files in self.ranks]

    # ------------------------------------------------------------------------------------------ beginning and going on

    def begin(self, head: dict[str, Any]) -> bool:
        """Start afresh; returns whether something of an earlier run had to be discarded."""
        discarded = self.sealed.clear()
        self._announce(resume=False)
        self.journal.begin(head)
        files.sync_folder(self.sealed.partial)
        return discarded

    def go_on(self, head: dict[str, Any]) -> list[JournalEntry] | None:
        """Open what an earlier run left and return what its journal says is complete; None: there is nothing usable.

        Raises InputError if it was begun for something else, or says what this version would not.
        """
        left = self.journal.read()
        if left is None:
            return None
        partial = self.sealed.partial
        refuse_other(head, comparable(left.head, self.plan), partial)
        names = {file_name(rank, part) for rank in range(self.plan.tp) for part in range(self.split.count)}
        if not all(reading.is_file(partial / name) and not reading.is_link(partial / name) for name in names):
            self.journal.close()
            return None
        wrong = unplanned(left.entries, self.plan, self.split.part_of)
        if wrong is not None:
            raise self._refused(f"its line about {wrong.module[:80]!r} is none that w8a8sc {VERSION} writes")
        self.sealed.remove_others({*names, journal_file.NAME})
        self._announce(resume=True)
        return left.entries

    def was_sealed(self, name: str) -> Manifest | None:
        """The manifest, if an earlier run sealed the directory for this plan, and all its files are there.

        name: of the model.
        """
        if reading.exists(self.sealed.partial / journal_file.NAME):
            return None
        try:
            manifest = manifest_file.load(self.sealed.partial)
        except AccessError:
            raise
        except InputError:
            return None
        if manifest is None or self.sealed.absent(manifest):
            return None
        as_planned = (manifest.codec_version, manifest.model) == (codec.CODEC_VERSION, name)
        as_planned = as_planned and manifest.tensor_parallel_size == self.plan.tp
        as_planned = as_planned and (manifest.files_per_rank == self.split.count or not self.split.asked)
        return manifest if as_planned and same_options(manifest.options, self.plan.options) else None

    def _announce(self, *, resume: bool) -> None:
        """Open the rank files, with the place of everything whose size is known."""
        fixed: list[list[TensorInfo]] = [[] for _ in range(self.split.count)]
        variable: list[list[TensorInfo]] = [[] for _ in range(self.split.count)]
        for item in self.plan.modules:
            part = self.split.part_of[item.module.name]
            fixed[part] += fixed_forms(item)
            variable[part] += largest_forms(item)
        for rank in range(self.plan.tp):
            self.ranks.append([])
            self.hashes.append({})
            for part, forms in enumerate(zip(fixed, variable)):
                self.ranks[rank].append(RankFile(self.sealed.partial, rank, *forms, part=part, resume=resume))

    def stored(self, entries: Iterable[JournalEntry]) -> list[StoredTensor]:
        """What the journal says that the rank files hold."""
        return [
            StoredTensor(str(self.ranks[tensor.rank][tensor.part].path), tensor.info, tensor.hash)
            for entry in entries
            for tensor in entry.tensors
        ]

    def adopt(self, entries: Iterable[JournalEntry]) -> None:
        """Take over what an earlier run made, at the places it gave."""
        for entry in entries:
            variable: list[list[TensorInfo]] = [[] for _ in self.ranks]
            files_of_ranks = self._files_of(entry.module)
            for tensor in entry.tensors:
                self.hashes[tensor.rank][tensor.info.name] = tensor.hash
                file = files_of_ranks[tensor.rank]
                if not file.is_fixed(tensor.info.name):
                    variable[tensor.rank].append(tensor.info)
                    file.append(tensor.info)
                if file.info(tensor.info.name) != tensor.info:
                    raise self._refused(f"{tensor.info.name} is not where this version of w8a8sc, {VERSION}, puts it")
            for number, name, data, value in entry.small:
                self.hashes[number][name] = value
                files_of_ranks[number].put_small(name, data)
            self.results[entry.module] = ModuleResult(
                {},
                {},
                tuple(map(tuple, variable)),
                entry.ratios,
                entry.fallback,  # type: ignore[arg-type]
            )
            self._complete.add(entry.module)
            self._recorded.add(entry.module)

    def _refused(self, message: str) -> InputError:
        """The error for a journal that cannot be gone on with."""
        return InputError(message, str(self.journal.path), "give resume=False to start afresh")

    # ------------------------------------------------------------------------------------------------ while it is made

    def missing(self, name: str) -> bool:
        """Whether a module has yet to be made for this directory."""
        return self.finished is None and name not in self.results

    def offsets(self, planned: PlannedModule) -> dict[RankTensor, int]:
        """Offsets of a module's tensors of known size, but for those too small to have one yet."""
        known = {
            (rank, output.name): file.offset(output.name)
            for output in planned.fixed
            for rank, file in enumerate(self._files_of(planned.module.name))
        }
        return {key: offset for key, offset in known.items() if offset is not None}

    def take(self, planned: PlannedModule, result: ModuleResult) -> None:
        """Keep what a worker made of a module; it is complete unless a compressed weight is still to be written."""
        name = planned.module.name
        self.results[name] = result
        self._keep(name, result.hashes)
        files_of_ranks = self._files_of(name)
        for (rank, tensor), data in result.small.items():
            files_of_ranks[rank].put_small(tensor, data)
        if not planned.compress:
            self._complete.add(name)

    def append(self, name: str, result: ModuleResult) -> dict[RankTensor, int]:
        """Offsets for a module's compressed weight: next in its file of every rank."""
        files_of_ranks = self._files_of(name)
        return {
            (rank, tensor.name): files_of_ranks[rank].append(tensor)
            for rank, tensors in enumerate(result.variable)
            for tensor in tensors
        }

    def written(self, name: str, hashes: dict[RankTensor, str]) -> None:
        """A module's compressed weight is written on all ranks, and the module complete."""
        self._keep(name, hashes)
        self._complete.add(name)

    def _keep(self, name: str, hashes: dict[RankTensor, str]) -> None:
        """Hashes of a module's tensors that a worker has written, or handed over because they are small."""
        files_of_ranks = self._files_of(name)
        for (rank, tensor), value in hashes.items():
            self.hashes[rank][tensor] = value
            file = files_of_ranks[rank]
            if not file.is_small(tensor):
                self.written_now.add((file.path.name, tensor))

    def sync(self) -> None:
        """Make all that has been written durable."""
        for file in self.files:
            file.sync()

    def unrecorded(self, sources: Mapping[str, str]) -> list[JournalEntry]:
        """Journal entries of what is complete and not recorded yet; it has to be synced before they are written.

        Compressed modules follow each other in the files, so they are recorded in order: a gap ends them.
        """
        entries = []
        gap = False
        for item in self.plan.modules:
            name = item.module.name
            if name not in self._complete:
                gap = gap or item.compress
            elif name not in self._recorded and not (gap and item.compress):
                entries.append(self._entry(item, sources))
        return entries

    def record(self, entries: Iterable[JournalEntry]) -> None:
        """Say in the journal that modules are complete and durable."""
        complete = list(entries)
        self.journal.add(complete)
        self._recorded |= {entry.module for entry in complete}

    def _entry(self, item: PlannedModule, sources: Mapping[str, str]) -> JournalEntry:
        result = self.results[item.module.name]
        fixed = [output.name for output in item.fixed]
        part = self.split.part_of[item.module.name]
        tensors: list[JournalTensor] = []
        small: list[tuple[int, str, bytes, str]] = []
        for rank, file in enumerate(self._files_of(item.module.name)):
            known = self.hashes[rank]
            for name in [*fixed, *(tensor.name for tensor in (result.variable[rank] if result.variable else ()))]:
                data = file.small(name)
                if data is None:
                    tensors.append(JournalTensor(rank, file.info(name), known[name], part))
                else:
                    small.append((rank, name, data, known[name]))
        return JournalEntry(
            module=item.module.name,
            tensors=tuple(tensors),
            small=tuple(small),
            sources={name: sources[name] for name in item.sources},
            ratios=result.ratios,
            fallback=result.fallback,
        )

    # ------------------------------------------------------------------------------------------------------- sealing

    def seal(self, checkpoint: Checkpoint, name: str, source: str) -> Manifest:
        """Write headers, side files and manifest; the directory is complete and durable then."""
        outcomes = _outcomes(self.plan, self.results)
        rank_files = []
        for file in self.files:
            size, header_hash, tensors = file.finish()
            rank, hashes = file.rank, self.hashes[file.rank]
            entries = [_tensor_entry(tensor, hashes[tensor.name], outcomes, rank) for tensor in tensors]
            rank_files.append(RankFileEntry(rank, file.path.name, size, file.header_bytes, header_hash, entries))
        compressed = [
            member.name
            for item in self.plan.modules
            if outcomes[item.module.name].quantization in UNCOMPRESSED
            for member in item.module.members
        ]
        description = side_files.description_json(checkpoint.description, self.plan.used, compressed)
        self.sealed.write_file("quant_model_description.json", description)
        self.sealed.write_file("config.json", side_files.config_json(checkpoint))
        for side in checkpoint.side_files:
            self.sealed.copy_file(side.path, side.name)
        manifest = Manifest(
            format_version=format_of(self.split.count),
            tool="w8a8sc",
            tool_version=VERSION,
            codec_version=codec.CODEC_VERSION,
            model=name,
            architecture=checkpoint.config.architecture,
            tensor_parallel_size=self.plan.tp,
            options=self.plan.options.document(),
            source=source,
            layers=[
                LayerEntry(name, outcome.n, outcome.k, outcome.quantization, _rounded(outcome.ratio), outcome.fallback)
                for name, outcome in outcomes.items()
                if outcome.n
            ],
            rank_files=rank_files,
            files=self.sealed.side_files,
        )
        self.sealed.seal(manifest)
        self.journal.end()
        return manifest


@dataclass(frozen=True)
class Outcome:
    """What became of a module."""

    quantization: str
    fallback: str | None
    ratio: float | None
    ratios: tuple[float, ...]
    n: int
    k: int


def _outcomes(plan: Plan, results: dict[str, ModuleResult]) -> dict[str, Outcome]:
    outcomes = {}
    for planned in plan.modules:
        module, result = planned.module, results[planned.module.name]
        fallback = planned.fallback or result.fallback
        compressed = planned.compress and not fallback
        quantization = COMPRESSED[module.quantization] if compressed else module.quantization
        outcomes[module.name] = Outcome(quantization, fallback, result.ratio, result.ratios, module.n, module.k)
    return outcomes


def _tensor_entry(tensor: TensorInfo, hash_text: str, outcomes: dict[str, Outcome], rank: int) -> TensorEntry:
    module, _, leaf = tensor.name.rpartition(".")
    layer = outcomes[module]
    ratio = layer.ratios[rank] if leaf == "weight" and layer.quantization in UNCOMPRESSED else None
    return TensorEntry(
        *(tensor.name, tensor.dtype, list(tensor.shape), tensor.begin, tensor.end, hash_text, layer.quantization),
        ratio=_rounded(ratio),
        fallback=layer.fallback,
    )


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 6)
