"""The main job: a W8A8S checkpoint to sealed, verified sharded_state directories. What is refused, and what is done."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from ..backends.msmodelslim.installed import NATIVE
from ..backends.msmodelslim.installed import choose as choose_backend
from ..checkpoint import Checkpoint
from ..conversion.convert import Compressed, convert
from ..errors import InputError, Problem, UsageError, refuse
from ..io.names import given_name
from ..layouts import ARCHITECTURES, DEFAULT_TARGET, Target
from ..planning import Options, Plan, Preset, make_plan
from ..planning import preset as presets
from ..planning.options import as_patterns, as_sizes
from ..planning.patterns import matches
from ..planning.plan import names_of
from ..planning.preset import deviations
from ..text import is_utf8
from ..workers.progress import Progress, Silent

_NAME_SUFFIX: Final = re.compile(r"[-_.]w8a8s([-_.]310p?)?$", re.IGNORECASE)


def model_name(model: Path) -> str:
    """The name a checkpoint's folder gives to what is made of it: Qwen3-8B-w8a8s-310 is Qwen3-8B."""
    name = given_name(model)
    return _NAME_SUFFIX.sub("", name) or name or "model"


def plan(
    model: str | os.PathLike[str],
    *,
    tp: int | Sequence[int] = (1,),
    max_ratio: float | None = None,
    keep: str | Sequence[str] = (),
    preset: str = "auto",
    target: Target = DEFAULT_TARGET,
    compress: bool = True,
) -> list[Plan]:
    """What `compress` would do, one plan per tensor-parallel size; raises as `compress` does, and writes nothing."""
    checkpoint = Checkpoint.open(Path(model), ARCHITECTURES)
    chosen = presets.choose(checkpoint.config, preset)
    return _plans(checkpoint, tp, _options(chosen, max_ratio, keep, target, compress, "native"), chosen)


def _options(
    preset: Preset, max_ratio: float | None, keep: str | Sequence[str], target: Target, compress: bool, backend: str
) -> Options:
    """The preset's options, and over them what was asked for."""
    return Options(
        max_ratio=preset.max_ratio if max_ratio is None else max_ratio,
        keep=tuple(dict.fromkeys([*preset.keep, *as_patterns(keep)])),
        target=target,
        preset=preset.name,
        compress=compress,
        backend=backend if compress else "native",
    )


def _plans(checkpoint: Checkpoint, tp: int | Sequence[int], options: Options, preset: Preset) -> list[Plan]:
    plans: list[Plan] = []
    problems: list[Problem] = []
    for size in as_sizes(tp):
        try:
            plans.append(make_plan(checkpoint, size, options))
        except InputError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    refuse(problems)
    names = [names_of(item.module) for item in plans[0].modules if item.module.kind == "linear"]
    for pattern in options.keep:
        if not is_utf8(pattern):
            raise UsageError(f"--keep {pattern} is not UTF-8")
        if pattern not in preset.keep and not any(matches(pattern, found) for found in names):
            raise UsageError(f"--keep {pattern} fits no layer", remedy="see the layers' names with w8a8sc inspect")
    told = deviations(preset, checkpoint)
    return [msgspec.structs.replace(item, warnings=(*item.warnings, *told)) for item in plans]


def compress(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str] = ".",
    *,
    tp: int | Sequence[int] = (1,),
    name: str | None = None,
    processes: int | None = None,
    max_ratio: float | None = None,
    keep: str | Sequence[str] = (),
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

    tp: one size or several. name: of the model in the output's folder names, from the checkpoint's folder by default.
    processes: worker processes, as many as cores and memory allow by default. preset: auto, none, a shipped preset's
    name or a file; it gives defaults for max_ratio (a layer that compresses to this fraction or more stays W8A8S) and
    adds to keep (a pattern, or several, of layers to leave uncompressed). target: the vLLM Ascend release of the keys
    that are written. compress: False for an uncompressed W8A8S directory. backend, executor: who compresses, see
    backends.msmodelslim.choose. resume: go on with what an interrupted run left. verify_output: read everything back
    and check it before it is put in place.

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
