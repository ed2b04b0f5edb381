"""Many conversions in one run, described in a file: all checked first, then one after the other, or handed to Ray."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, cast, get_type_hints

import msgspec

from ..conversion.convert import Compressed
from ..errors import InputError, Problem, UsageError, W8A8SCError, refuse
from ..hub.cached import locate_name
from ..hub.names import Hub, HubName
from ..io import reading
from ..io.documents import parse_yaml, read_small
from ..options import CompressKeywords, CompressOptions
from ..planning.preset import shipped_file
from ..sharded_state import check_access
from ..text import is_utf8
from ..workers.progress import Part, Progress, working
from .compress import carry_out as compress_with
from .compress import understand

Engine = Literal["local", "ray"]

_LARGEST: Final = 64 << 10  # bytes; YAML is slow to parse
_PRESET_FILE: Final = re.compile(r"/|\.ya?ml$")
_VARIABLE: Final = re.compile(r"\$(\w+|\{[^}]*\})")


# All workers are alike to a batch, which says once how many there are.
KEYS: Final = tuple(option.name for option in fields(CompressOptions) if option.name != "processes")
_DEFAULTS: Final = {option.name: option.default for option in fields(CompressOptions)}
_TYPES: Final = get_type_hints(CompressKeywords)
_Keys: Any = msgspec.defstruct(
    "Job",
    [("model", str), ("output", str | None, None), *((name, _TYPES[name], _DEFAULTS[name]) for name in KEYS)],
    frozen=True,
    forbid_unknown_fields=True,
)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a batch file holds."""

    jobs: list[_Keys]
    output: str = "."
    processes: int | None = None
    stop_on_failure: bool = False


class Job(msgspec.Struct, frozen=True):
    """One conversion: its checkpoint, the folder below which it writes, and the options of `compress` in KEYS.

    model: as a file is read a path or the name of a model on a hub; `run_batch` makes a path of the latter.
    """

    model: str
    output: str
    keywords: dict[str, Any]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The tensor-parallel sizes as they were given."""
        tp = self.keywords["tp"]
        return (tp,) if isinstance(tp, int) else tuple(tp)

    def options(self, processes: int | None) -> CompressOptions:
        """What `compress` is asked for; raises UsageError if it cannot be."""
        return CompressOptions.of(cast("CompressKeywords", {**self.keywords, "processes": processes}))


@dataclass(frozen=True)
class Batch:
    """What a batch file asks for, with whole paths. processes: workers of each conversion."""

    jobs: list[Job]
    processes: int | None
    stop_on_failure: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a job: made, already done, failed, or not begun after a failure."""

    model: str
    tp: tuple[int, ...]
    state: Literal["made", "done", "failed", "skipped"]
    error: str = ""
    directories: tuple[str, ...] = ()
    output_bytes: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.state in ("made", "done")

    @property
    def exit_code(self) -> int:
        """The command's."""
        return 0 if self.ok else 1

    def document(self) -> dict[str, Any]:
        """One of those that --json prints: docs/json.md."""
        return {
            "model": self.model,
            "tensor_parallel_sizes": list(self.tp),
            "state": self.state,
            "error": self.error or None,
            "directories": list(self.directories),
            "output_bytes": self.output_bytes,
            "seconds": round(self.seconds, 3),
        }


def load(path: Path) -> Batch:
    """Read a batch file; environment variables and ~ in paths are replaced, relative paths are relative to the file.

    Raises InputError for anything that is not one.
    """
    content = parse_yaml(read_small(path, _LARGEST), str(path))
    try:
        file = msgspec.convert(content, _File)
    except (msgspec.ValidationError, RecursionError) as error:
        remedy = f"{shipped_file('batch.yaml')} explains the keys"
        raise InputError(f"not a batch file ({error})", str(path), remedy) from None
    if not file.jobs:
        raise InputError("it names no jobs", str(path))
    if file.processes is not None and file.processes < 1:
        raise InputError("processes is not positive", str(path))
    output = _path(file.output, path)
    return Batch([_job(keys, output, path) for keys in file.jobs], file.processes, file.stop_on_failure)


def _job(keys: Any, output: str, path: Path) -> Job:
    """A job with whole paths. keys: a _Keys. output: where it writes if it does not say."""
    keywords = {name: getattr(keys, name) for name in KEYS}
    if _PRESET_FILE.search(keys.preset):
        keywords["preset"] = _path(keys.preset, path)
    return Job(_model(keys.model, path), output if keys.output is None else _path(keys.output, path), keywords)


def _model(text: str, file: Path) -> str:
    """A path, unless nothing is there and a hub could have a model of that name."""
    path = _path(text, file)
    return path if reading.link_status(Path(path)) is not None or HubName.parse(text) is None else text


def _path(text: str, file: Path) -> str:
    unset = [name for name in _VARIABLE.findall(text) if name.strip("{}") not in os.environ]
    if unset:
        raise InputError(f"the environment variable {unset[0].strip('{}')} is not set", str(file))
    path = str(reading.absolute(file).parent / reading.home_expanded(Path(os.path.expandvars(text))))
    if not is_utf8(path):
        raise InputError("the path is not UTF-8", f"{file} ({path})", "rename the folder, or use w8a8sc compress")
    return path


