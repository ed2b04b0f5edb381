"""Verification: is a directory whole, is it what its manifest says, and does it hold the source's weights?"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from ..checkpoint import Checkpoint, Description, ModelConfig
from ..checkpoint.beside import is_hidden, is_pointer_file
from ..errors import AccessError, InputError
from ..io import hashing, lfs, reading
from ..io.folders import is_foreign_link
from ..io.safetensors import StoredTensor, TensorFile
from ..layouts import (
    ARCHITECTURES,
    COMPRESSED,
    DEFAULT_TARGET,
    TARGETS,
    UNCOMPRESSED,
    Module,
    Target,
    check_size,
    modules,
    wanted_tensors,
)
from ..planning import Options, Plan, make_plan, side_files
from ..sharded_state import Manifest, ShardedState
from ..sharded_state import manifest as manifest_file
from ..sharded_state.directory import contents
from ..workers.machine import default_processes
from ..workers.pool import Pool
from ..workers.progress import Progress, working
from ..workers.tasks import Task, run_all
from .findings import Finding

_HANDLER: Final = "w8a8sc_tool.checking.verify_worker:Verifier"
_DESCRIPTION = "quant_model_description.json"

# What no check of a directory without a manifest can show: the format has no redundancy there (docs/format.md).
_WITHOUT_MANIFEST = (
    "there is no manifest (w8a8sc_manifest.json), so bytes cannot be compared with what was written: changes in "
    "uncompressed tensors and in bypass tiles, and some in coded tiles, cannot be found",
    "the tensor-parallel size is taken from the rank files: a directory that lost its last ranks looks complete "
    "if the shapes agree",
)

NOT_READ = "the contents of tensors and side files (quick=True)"


@dataclass
class Report:
    """The outcome of a verification: `findings` is empty if all is well.

    contents_read: whether it was looked at what is in tensors and side files.
    """

    directory: Path
    tp: int
    has_manifest: bool
    findings: list[Finding] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    tensors: int = 0
    bytes: int = 0
    compressed_weights: int = 0
    against_source: Path | None = None
    contents_read: bool = False

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def exit_code(self) -> int:
        """The command's."""
        return 0 if self.ok else 1

    def document(self) -> dict[str, Any]:
        """What --json prints: docs/json.md."""
        return {
            "directory": str(self.directory),
            "ok": self.ok,
            "tensor_parallel_size": self.tp,
            "manifest": self.has_manifest,
            "source": str(self.against_source) if self.against_source else None,
            "tensors": self.tensors,
            "bytes": self.bytes,
            "compressed_weights": self.compressed_weights,
            "findings": [{"message": finding.message, "where": finding.where} for finding in self.findings],
            "not_checked": self.not_checked,
        }


