"""`serve` and `fit`: what is there, looked at and handed to the room that knows vLLM."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..checking.verify import verify
from ..checkpoint import Checkpoint, ModelConfig
from ..conversion.convert import Compressed
from ..errors import InputError, MissingError, UsageError
from ..io.folders import is_sharded_state
from ..layouts import ARCHITECTURES, DEFAULT_TARGET, check_size
from ..planning import Options, make_plan
from ..planning import preset as presets
from ..serving import Command, Estimate, Service, build, container, estimate
from ..serving.command import DEVICES_VARIABLE, MOUNTS, capture_warning, parse_options, release_of
from ..serving.memory import CHIP_MEMORY
from ..sharded_state import ShardedState
from .compress import model_name

_OLDEST: Final = "0.18.0"  # assumed where no vLLM Ascend is installed
_SIZES: Final = (1, 2, 4, 8)


@dataclass
class Prepared:
    """A command ready to be started, and what the user should know first."""

    command: Command
    notes: list[str] = field(default_factory=list)


def vllm_ascend_version() -> str | None:
    """Of the installed package, None if there is none."""
    for name in ("vllm-ascend", "vllm_ascend"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def prepare(
    path: str | os.PathLike[str],
    more: Sequence[str] = (),
    *,
    in_container: bool = False,
    force: bool = False,
    environment: Mapping[str, str] | None = None,
    device_folder: Path = Path("/dev"),
) -> Prepared:
    """The command that serves a directory or a checkpoint; raises InputError for one that is broken.

    more: options for vLLM, which win; UsageError if they cannot work, unless `force`.
    """
    environment = os.environ if environment is None else environment
    version = vllm_ascend_version()
    service, notes = _service(Path(path), more, version or _OLDEST)
    if version is None:
        notes.append(f"no vLLM Ascend is installed here: {_OLDEST} is assumed")
    command = build(
        service, more, environment=environment, force=force, host="0.0.0.0" if in_container else "127.0.0.1"
    )
    warning = capture_warning(service, more)
    notes += [*command.warnings, *([warning] if warning and warning not in command.warnings else [])]
    if in_container:
        devices = _devices(device_folder, environment.get(DEVICES_VARIABLE), service.tp, notes)
        mounts = [mount for mount in MOUNTS if Path(mount).exists()] or list(MOUNTS)
        command = container(service, command, devices=devices, mounts=mounts)
    return Prepared(command, notes)


def _service(path: Path, more: Sequence[str], version: str) -> tuple[Service, list[str]]:
    if not path.is_dir():
        raise InputError("not a folder" if path.exists() else "no such folder", str(path))
    if not is_sharded_state(path):
        checkpoint = Checkpoint.open(path, ARCHITECTURES)
        tp = _wanted_tp(more)
        if problems := check_size(checkpoint.config, tp):
            raise InputError(problems)
        preset = presets.choose(checkpoint.config)
        name = model_name(path)
        return Service(path, "checkpoint", tp, name, checkpoint.config, preset, version), []
    report = verify(path, quick=True)
    if not report.ok:
        first = report.findings[0]
        raise InputError(
            f"{len(report.findings)} findings, first: {first.what}", first.where, f"see w8a8sc verify {path}"
        )
    notes = [f"not checked: {gap}" for gap in report.not_checked] if not report.has_manifest else []
    with ShardedState.open(path) as state:
        config = ModelConfig.parse(path / "config.json", ARCHITECTURES)
        name = state.manifest.model if state.manifest else path.resolve().name
        preset = presets.choose(config)
        return Service(path, "directory", state.tp, name, config, preset, version), notes


def _wanted_tp(more: Sequence[str]) -> int:
    """The size that a checkpoint is to be served with: vLLM cuts it when it loads."""
    values = parse_options(more).get("tensor-parallel-size", ["1"])
    if len(values) != 1 or not values[0].isdecimal() or int(values[0]) == 0:
        raise UsageError(f"--tensor-parallel-size {' '.join(values)} is no size")
    return int(values[0])


def _devices(folder: Path, chosen: str | None, tp: int, notes: list[str]) -> list[str]:
    """The chips to hand to a container: those chosen, else all of this machine."""
    if chosen:
        return [f"/dev/davinci{number.strip()}" for number in chosen.split(",") if number.strip()]
    found = sorted(folder.glob("davinci[0-9]*"), key=lambda path: int(path.name.removeprefix("davinci")))
    if found:
        return [f"/dev/{path.name}" for path in found]
    notes.append("there is no NPU here: the first chips and the guide's mounts are named")
    return [f"/dev/davinci{number}" for number in range(tp)]


def start(command: Command) -> None:
    """Become the command: its signals and its exit code are then vLLM's own. Raises MissingError without vLLM."""
    program = shutil.which(command.words[0])
    if program is None:
        raise MissingError(
            "vllm is not installed", remedy="serve on a host with vLLM Ascend; --print shows the command"
        )
    os.execve(program, command.words, dict(os.environ) | command.environment)


