"""The main job: a W8A8S checkpoint to sealed, verified sharded_state directories."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from .. import VERSION
from ..checkpoint import Checkpoint
from ..errors import InputError, Problem, UsageError, WorkError, refuse
from ..layouts import ARCHITECTURES
from ..plan import Options, Plan, PlannedModule, make_plan
from ..plan.plan import DEFAULT_MAX_RATIO
from ..safetensors_file import TensorInfo
from ..sharded_state import (
    LayerEntry,
    Manifest,
    RankEntry,
    RankFile,
    SealedDirectory,
    TensorEntry,
    check_target,
    tensor_info,
)
from ..sharded_state import manifest as manifest_file
from . import side_files
from .convert_worker import Key, Made
from .machine import default_processes
from .pool import Pool
from .progress import Progress, Silent
from .source_identity import identity, read_identity
from .verify import verify

CODEC_VERSION: Final = 1  # changes when the same weights would be coded differently

# Compressed weights that wait for their place in the file, all workers together; one more per worker is in the making.
BYTES_IN_FLIGHT: Final = 384 << 20
_SAFETY_BYTES: Final = 64 << 20  # disk space beyond the estimate

_NAME_SUFFIX: Final = re.compile(r"[-_.]w8a8s([-_.]310p?)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Compressed:
    """What a conversion left behind."""

    directory: Path
    tp: int
    already_done: bool
    source_bytes: int
    output_bytes: int
    seconds: float
    manifest: Manifest
    warnings: tuple[str, ...] = ()

    @property
    def weight_ratio(self) -> float | None:
        """Compressed size of the compressed layers, relative to their int8 weights."""
        layers = [layer for layer in self.manifest.layers if layer.quantization == "W8A8SC"]
        original = sum(layer.n * layer.k for layer in layers)
        return sum((layer.ratio or 0) * layer.n * layer.k for layer in layers) / original if original else None

    @property
    def fallbacks(self) -> dict[str, int]:
        """Number of linear layers per fallback reason."""
        return dict(Counter(layer.fallback for layer in self.manifest.layers if layer.fallback))


def model_name(model: Path) -> str:
    """The name a checkpoint's folder gives to what is made of it: Qwen3-8B-w8a8s-310 is Qwen3-8B."""
    name = model.resolve().name
    return _NAME_SUFFIX.sub("", name) or name or "model"


def target_folder(output: Path, name: str, tp: int) -> Path:
    """Where a directory goes below `output`: the tree that published directories have."""
    return output / f"{name}-w8a8sc-310-vllm" / f"TP{tp}" / f"{name}-w8a8sc-310-vllm-tp{tp}"


def plan(
    model: str | os.PathLike[str], *, tp: Sequence[int] = (1,), max_ratio: float = DEFAULT_MAX_RATIO
) -> list[Plan]:
    """What `compress` would do, one plan per tensor-parallel size; raises as `compress` does, and writes nothing."""
    return _plans(Checkpoint.open(Path(model), ARCHITECTURES), tp, max_ratio)


def _plans(checkpoint: Checkpoint, tp: Sequence[int], max_ratio: float) -> list[Plan]:
    if not tp or len(set(tp)) != len(tp):
        raise UsageError("tensor-parallel sizes must be given, each once")
    plans: list[Plan] = []
    problems: list[Problem] = []
    for size in tp:
        try:
            plans.append(make_plan(checkpoint, size, Options(max_ratio=max_ratio)))
        except InputError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    refuse(problems)
    return plans