def run_batch(
    path: str | os.PathLike[str],
    *,
    engine: Engine = "local",
    address: str | None = None,
    processes: int | None = None,
    hub: Hub | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Check all jobs of a batch file, then carry them out; an outcome for each, in their order.

    A job that fails does not stop the others, unless the file says so. engine: "ray" hands each job to a Ray cluster
    whose nodes see the same files under the same paths; address: of the cluster. hub, download: as in `locate`, for
    models that are named as hubs name them. Raises InputError, with all problems of all jobs, before anything is made.
    """
    progress = progress or Progress()
    batch = load(Path(path))
    if processes is not None:
        batch = replace(batch, processes=processes)
    batch = replace(batch, jobs=_located(batch.jobs, hub, download, progress))
    total, copied = _check(batch, Path(path))
    if engine == "ray":
        from .batch_ray import run_on_ray

        return run_on_ray(batch, address, total, progress)
    if engine != "local":
        raise UsageError(f"there is no engine {engine!r}", remedy="engines: local, ray")
    outcomes: list[Outcome] = []
    label = f"{len(batch.jobs)} jobs"
    with working(progress, label, sum(total), copied):
        for job, nbytes in zip(batch.jobs, total):
            progress.stage(label)
            if batch.stop_on_failure and any(not outcome.ok for outcome in outcomes):
                outcomes.append(Outcome(job.model, job.sizes, "skipped"))
                continue
            which = f"job {len(outcomes) + 1} of {len(batch.jobs)}"
            progress.note(f"{which}: {job.model}")
            with Part(progress, nbytes) as part:
                outcomes.append(carry_out(job, batch.processes, part))
            if not outcomes[-1].ok:
                progress.note(f"{which} failed: {outcomes[-1].error}")
    return outcomes


def _located(jobs: Sequence[Job], hub: Hub | None, download: bool, progress: Progress) -> list[Job]:
    """The jobs with the folders of models that are named; raises InputError with the problems of all."""
    problems: list[Problem] = []
    located = []
    for number, job in enumerate(jobs, 1):
        try:
            if name := HubName.parse(job.model):
                folder = locate_name(name, hub=hub, download=download, progress=progress)
                job = msgspec.structs.replace(job, model=str(folder))
            located.append(job)
        except InputError as error:
            problems += [Problem(f"job {number}: {p.message}", p.where, p.remedy) for p in error.problems]
    refuse(problems)
    return located


def _check(batch: Batch, path: Path) -> tuple[list[int], int]:
    """Plan every job, looking at nothing of its output yet: the bytes that each will read, and those only copied.

    Raises InputError with the problems of all.
    """
    problems: list[Problem] = []
    total: list[int] = []
    compressed = 0
    for number, job in enumerate(batch.jobs, 1):
        try:
            plan = understand(job.model, job.output, job.options(batch.processes)).plans[0]
            total.append(plan.source_bytes)
            compressed += sum(item.source_bytes for item in plan.modules if item.compress)
        except W8A8SCError as error:
            problems += [Problem(f"job {number}: {p.message}", p.where or str(path), p.remedy) for p in error.problems]
    problems += _targets_in_the_way(batch, path)
    if problems:
        raise InputError(problems)
    return total, sum(total) - compressed


def _targets_in_the_way(batch: Batch, path: Path) -> Iterator[Problem]:
    """Jobs that would make the same directory, or one where this user may make none."""
    seen: dict[Path, int] = {}
    for number, job in enumerate(batch.jobs, 1):
        try:
            for target in _targets(job):
                if target in seen:
                    yield Problem(f"jobs {seen[target]} and {number} make the same {target}", str(path))
                elif job.keywords["overwrite"] or not reading.is_folder(
                    target
                ):  # one that is there may be the result already
                    check_access(target)
                seen.setdefault(target, number)
        except InputError as error:
            yield from (Problem(f"job {number}: {p.message}", p.where, p.remedy) for p in error.problems)


def _targets(job: Job) -> list[Path]:
    from ..conversion.preparation import target_folder
    from .compress import model_name

    kind = "w8a8sc" if job.keywords["compress"] else "w8a8s"
    name = job.keywords["name"] or model_name(Path(job.model))
    return [target_folder(Path(job.output), name, tp, kind) for tp in job.sizes]


def carry_out(job: Job, processes: int | None, progress: Progress) -> Outcome:
    """Do one job; a failure is an outcome too."""
    sizes = job.sizes
    try:
        results = compress_with(job.model, job.output, job.options(processes), progress)
    except W8A8SCError as error:
        return Outcome(job.model, sizes, "failed", str(error))
    return _outcome(job, results)


def _outcome(job: Job, results: Sequence[Compressed]) -> Outcome:
    new = [result for result in results if not result.already_done]
    return Outcome(
        *(job.model, job.sizes, "made" if new else "done"),
        directories=tuple(str(result.directory) for result in results),
        output_bytes=sum(result.output_bytes for result in results),
        seconds=max((result.seconds for result in new), default=0.0),
    )