# ------------------------------------------------------------------------------------------------------ does it fit


def fit(
    path: str | os.PathLike[str],
    *,
    tp: int | None = None,
    chip_memory: int = CHIP_MEMORY,
    max_model_len: int | None = None,
    max_num_seqs: int | None = None,
    compressed_masks: bool = False,
) -> list[Estimate]:
    """Memory estimates for serving a checkpoint at every size that its layout allows, or a directory at its own.

    Raises InputError for what is neither, or a size that does not work.
    """
    folder = Path(path)
    release = release_of(vllm_ascend_version() or _OLDEST)
    copies = release is not None and release > (0, 18)
    made = []
    for size, config, weights in _weights(folder, tp):
        serving = presets.choose(config).serving(size)
        made.append(
            estimate(
                *(config, size, weights),
                chip=chip_memory,
                max_num_seqs=max_num_seqs or (serving.max_num_seqs if serving else 16),
                max_model_len=max_model_len,
                compressed_masks=compressed_masks,
                embedding_copies=copies,
            )
        )
    return made


def _weights(folder: Path, tp: int | None) -> list[tuple[int, ModelConfig, int]]:
    """Sizes, the model's config, and the bytes of a rank's tensors, a compressed weight at its full size."""
    if not folder.is_dir():
        raise InputError("not a folder" if folder.exists() else "no such folder", str(folder))
    if is_sharded_state(folder):
        return [_of_directory(folder, tp)]
    checkpoint = Checkpoint.open(folder, ARCHITECTURES)
    sizes = [tp] if tp is not None else [size for size in _SIZES if not check_size(checkpoint.config, size)]
    options = Options(compress=False)  # as large as what vLLM Ascend allocates for the compressed form
    return [(size, checkpoint.config, make_plan(checkpoint, size, options).estimated_rank_bytes) for size in sizes]


def _of_directory(folder: Path, tp: int | None) -> tuple[int, ModelConfig, int]:
    with ShardedState.open(folder) as state:
        if tp is not None and tp != state.tp:
            raise InputError(f"the directory is made for TP {state.tp}", str(folder), "give the checkpoint, or no --tp")
        total = 0
        for file in state.ranks.get(0, []):
            for name, info in file.tensors.items():
                module, _, leaf = name.rpartition(".")
                compressed = file.tensors.get(f"{module}.info") if leaf == "weight" else None
                if compressed is None:
                    total += info.nbytes
                else:
                    k, n = (int(value) for value in file.read(compressed.name)[2:4])
                    total += max(info.nbytes, n * k)
        return state.tp, ModelConfig.parse(folder / "config.json", ARCHITECTURES), total


def command_for(result: Compressed) -> Command:
    """The command that serves what a conversion made, on a host with the vLLM Ascend it was made for."""
    config = ModelConfig.parse(result.directory / "config.json", ARCHITECTURES)
    version = f"{result.manifest.options.get('target', DEFAULT_TARGET)}.0"
    preset = presets.choose(config)
    return build(Service(result.directory, "directory", result.tp, result.manifest.model, config, preset, version))