def compress(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str] = ".",
    *,
    tp: Sequence[int] = (1,),
    name: str | None = None,
    processes: int | None = None,
    max_ratio: float = DEFAULT_MAX_RATIO,
    overwrite: bool = False,
    verify_output: bool = True,
    progress: Progress | None = None,
) -> list[Compressed]:
    """Compress a W8A8S checkpoint for each tensor-parallel size into a sealed directory below `output`.

    name: of the model in the output's folder names, from the checkpoint's folder by default. processes: worker
    processes, as many as cores and memory allow by default. max_ratio: a layer that compresses to this fraction or more
    stays W8A8S. verify_output: read everything back and check it before it is put in place.

    Raises InputError, with all problems in one report, before anything is written; WorkError if the work fails, which
    leaves a `.partial` folder and nothing else. A directory that holds this result already is reported, not made again.
    """
    progress = progress or Silent()
    checkpoint = Checkpoint.open(Path(model), ARCHITECTURES)
    plans = _plans(checkpoint, tp, max_ratio)
    name = name or model_name(Path(model))
    if "/" in name or "\0" in name or name in (".", ".."):
        raise UsageError(f"{name!r} cannot be part of a folder's name", remedy="give another --name")
    count = processes or default_processes()
    if count < 1:
        raise UsageError("the number of processes must be positive")
    targets = {item.tp: target_folder(Path(output), name, item.tp) for item in plans}
    done = {item.tp: _already_done(targets[item.tp], checkpoint, item, count, overwrite, progress) for item in plans}
    todo = [item for item in plans if done[item.tp] is None]
    _check_space(Path(output), todo)
    for warning in dict.fromkeys(warning for item in todo for warning in item.warnings):
        progress.note(warning)
    results = []
    for item in plans:
        result = done[item.tp]
        if result is None:
            result = _Conversion(checkpoint, item, name, count, progress).run(
                targets[item.tp], overwrite=overwrite, verify_output=verify_output
            )
        results.append(result)
    return results


def _already_done(
    target: Path, checkpoint: Checkpoint, item: Plan, processes: int, overwrite: bool, progress: Progress
) -> Compressed | None:
    """The result, if the target holds it already; refuses any other target unless it may be replaced."""
    if overwrite or not target.is_dir():
        check_target(target, overwrite=overwrite)
        return None
    try:
        manifest = manifest_file.load(target)
    except InputError:
        manifest = None
    same = (
        manifest is not None
        and manifest.tool_version == VERSION
        and manifest.codec_version == CODEC_VERSION
        and manifest.tensor_parallel_size == item.tp
        and manifest.options == msgspec.to_builtins(item.options)
    )
    if manifest is None or not same or manifest.source != read_identity(checkpoint, processes, progress):
        check_target(target, overwrite=False)
        return None
    return Compressed(target, item.tp, True, item.source_bytes, manifest.tensor_bytes, 0.0, manifest)


def _check_space(output: Path, plans: Sequence[Plan]) -> None:
    """Refuse a conversion whose estimated output does not fit on the disk."""
    needed = sum(item.estimated_rank_bytes * item.tp for item in plans)
    place = output.absolute()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK) or not place.is_dir():
        raise InputError("cannot be written to", str(place), "choose another output")
    free = shutil.disk_usage(place).free
    if plans and free < needed + _SAFETY_BYTES:
        raise InputError(
            f"about {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free", str(place), "make room"
        )


@dataclass
class _Rank:
    """A rank's file and what is known of its tensors so far."""

    file: RankFile
    hashes: dict[str, str] = field(default_factory=dict)


