"""The main job: a W8A8S checkpoint to sealed, verified sharded_state directories. What is refused, and what is done."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from .. import VERSION
from ..backends.msmodelslim import NATIVE, Backend
from ..backends.msmodelslim import choose as choose_backend
from ..checkpoint import Checkpoint, ModelConfig
from ..errors import InputError, Problem, UsageError, refuse
from ..layouts import ARCHITECTURES, DEFAULT_TARGET, UNCOMPRESSED, Target
from ..plan import Options, Plan, Preset, make_plan
from ..plan import preset as presets
from ..plan.patterns import matches
from ..plan.plan import names_of
from ..plan.preset import deviations
from ..serving import Command, Service, build
from ..sharded_state import Manifest, check_target, recover
from ..sharded_state import manifest as manifest_file
from .conversion import Conversion
from .machine import BYTES_PER_VENDOR, BYTES_PER_WORKER, default_processes
from .making import CODEC_VERSION
from .progress import Progress, Silent
from .source_identity import read_identity

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
    def serve(self) -> Command:
        """The command that serves it, on a host with the vLLM Ascend it was made for."""
        config = ModelConfig.parse(self.directory / "config.json", ARCHITECTURES)
        version = f"{self.manifest.options.get('target', DEFAULT_TARGET)}.0"
        preset = presets.choose(config)
        return build(Service(self.directory, "directory", self.tp, self.manifest.model, config, preset, version))

    @property
    def weight_ratio(self) -> float | None:
        """Compressed size of the compressed layers' weights, relative to what they were."""
        layers = [layer for layer in self.manifest.layers if layer.quantization in UNCOMPRESSED]
        sizes = [layer.n * layer.k * (2 if layer.quantization == "W16A16SC" else 1) for layer in layers]
        compressed = sum((layer.ratio or 0) * size for layer, size in zip(layers, sizes))
        return compressed / sum(sizes) if sizes else None

    @property
    def fallbacks(self) -> dict[str, int]:
        """Number of linear layers per fallback reason."""
        return dict(Counter(layer.fallback for layer in self.manifest.layers if layer.fallback))


def model_name(model: Path) -> str:
    """The name a checkpoint's folder gives to what is made of it: Qwen3-8B-w8a8s-310 is Qwen3-8B."""
    name = model.resolve().name
    return _NAME_SUFFIX.sub("", name) or name or "model"


def target_folder(output: Path, name: str, tp: int, kind: str = "w8a8sc") -> Path:
    """Where a directory goes below `output`: the tree that published directories have."""
    return output / f"{name}-{kind}-310-vllm" / f"TP{tp}" / f"{name}-{kind}-310-vllm-tp{tp}"


def plan(
    model: str | os.PathLike[str],
    *,
    tp: Sequence[int] = (1,),
    max_ratio: float | None = None,
    keep: Sequence[str] = (),
    preset: str = "auto",
    target: Target = DEFAULT_TARGET,
    compress: bool = True,
) -> list[Plan]:
    """What `compress` would do, one plan per tensor-parallel size; raises as `compress` does, and writes nothing."""
    checkpoint = Checkpoint.open(Path(model), ARCHITECTURES)
    chosen = presets.choose(checkpoint.config, preset)
    return _plans(checkpoint, tp, _options(chosen, max_ratio, keep, target, compress, "native"), chosen)


def _options(
    preset: Preset, max_ratio: float | None, keep: Sequence[str], target: Target, compress: bool, backend: str
) -> Options:
    """The preset's options, and over them what was asked for."""
    return Options(
        max_ratio=preset.max_ratio if max_ratio is None else max_ratio,
        keep=tuple(dict.fromkeys([*preset.keep, *keep])),
        target=target,
        preset=preset.name,
        compress=compress,
        backend=backend if compress else "native",
    )


def _plans(checkpoint: Checkpoint, tp: Sequence[int], options: Options, preset: Preset) -> list[Plan]:
    if not tp or len(set(tp)) != len(tp):
        raise UsageError("tensor-parallel sizes must be given, each once")
    plans: list[Plan] = []
    problems: list[Problem] = []
    for size in tp:
        try:
            plans.append(make_plan(checkpoint, size, options))
        except InputError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    refuse(problems)
    names = [names_of(item.module) for item in plans[0].modules if item.module.kind == "linear"]
    for pattern in options.keep:
        if pattern not in preset.keep and not any(matches(pattern, found) for found in names):
            raise UsageError(f"--keep {pattern} fits no layer", remedy="see the layers' names with w8a8sc inspect")
    told = deviations(preset, checkpoint)
    return [msgspec.structs.replace(item, warnings=(*item.warnings, *told)) for item in plans]