def verify(
    directory: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    quick: bool = False,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check a sharded_state directory; nothing is written.

    quick: sizes and structure only. source: also compare every tensor with what this W8A8S checkpoint becomes. Without
    a manifest the directory is checked as far as the format allows; the report says what that leaves open.
    Raises InputError if the directory or the source cannot be opened as such; what is wrong inside is in the report.
    """
    checkpoint = Checkpoint.open(Path(source), ARCHITECTURES) if source is not None else None
    return verify_opened(Path(directory), checkpoint, quick=quick, processes=processes, progress=progress)


def verify_opened(
    folder: Path,
    checkpoint: Checkpoint | None,
    read: Set[tuple[str, str]] = frozenset(),
    *,
    quick: bool,
    processes: int | None,
    progress: Progress | None,
) -> Report:
    """`verify` with a source that is open, but for the tensors in `read`: names of their files and theirs."""
    findings: list[Finding] = []
    try:
        state = ShardedState.open(folder)
    except AccessError:
        raise
    except InputError as error:
        if not reading.is_folder(folder) or not reading.exists(folder / manifest_file.NAME):
            raise
        wrong = [Finding(problem.message, problem.where) for problem in error.problems]
        return Report(folder, 0, True, wrong, ["nothing else: the manifest cannot be trusted"])
    with state:
        report = Report(folder, state.tp, state.manifest is not None)
        findings += [Finding(problem.message, problem.where) for problem in state.problems]
        findings += _refused_by_library(state)
        ranks = _places(state, findings)
        if state.manifest is not None:
            findings += _check_files(state, state.manifest, hash_files=not quick)
        else:
            report.not_checked += _WITHOUT_MANIFEST
        description = _check_structure(state, ranks, findings)
        report.tensors = sum(len(rank) for rank in ranks)
        report.bytes = sum(tensor.info.nbytes for rank in ranks for tensor in rank.values())
        report.compressed_weights = sum(name.endswith(".index") for rank in ranks for name in rank)
        if quick:
            report.not_checked.append(NOT_READ)
        else:
            report.contents_read = True
            unread = [{n: t for n, t in rank.items() if (Path(t.path).name, n) not in read} for rank in ranks]
            work = _tensor_tasks(unread, decode=checkpoint is None, canonical=state.manifest is None)
            if checkpoint is not None:
                report.against_source = checkpoint.path
                work += _source_tasks(checkpoint, state, description, ranks, findings)
            findings += _run(work, processes or default_processes(), progress or Progress())
    report.findings = list(dict.fromkeys(findings))
    return report


def refuse_broken(
    directory: str | os.PathLike[str],
    *,
    quick: bool = True,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Verify a directory that is to be used, its sizes and structure only if `quick`.

    Raises InputError with the first finding, and how to see all.
    """
    folder = Path(directory)
    report = verify(folder, quick=quick, processes=processes, progress=progress)
    _refuse(report.findings, folder)
    return report


def refuse_broken_ranks(directory: str | os.PathLike[str]) -> int:
    """The tensor-parallel size of a directory of which the ranks' tensors alone are to be used, with their config.

    Raises InputError unless their files are those of the manifest, by name, size and header, and hold the tensors of
    the model. Side files may be missing or added.
    """
    folder = Path(directory)
    findings: list[Finding] = []
    with ShardedState.open(folder) as state:
        state.check_files()
        _check_structure(state, _places(state, findings), findings)
        _refuse(findings, folder)
        return state.tp


def _refuse(findings: list[Finding], folder: Path) -> None:
    if findings:
        first, count = findings[0], len(findings)
        message = first.message if count == 1 else f"{count} findings, first: {first.message}"
        raise InputError(message, first.where, f"see w8a8sc verify {folder}")


def _refused_by_library(state: ShardedState) -> Iterator[Finding]:
    """What the safetensors library, with which vLLM reads the files, says against them."""
    for file in (file for files in state.ranks.values() for file in files):
        try:
            with safe_open(str(file.path), framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            yield Finding(f"the safetensors library refuses the file ({error})", str(file.path))


def _places(state: ShardedState, findings: list[Finding]) -> list[dict[str, StoredTensor]]:
    """The tensors of each rank by name, with the hashes they should have."""
    hashes: dict[tuple[str, str], str] = {}
    if state.manifest is not None:
        hashes = {(f.file, t.name): t.hash for f in state.manifest.rank_files for t in f.tensors}
    for rank in sorted(set(range(state.tp)) - set(state.ranks)):
        findings.append(Finding(f"there is no file of rank {rank}", str(state.path)))
    for rank in sorted(set(state.ranks) - set(range(state.tp))):
        findings.append(Finding(f"rank {rank} does not exist at tensor-parallel size {state.tp}", str(state.path)))
    ranks: list[dict[str, StoredTensor]] = []
    for rank in range(state.tp):
        tensors: dict[str, StoredTensor] = {}
        for file in state.ranks.get(rank, []):
            for name, info in file.tensors.items():
                if name in tensors:
                    findings.append(Finding(f"{name} is in two parts", f"{tensors[name].path} and {file.path}"))
                tensors[name] = StoredTensor(str(file.path), info, hashes.get((file.path.name, name)))
        ranks.append(tensors)
    return ranks


def _check_files(  # noqa: C901, PLR0912 - one check after the other, each with its finding
    state: ShardedState, manifest: Manifest, *, hash_files: bool
) -> Iterator[Finding]:
    """The directory's files against its manifest: names, sizes, headers, and side files whole."""
    sizes = manifest.sizes
    present = contents(state.path)
    for name in sorted(set(sizes) - set(present)):
        yield Finding("the file is missing", str(state.path / name))
    for name in sorted(set(present) - set(sizes) - {manifest_file.NAME}):
        if is_hidden(name.partition("/")[0]):  # downloads leave such, and vLLM does not see them
            continue
        yield Finding("the file does not belong to the sealed directory", str(present[name]))
    opened = {file.path.name: file for files in state.ranks.values() for file in files}
    for sealed in manifest.rank_files:
        file = opened.get(sealed.file)
        if file is None:
            continue
        listed = {(t.name, t.dtype, tuple(t.shape), t.begin, t.end) for t in sealed.tensors}
        actual = {(t.name, t.dtype, t.shape, t.begin, t.end) for t in file.tensors.values()}
        if file.size != sealed.size:
            yield Finding(f"the file has {file.size} bytes, the manifest lists {sealed.size}", str(file.path))
        if file.header_bytes != sealed.header_bytes or listed != actual or _header_hash(file) != sealed.header_hash:
            yield Finding("its header is not the one the manifest lists", str(file.path))
    for entry in manifest.files:
        path = present.get(entry.file)
        if path is None:
            continue
        there = None if is_foreign_link(path) else reading.status(path)
        if there is None or not stat.S_ISREG(there.st_mode):
            yield Finding("not a regular file", str(path))
        elif there.st_size != entry.size and is_pointer_file(path):
            yield Finding(lfs.WHAT, str(path))
        elif there.st_size != entry.size:
            yield Finding(f"the file has {there.st_size} bytes, the manifest lists {entry.size}", str(path))
        elif hash_files and hashing.of_file(path) != (entry.size, entry.hash):
            yield Finding("its bytes are not those that the manifest lists (hash differs)", str(path))


def _header_hash(file: Any) -> str:
    return hashing.of_bytes((file.header_bytes - 8).to_bytes(8, "little") + file.header)


def _check_structure(
    state: ShardedState, ranks: list[dict[str, StoredTensor]], findings: list[Finding]
) -> Description | None:
    """Keys, dtypes and shapes of every rank against the layout of the model in config.json; the description."""
    try:
        config = ModelConfig.parse(state.path / "config.json", ARCHITECTURES)
        description = Description.parse(state.path / _DESCRIPTION)
        problems = check_size(config, state.tp) if state.tp else []
        planned_modules: list[Module] = []
        if not problems and state.tp:
            planned_modules, problems = modules(config, description, state.tp, target_of(state))
    except InputError as error:
        problems = error.problems
        findings += [Finding(problem.message, problem.where) for problem in problems]
        return None
    findings += [Finding(problem.message, problem.where) for problem in problems]
    findings += [
        Finding(f"{key} would take the place of {_DESCRIPTION} in vLLM", str(config.path))
        for key in config.replaces_description
    ]
    if problems:
        return description
    for rank, tensors in enumerate(ranks):
        if state.ranks.get(rank):
            findings += _check_rank(planned_modules, description, tensors, _where(state, rank))
            findings += _check_infos(planned_modules, description, state.ranks[rank])
    if state.manifest is not None:
        findings += _check_layers(planned_modules, config, description, state.manifest, state.path / manifest_file.NAME)
    return description


def target_of(state: ShardedState) -> Target:
    """The vLLM Ascend release a directory was made for: what its manifest says, else what its keys look like."""
    recorded = state.manifest.options.get("target") if state.manifest is not None else None
    for target in TARGETS:
        if recorded == target:
            return target
    try:
        config = ModelConfig.parse(state.path / "config.json", ARCHITECTURES)
        description = Description.parse(state.path / _DESCRIPTION)
    except InputError:
        return DEFAULT_TARGET
    if not state.tp or check_size(config, state.tp):
        return DEFAULT_TARGET
    stored = {(name, info.dtype) for file in state.ranks.get(0, []) for name, info in file.tensors.items()}
    return min(TARGETS, key=lambda target: len(wanted_tensors(config, description, state.tp, target) ^ stored))


def is_compressed(module: Module, description: Description) -> bool:
    """Whether a description gives a layer's weight as compressed."""
    return module.kind == "linear" and description.type_of(module.members[0].name) in UNCOMPRESSED


def _where(state: ShardedState, rank: int) -> str:
    """The file of a rank, or what its files have in common."""
    files = state.ranks[rank]
    return str(files[0].path if len(files) == 1 else state.path / f"model-rank-{rank}-part-*.safetensors")


def _check_rank(
    planned_modules: list[Module], description: Description, tensors: dict[str, StoredTensor], where: str
) -> Iterator[Finding]:
    """where: the rank, for what is missing."""
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {}
    weights: dict[str, int] = {}
    for module in planned_modules:
        for output in module.outputs:
            wanted[output.name] = (output.dtype, output.shape)
        if is_compressed(module, description):
            tiles = -(-module.n // 128) * -(-module.row_bytes // 256)
            wanted[f"{module.name}.index"] = ("I8", (8 * tiles,))
            wanted[f"{module.name}.info"] = ("I64", (5,))
            weights[module.weight.name] = module.n * module.row_bytes
    for name in sorted(set(wanted) - set(tensors)):
        yield Finding(f"{name} is missing", where)
    for name in sorted(set(tensors) - set(wanted)):
        yield Finding(f"{name} does not belong to this model", tensors[name].path)
    for name in sorted(set(wanted) & set(tensors)):
        info, where = tensors[name].info, tensors[name].path
        dtype, shape = wanted[name]
        if name in weights:
            if info.dtype != "I8" or len(info.shape) != 1 or not 0 < info.nbytes <= weights[name]:
                yield Finding(
                    f"{name} is {info.dtype} {list(info.shape)}, not I8 [c] with c from 1 to {weights[name]}", where
                )
        elif (info.dtype, info.shape) != (dtype, shape):
            yield Finding(f"{name} is {info.dtype} {list(info.shape)}, not {dtype} {list(shape)}", where)


def _check_infos(planned_modules: list[Module], description: Description, files: list[TensorFile]) -> Iterator[Finding]:
    """The sizes that compressed weights claim: the number of tiles leaves open where a matrix ends in its last ones."""
    for module in planned_modules:
        if not is_compressed(module, description):
            continue
        name = f"{module.name}.info"
        file = next((file for file in files if name in file.tensors), None)
        if file is None or (file.tensors[name].dtype, file.tensors[name].shape) != ("I64", (5,)):
            continue  # the structure says so
        k, n = (int(size) for size in file.read(name)[2:4])
        if (n, k) != (module.n, module.row_bytes):
            yield Finding(f"info says k = {k}, n = {n}, not {module.row_bytes} and {module.n}", f"{file.path} ({name})")


def _check_layers(
    planned_modules: list[Module], config: ModelConfig, description: Description, manifest: Manifest, path: Path
) -> Iterator[Finding]:
    """The manifest's layers against those of the model."""
    if manifest.architecture != config.architecture:
        yield Finding(f"architecture is {manifest.architecture}, in config.json {config.architecture}", str(path))
    listed = {layer.name: (layer.n, layer.k, layer.quantization) for layer in manifest.layers}
    wanted = {
        module.name: (module.n, module.k, description.type_of(module.members[0].name))
        for module in planned_modules
        if module.kind == "linear"
    }
    for name in sorted({*listed, *wanted}):
        if listed.get(name) != wanted.get(name):
            is_listed, is_wanted = (_size_and_type(layers.get(name)) for layers in (listed, wanted))
            yield Finding(f"layer {name} is {is_listed}, in the model {is_wanted}", str(path))
    others = {
        output.name: module.quantization
        for module in planned_modules
        if module.kind != "linear"
        for output in module.outputs
    }
    for file in manifest.rank_files:
        for tensor in file.tensors:
            if tensor.quantization != others.get(tensor.name, tensor.quantization):
                message = f"{tensor.name} is {tensor.quantization}, in the model {others[tensor.name]}"
                yield Finding(message, str(path))


def _size_and_type(layer: tuple[int, int, str | None] | None) -> str:
    return f"{layer[2]} {layer[0]} by {layer[1]}" if layer else "absent"


def _tensor_tasks(ranks: list[dict[str, StoredTensor]], *, decode: bool, canonical: bool) -> list[Task]:
    """One task per module and rank: hash its tensors and decode its weight."""
    tasks: list[Task] = []
    for tensors in ranks:
        by_module: dict[str, list[StoredTensor]] = {}
        for name, tensor in tensors.items():
            by_module.setdefault(name.rpartition(".")[0], []).append(tensor)
        for module, group in by_module.items():
            size = sum(tensor.info.nbytes for tensor in group)
            tasks.append(Task(f"{module} in {group[0].path}", "check", (group, decode, canonical), size))
    return tasks


def _source_tasks(
    checkpoint: Checkpoint,
    state: ShardedState,
    description: Description | None,
    ranks: list[dict[str, StoredTensor]],
    findings: list[Finding],
) -> list[Task]:
    """One task per module: compare it on all ranks with what the source becomes."""
    if description is None or not state.tp:
        return []
    plan = make_plan(checkpoint, state.tp, Options(target=target_of(state)))
    findings += _compare_side_files(checkpoint, state, description, plan)
    return [
        Task(
            planned.module.name,
            "compare",
            (planned, _of_module(ranks, planned.module), is_compressed(planned.module, description)),
            planned.source_bytes,
        )
        for planned in plan.modules
    ]


def _of_module(ranks: list[dict[str, StoredTensor]], module: Module) -> list[dict[str, StoredTensor]]:
    names = [output.name for output in module.outputs] + [f"{module.name}.index", f"{module.name}.info"]
    return [{name: tensors[name] for name in names if name in tensors} for tensors in ranks]


def _compare_side_files(
    checkpoint: Checkpoint, state: ShardedState, description: Description, plan: Plan
) -> Iterator[Finding]:
    """config.json and the description against the source's; other side files are the manifest's business."""
    config = state.path / "config.json"
    expected = hashing.of_bytes(side_files.config_json(checkpoint))
    if state.manifest is not None and hashing.of_file(config)[1] != expected:
        yield Finding("it is not the source's config.json", str(config))
    for item in plan.modules:
        if is_compressed(item.module, description) and not item.compress:
            yield Finding(f"{item.module.name} is compressed, but its source cannot be", str(description.path))
    for name, kind in checkpoint.description.of(plan.used).types.items():
        described = description.types.get(name)
        if described != kind and described != COMPRESSED.get(kind):
            yield Finding(f"{name} is described as {described}, in the source as {kind}", str(description.path))


def _run(tasks: list[Task], processes: int, progress: Progress) -> list[Finding]:
    """Carry out all tasks; the findings in the order of the tasks, whoever was faster."""
    findings: dict[int, list[Finding]] = {}
    if not tasks:
        return []
    with (
        working(progress, "verifying", sum(task.nbytes for task in tasks)),
        Pool(min(processes, len(tasks)), _HANDLER, preload=True) as pool,
    ):
        for number, result in run_all(pool, tasks):
            findings[number] = result
            progress.advance(tasks[number].nbytes)
    return [finding for number in sorted(findings) for finding in findings[number]]