class _Conversion:
    """One checkpoint for one tensor-parallel size."""

    def __init__(self, checkpoint: Checkpoint, item: Plan, name: str, processes: int, progress: Progress) -> None:
        self._checkpoint = checkpoint
        self._plan = item
        self._name = name
        self._processes = processes
        self._progress = progress
        self._ranks: list[_Rank] = []
        self._made: dict[str, Made] = {}
        self._source_hashes: dict[str, str] = {}

    def run(self, target: Path, *, overwrite: bool, verify_output: bool) -> Compressed:
        started = time.monotonic()
        with SealedDirectory(target, overwrite=overwrite) as directory:
            try:
                self._announce(directory.partial)
                self._work()
                manifest = self._finish(directory)
            except OSError as error:
                raise WorkError(
                    f"writing failed ({error.strerror})", str(directory.partial), "mend it and run the command again"
                ) from None
            finally:
                for rank in self._ranks:
                    rank.file.close()
            if verify_output:
                report = verify(directory.partial, processes=self._processes, progress=self._progress)
                if not report.ok:
                    first = report.findings[0]
                    raise WorkError(
                        f"reading back what was written found {len(report.findings)} errors, first: {first.what}",
                        first.where,
                        "check disk and memory of this machine",
                    )
            directory.publish()
        seconds = time.monotonic() - started
        sizes = sum(rank.size for rank in manifest.ranks) + sum(file.size for file in manifest.files)
        return Compressed(
            target, self._plan.tp, False, self._plan.source_bytes, sizes, seconds, manifest, self._plan.warnings
        )

    def _announce(self, folder: Path) -> None:
        """Create the rank files with the place of everything whose size is known."""
        fixed: list[TensorInfo] = []
        variable: list[TensorInfo] = []
        for item in self._plan.modules:
            fixed += [tensor_info(output.name, output.dtype, output.shape) for output in item.fixed]
            if item.compress:
                variable += _largest_forms(item)
        self._ranks = [_Rank(RankFile(folder, rank, fixed, variable)) for rank in range(self._plan.tp)]

    def _work(self) -> None:
        """Have workers make every module; hand out places in the order of the plan as sizes become known."""
        self._progress.begin(f"compressing for TP {self._plan.tp}", self._plan.source_bytes)
        files = [str(rank.file.path) for rank in self._ranks]
        handler = "w8a8sc_tool.jobs.convert_worker:Converter"
        with Pool(self._processes, handler, files, self._plan.options.max_ratio) as pool:
            _Schedule(self._plan, pool, self._offsets, self._place, self._take).run()
            for number in pool.idle()[:1]:
                pool.call(number, "unused tensors", "hash_sources", list(self._plan.unused))
            for _, hashes in pool.wait():
                self._source_hashes |= hashes
        self._progress.end()

    def _offsets(self, item: PlannedModule) -> dict[Key, int]:
        """The places of a module's fixed tensors, but for those too small to have one yet."""
        places = {
            (number, output.name): rank.file.offset(output.name)
            for number, rank in enumerate(self._ranks)
            for output in item.fixed
        }
        return {key: offset for key, offset in places.items() if offset is not None}

    def _place(self, made: Made) -> dict[Key, int]:
        """Places for the tensors of a compressed module, next in every rank's file."""
        return {
            (number, tensor.name): self._ranks[number].file.append(tensor)
            for number, tensors in enumerate(made.variable)
            for tensor in tensors
        }

    def _take(self, item: PlannedModule, made: Made | None, hashes: dict[Key, str]) -> None:
        """Keep what a worker reports: first what it made, later the hashes of what it placed."""
        for (number, name), value in hashes.items():
            self._ranks[number].hashes[name] = value
        if made is None:
            return
        self._made[item.module.name] = made
        self._source_hashes |= made.sources
        for (number, name), data in made.small.items():
            self._ranks[number].file.put_small(name, data)
        original = item.module.n * item.module.k * self._plan.tp if made.variable else 0
        compressed = sum(tensor.nbytes for rank in made.variable for tensor in rank)
        self._progress.advance(item.source_bytes, original, compressed)

    def _finish(self, directory: SealedDirectory) -> Manifest:
        """Write headers, side files and manifest."""
        told = _told(self._plan, self._made)
        ranks = []
        for number, rank in enumerate(self._ranks):
            size, header_hash, tensors = rank.file.finish()
            entries = [_tensor_entry(tensor, rank.hashes[tensor.name], told, number) for tensor in tensors]
            ranks.append(RankEntry(number, rank.file.path.name, size, rank.file.header_bytes, header_hash, entries))
        compressed = [
            member.name
            for item in self._plan.modules
            if told[item.module.name].quantization == "W8A8SC"
            for member in item.module.members
        ]
        description = side_files.description_json(self._checkpoint.description, compressed)
        directory.write_file("quant_model_description.json", description)
        directory.write_file("config.json", side_files.config_json(self._checkpoint))
        for path in self._checkpoint.side_files:
            directory.copy_file(path)
        manifest = Manifest(
            format_version=manifest_file.FORMAT_VERSION,
            tool="w8a8sc",
            tool_version=VERSION,
            codec_version=CODEC_VERSION,
            model=self._name,
            architecture=self._checkpoint.config.architecture,
            tensor_parallel_size=self._plan.tp,
            options=msgspec.to_builtins(self._plan.options),
            source=identity(self._checkpoint, self._source_hashes),
            layers=[
                LayerEntry(name, layer.n, layer.k, layer.quantization, _rounded(layer.ratio), layer.fallback)
                for name, layer in told.items()
                if layer.n
            ],
            ranks=ranks,
            files=directory.files,
        )
        directory.seal(manifest)
        return manifest