def compress(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str] = ".",
    *,
    tp: Sequence[int] = (1,),
    name: str | None = None,
    processes: int | None = None,
    max_ratio: float | None = None,
    keep: Sequence[str] = (),
    preset: str = "auto",
    target: Target = DEFAULT_TARGET,
    compress: bool = True,
    backend: str = "auto",
    executor: str | None = None,
    overwrite: bool = False,
    resume: bool = True,
    verify_output: bool = True,
    progress: Progress | None = None,
) -> list[Compressed]:
    """Compress a W8A8S checkpoint for each tensor-parallel size into a sealed directory below `output`.

    name: of the model in the output's folder names, from the checkpoint's folder by default. processes: worker
    processes, as many as cores and memory allow by default. preset: auto, none, a shipped preset's name or a file; it
    gives defaults for max_ratio (a layer that compresses to this fraction or more stays W8A8S) and adds to keep
    (patterns of layers to leave uncompressed). target: the vLLM Ascend release whose keys are written. compress: False
    for an uncompressed W8A8S directory. backend, executor: who compresses, see backends.msmodelslim.choose. resume: go
    on with what an interrupted run left. verify_output: read everything back and check it before it is put in place.

    The checkpoint is read, and every tile encoded, once for all sizes together. Raises InputError, with all problems in
    one report, before anything is written; WorkError if the work fails, which leaves a `.partial` folder to go on with.
    A directory that holds this result already is reported, not made again.
    """
    progress = progress or Silent()
    checkpoint = Checkpoint.open(Path(model), ARCHITECTURES)
    chosen = presets.choose(checkpoint.config, preset)
    engine = choose_backend(backend, executor) if compress else NATIVE
    options = _options(chosen, max_ratio, keep, target, compress, engine.name)
    plans = _plans(checkpoint, tp, options, chosen)
    return convert(
        *(checkpoint, plans, name or model_name(Path(model)), Path(output), engine),
        processes=processes,
        overwrite=overwrite,
        resume=resume,
        verify_output=verify_output,
        progress=progress,
    )


def convert(
    checkpoint: Checkpoint,
    plans: Sequence[Plan],
    name: str,
    output: Path,
    engine: Backend,
    *,
    processes: int | None,
    overwrite: bool,
    resume: bool,
    verify_output: bool,
    progress: Progress,
) -> list[Compressed]:
    """Carry out plans for one checkpoint, each into a directory below `output`; raises as `compress` does."""
    if "/" in name or "\0" in name or name in (".", ".."):
        raise UsageError(f"{name!r} cannot be part of a folder's name", remedy="give another --name")
    count = processes or default_processes(BYTES_PER_VENDOR if engine.executor else BYTES_PER_WORKER)
    if count < 1:
        raise UsageError("the number of processes must be positive")
    compress = plans[0].options.compress
    kind = "w8a8sc" if compress else "w8a8s"
    targets = {item.tp: target_folder(output, name, item.tp, kind) for item in plans}
    done = {item.tp: _already_done(targets[item.tp], checkpoint, item, count, overwrite, progress) for item in plans}
    todo = [item for item in plans if done[item.tp] is None]
    check_space(output, sum(item.estimated_rank_bytes * item.tp for item in todo))
    for warning in dict.fromkeys(warning for item in todo for warning in item.warnings):
        progress.note(warning)
    if todo and compress:
        progress.note(f"compressing with {engine.name}: {engine.reason}")
    if todo:
        started = time.monotonic()
        places = [targets[item.tp] for item in todo]
        manifests = Conversion(
            *(checkpoint, todo, places, name, count, progress),
            backend=engine,
            overwrite=overwrite,
            resume=resume,
            verify_output=verify_output,
        ).run()
        seconds = time.monotonic() - started
        for item, manifest in zip(todo, manifests):
            sizes = sum(rank.size for rank in manifest.ranks) + sum(file.size for file in manifest.files)
            done[item.tp] = Compressed(
                *(targets[item.tp], item.tp, False, item.source_bytes, sizes, seconds, manifest, item.warnings)
            )
    return [result for item in plans if (result := done[item.tp])]


def _already_done(
    target: Path, checkpoint: Checkpoint, item: Plan, processes: int, overwrite: bool, progress: Progress
) -> Compressed | None:
    """The result, if the target holds it already; refuses any other target unless it may be replaced."""
    recover(target)
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
        and manifest.options == item.options.document()
    )
    if manifest is None or not same or manifest.source != read_identity(checkpoint, processes, progress):
        check_target(target, overwrite=False)
        return None
    return Compressed(target, item.tp, True, item.source_bytes, manifest.tensor_bytes, 0.0, manifest)


def check_space(output: Path, needed: int) -> None:
    """Raises InputError for an output of so many bytes, estimated, that does not fit on the disk."""
    place = output.absolute()
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK) or not place.is_dir():
        raise InputError("cannot be written to", str(place), "choose another output")
    free = shutil.disk_usage(place).free
    if needed and free < needed + _SAFETY_BYTES:
        raise InputError(
            f"about {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free", str(place), "make room"
        )
