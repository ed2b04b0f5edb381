"""The main job: a W8A8S checkpoint to sealed, verified sharded_state directories. What is refused, and what is done."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ..backends.msmodelslim.installed import NATIVE
from ..backends.msmodelslim.installed import choose as choose_backend
from ..checkpoint import Checkpoint
from ..conversion.convert import Compressed, convert
from ..conversion.preparation import Prepared, Settings
from ..conversion.preparation import prepare as conversion_prepare
from ..errors import InputError, Problem, UsageError, refuse
from ..io.names import given_name
from ..layouts import ARCHITECTURES
from ..options import CompressKeywords, CompressOptions, shows_keywords
from ..planning import Options, Plan, Preset, make_plan
from ..planning import preset as presets
from ..planning.patterns import matches
from ..planning.plan import names_of
from ..planning.preset import deviations
from ..text import is_utf8
from ..workers.progress import Progress

if TYPE_CHECKING:
    from typing_extensions import Unpack

_NAME_SUFFIX: Final = re.compile(r"[-_.]w8a8s([-_.]310p?)?$", re.IGNORECASE)


def model_name(model: Path) -> str:
    """The name a checkpoint's folder gives to what is made of it: Qwen3-8B-w8a8s-310 is Qwen3-8B."""
    name = given_name(model)
    return _NAME_SUFFIX.sub("", name) or name or "model"


@shows_keywords
def plan(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str] = ".",
    *,
    progress: Progress | None = None,
    **options: Unpack[CompressKeywords],
) -> list[Plan]:
    """What `compress` would do with the same arguments, one plan per tensor-parallel size; nothing is written.

    It is prepared in the same way, so this raises whatever `compress` raises before its work begins.
    """
    return list(prepare(model, output, CompressOptions.of(options), progress or Progress()).plans)


@dataclass(frozen=True)
class Understood:
    """What is asked for, as far as input and options tell: nothing of the output has been looked at."""

    checkpoint: Checkpoint
    plans: list[Plan]
    settings: Settings


def understand(model: str | os.PathLike[str], output: str | os.PathLike[str], options: CompressOptions) -> Understood:
    """Open a checkpoint and plan what is to be made of it.

    Raises InputError with everything about the checkpoint that stands in the way, UsageError for options that cannot
    work, MissingError for a backend that is not there.
    """
    checkpoint = Checkpoint.open(Path(model), ARCHITECTURES)
    chosen = presets.choose(checkpoint.config, options.preset)
    backend = choose_backend(options.backend, options.executor) if options.compress else NATIVE
    settings = Settings(
        output=Path(output),
        name=options.name if options.name is not None else model_name(Path(model)),
        backend=backend,
        processes=options.processes,
        overwrite=options.overwrite,
        resume=options.resume,
        verify=options.verify,
        max_file_size=options.max_file_size,
    )
    settings.check()
    output_options = Options(
        max_ratio=chosen.max_ratio if options.max_ratio is None else options.max_ratio,
        keep=tuple(dict.fromkeys([*chosen.keep, *options.keep])),
        target=options.target,
        preset=chosen.name,
        compress=options.compress,
        backend=backend.name,
    )
    return Understood(checkpoint, _plans(checkpoint, options.tp, output_options, chosen), settings)


def prepare(
    model: str | os.PathLike[str], output: str | os.PathLike[str], options: CompressOptions, progress: Progress
) -> Prepared:
    """Everything that `compress` does before its work, which writes nothing; raises as `compress` does."""
    understood = understand(model, output, options)
    return conversion_prepare(understood.checkpoint, understood.plans, understood.settings, progress)


def _plans(checkpoint: Checkpoint, sizes: Sequence[int], options: Options, preset: Preset) -> list[Plan]:
    plans: list[Plan] = []
    problems: list[Problem] = []
    for size in sizes:
        try:
            plans.append(make_plan(checkpoint, size, options))
        except InputError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    refuse(problems)
    names = [names_of(item.module) for item in plans[0].modules if item.module.kind == "linear"]
    for pattern in options.keep:
        if not is_utf8(pattern):
            raise UsageError(f"the pattern {pattern} is not UTF-8")
        if pattern not in preset.keep and not any(matches(pattern, layer_names) for layer_names in names):
            raise UsageError(f"the pattern {pattern} fits no layer", remedy="see the layers' names with w8a8sc inspect")
    differing = deviations(preset, checkpoint)
    return [msgspec.structs.replace(item, warnings=(*item.warnings, *differing)) for item in plans]


@shows_keywords
def compress(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str] = ".",
    *,
    progress: Progress | None = None,
    **options: Unpack[CompressKeywords],
) -> list[Compressed]:
    """Compress a W8A8S checkpoint for each tensor-parallel size into a sealed directory below `output`.

    tp: one size or several. name: of the model in the output's folder names, from the checkpoint's folder by default.
    processes: worker processes, as many as cores and memory allow by default. preset: auto, none, a shipped preset's
    name or a file; it gives defaults for max_ratio (a layer that compresses to this fraction or more stays W8A8S) and
    adds to keep (a pattern, or several, of layers to leave uncompressed). target: the vLLM Ascend release of the keys
    that are written. compress: False for an uncompressed W8A8S directory. backend, executor: who compresses, see
    backends.msmodelslim.choose. max_file_size: bytes, or text such as 5GB: a rank that may get larger is spread over
    several files; None for 1 GiB, or as many files as what is there already has. resume: go on with what an interrupted
    run left. verify: read everything back and check it before it is put in place.

    The checkpoint is read, and every tile encoded, once for all sizes together. Raises InputError, with all problems in
    one report, before anything is written; WorkError if the work fails, which leaves a `.partial` folder to go on with.
    A directory that holds this result already is reported, not made again.
    """
    return carry_out(model, output, CompressOptions.of(options), progress or Progress())


def carry_out(
    model: str | os.PathLike[str], output: str | os.PathLike[str], options: CompressOptions, progress: Progress
) -> list[Compressed]:
    """`compress`, with its options in one piece."""
    return convert(prepare(model, output, options, progress), progress)