@dataclass(frozen=True)
class _Told:
    """What became of a module."""

    quantization: str
    fallback: str | None
    ratio: float | None
    ratios: tuple[float, ...]
    n: int
    k: int


def _told(item: Plan, made: dict[str, Made]) -> dict[str, _Told]:
    told = {}
    for planned in item.modules:
        result = made[planned.module.name]
        fallback = planned.fallback or result.fallback
        quantization = "W8A8SC" if planned.compress and not fallback else planned.module.quantization
        size = (planned.module.n, planned.module.k)
        told[planned.module.name] = _Told(quantization, fallback, result.ratio, result.ratios, *size)
    return told


def _tensor_entry(tensor: TensorInfo, hash_text: str, told: dict[str, _Told], rank: int) -> TensorEntry:
    module, _, leaf = tensor.name.rpartition(".")
    layer = told[module]
    ratio = layer.ratios[rank] if leaf == "weight" and layer.quantization == "W8A8SC" else None
    return TensorEntry(
        *(tensor.name, tensor.dtype, list(tensor.shape), tensor.begin, tensor.end, hash_text, layer.quantization),
        ratio=_rounded(ratio),
        fallback=layer.fallback,
    )


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 6)


def _largest_forms(item: PlannedModule) -> list[TensorInfo]:
    """The tensors a compressed module may have, with the longest shapes: they decide the space kept for the header."""
    name, n, k = item.module.name, item.module.n, item.module.k
    return [
        tensor_info(f"{name}.weight", "I8", (n, k * 10)),
        tensor_info(f"{name}.index", "I8", (n * k,)),
        tensor_info(f"{name}.info", "I64", (5,)),
    ]


class _Schedule:
    """Which worker does what next: modules in the order of the plan, each compressed one placed when its turn comes."""

    def __init__(self, item: Plan, pool: Pool, offsets: Any, place: Any, take: Any) -> None:
        self._pool = pool
        self._offsets = offsets
        self._place = place
        self._take = take
        self._pending = deque(item.modules)
        self._to_place = deque(planned for planned in item.modules if planned.compress)
        self._ready: dict[str, tuple[int, Made]] = {}  # made, waiting for their turn: worker and result
        # Per worker, places that it has not been told yet.
        self._placing: dict[int, deque[tuple[PlannedModule, Made, dict[Key, int]]]] = {}
        self._doing: dict[int, tuple[PlannedModule, Made | None]] = {}
        self._held = 0

    def run(self) -> None:
        while self._pending or self._pool.busy or any(self._placing.values()):
            for number in self._pool.idle():
                self._give(number)
            for number, result in self._pool.wait():
                self._receive(number, result)

    def _give(self, number: int) -> None:
        placing = self._placing.get(number)
        if placing:
            planned, made, offsets = placing.popleft()
            self._doing[number] = (planned, made)
            self._pool.call(number, planned.module.name, "place", planned.module.name, offsets)
        elif self._pending and (self._held < BYTES_IN_FLIGHT or not self._pool.busy):
            planned = self._pending.popleft()
            self._doing[number] = (planned, None)
            self._pool.call(number, planned.module.name, "make", planned, self._offsets(planned))

    def _receive(self, number: int, result: Any) -> None:
        planned, made = self._doing.pop(number)
        if made is not None:
            self._held -= made.held_bytes
            self._take(planned, None, result)
            return
        self._take(planned, result, result.hashes)
        if not planned.compress:
            return
        self._held += result.held_bytes
        self._ready[planned.module.name] = (number, result)
        while self._to_place and self._to_place[0].module.name in self._ready:
            following = self._to_place.popleft()
            worker, waiting = self._ready.pop(following.module.name)
            place = (following, waiting, self._place(waiting))  # now, so that files do not depend on who is faster
            self._placing.setdefault(worker, deque()).append(place)
