"""`serve` and `fit`: what is there, looked at and handed to the room that knows vLLM."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .._version import VERSION
from ..checking.verify import refuse_broken, refuse_broken_ranks, target_of
from ..checkpoint import Checkpoint, Description, ModelConfig
from ..conversion.convert import Compressed
from ..errors import InputError, MissingError, UsageError
from ..io import reading
from ..io.folders import is_sharded_state
from ..io.names import given_name
from ..layouts import ARCHITECTURES, DEFAULT_TARGET, TARGETS, Target, check_size, same_tensors
from ..options import as_sizes
from ..planning import Options, make_plan
from ..planning import preset as presets
from ..serving import Command, Estimate, Service, build, container, cpu, estimate
from ..serving.chips import VARIABLE, needed, parse_chips
from ..serving.command import DEFAULT, MOUNTS, capture_warning
from ..serving.memory import CHIP_MEMORY, UTILIZATION
from ..serving.options import Options as VllmOptions
from ..serving.options import count_of, parse_options, share_of
from ..serving.packages import version_of
from ..serving.plugin import Plugin, find_plugin, python_for_cpu
from ..sharded_state import Manifest, ShardedState
from ..targets import target_of_version
from ..workers.machine import cores
from .compress import model_name

_SIZES: Final = (1, 2, 4, 8)


@dataclass
class Prepared:
    """A command ready to be started, and what the user should know first."""

    command: Command
    notes: list[str] = field(default_factory=list)


def prepare_serving(
    path: str | os.PathLike[str],
    more: Sequence[str] = (),
    *,
    in_container: bool = False,
    plugin_in_image: bool = False,
    force: bool = False,
    chip_memory: int = CHIP_MEMORY,
    compressed_masks: bool = False,
    environment: Mapping[str, str] | None = None,
    device_folder: Path = Path("/dev"),
) -> Prepared:
    """The command that serves a directory or a checkpoint; raises InputError for one that is broken.

    more: options for vLLM, which win; UsageError if they cannot work or do not fit, unless `force`. chip_memory, in
    bytes, and compressed_masks are as in `fit`. A container gets the image of the release that the directory was made
    for; plugin_in_image: our plugin for vLLM was added to it.
    """
    environment = os.environ if environment is None else environment
    given = parse_options(more)
    service, notes = _service(Path(path), given, in_container=in_container)
    plugin, plugin_notes = _plugin(service, environment, in_container=in_container, in_image=plugin_in_image)
    notes += [*plugin_notes, *_guesses(service, given)]
    memory = _memory(Path(path), service, given, chip_memory, compressed_masks)
    if plugin and memory.with_plugin is not None and given.get("load-format") != ["sharded_state"]:
        memory = memory.with_plugin
    service = dataclasses.replace(service, memory=memory, plugin=plugin)
    command = build(
        service, more, environment=environment, force=force, host="0.0.0.0" if in_container else "127.0.0.1"
    )
    warning = capture_warning(service, more)
    notes += [*command.warnings, *([warning] if warning and warning not in command.warnings else [])]
    if in_container:
        devices = _devices(device_folder, environment.get(VARIABLE), needed(service.tp, given) or service.tp, notes)
        mounts = [mount for mount in MOUNTS if reading.exists(Path(mount))] or list(MOUNTS)
        command = container(service, command, devices=devices, mounts=mounts)
    return Prepared(command, notes)


def prepare_for_cpu(
    path: str | os.PathLike[str],
    more: Sequence[str] = (),
    *,
    force: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Prepared:
    """The command that serves a directory or a checkpoint with vLLM's engine on this machine's processors.

    Raises as `prepare` does.
    """
    environment = os.environ if environment is None else environment
    service, _ = _service(Path(path), parse_options(more), in_container=True)
    python = python_for_cpu(environment)
    command = cpu.build_for_cpu(service, more, python=python, cores=cores(), force=force)
    missing = ["vLLM's CPU build is not found here: see w8a8sc doctor --for cpu"] if python is None else []
    return Prepared(command, [cpu.NOTE, *missing, *command.warnings])


def _plugin(
    service: Service, environment: Mapping[str, str], *, in_container: bool, in_image: bool
) -> tuple[bool, list[str]]:
    """Whether a directory is served through our plugin for vLLM, and what is lost if not."""
    if service.kind == "checkpoint":
        return False, []
    lost = "compressed weights take the memory of uncompressed ones, and vLLM does not check the files (docs/vllm.md)"
    if in_container:
        return in_image, [] if in_image else [f"the image is taken to have no plugin (plugin_in_image=True): {lost}"]
    plugin = find_plugin(environment)
    if not plugin.works:
        return False, [f"without the plugin for vLLM, since {plugin.problem}; {lost}"]
    return True, [] if plugin.version == VERSION else [_other_version(plugin)]


def _guesses(service: Service, given: VllmOptions) -> list[str]:
    """What the command says of a model that no preset knows, unless the user says it."""
    if service.preset.serving(service.tp) is not None:
        return []
    options = ("max-num-seqs", "max-model-len", "cudagraph-capture-sizes")
    guessed = [f"--{name}" for name in options if name not in given]
    return [f"no preset knows this model: {', '.join(guessed)} are a guess"] if guessed else []


def _other_version(plugin: Plugin) -> str:
    return f"the plugin behind vllm ({plugin.python}) is version {plugin.version}, this tool is {VERSION}"


def _service(path: Path, given: VllmOptions, *, in_container: bool) -> tuple[Service, list[str]]:
    """What is to be served, and what the user should know of it."""
    reading.check_folder(path)
    if not is_sharded_state(path):
        checkpoint = Checkpoint.open(path, ARCHITECTURES)
        tp = _wanted_tp(given)
        if problems := check_size(checkpoint.config, tp):
            raise InputError(problems)
        preset = presets.choose(checkpoint.config)
        version, notes = _release(TARGETS, in_container=in_container)
        notes += checkpoint.config.notes
        return Service(path, "checkpoint", tp, model_name(path), checkpoint.config, preset, version), notes
    report = refuse_broken(path)
    with ShardedState.open(path) as state:
        config = ModelConfig.parse(path / "config.json", ARCHITECTURES)
        name = state.manifest.model if state.manifest else given_name(path)
        description = Description.parse(path / "quant_model_description.json")
        targets = same_tensors(config, description, state.tp, target_of(state))
        version, notes = _release(targets, in_container=in_container)
        notes += config.notes
        notes += [f"not checked: {gap}" for gap in report.not_checked] if not report.has_manifest else []
        return Service(path, "directory", state.tp, name, config, presets.choose(config), version), notes


def _release(targets: Sequence[Target], *, in_container: bool) -> tuple[str, list[str]]:
    """The vLLM Ascend that will serve: the image's for a container, else what is installed here; and notes on it.

    targets: those that take the tensors.
    """
    wanted = f"{DEFAULT_TARGET if DEFAULT_TARGET in targets else targets[0]}.0"
    version = None if in_container else version_of("vllm-ascend")
    if version is None:
        return wanted, [] if in_container else [f"no vLLM Ascend is installed here: {wanted} is assumed"]
    target = target_of_version(version)
    if target is not None and target not in targets:
        return version, [
            f"its tensors are made for vLLM Ascend {' and '.join(targets)}; {version} is installed here and does not "
            f"load them: compress with target={target}"
        ]
    return version, []


def _memory(path: Path, service: Service, given: VllmOptions, chip_memory: int, compressed_masks: bool) -> Estimate:
    """The memory of a chip with the options that the user gives, for the longest sequence that fits."""
    ((_, config, weights, exact),) = _weights(path, [service.tp])
    return estimate(
        *(config, service.tp, weights),
        plugin_weights=exact,
        chip=chip_memory,
        max_num_seqs=count_of(given, "max-num-seqs") or service.serving.max_num_seqs,
        compressed_masks=compressed_masks,
        utilization=share_of(given, "gpu-memory-utilization") or UTILIZATION,
    )


def _wanted_tp(given: VllmOptions) -> int:
    """The size that a checkpoint is to be served with: vLLM cuts it when it loads."""
    if "tensor-parallel-size" not in given:
        return 1
    size = count_of(given, "tensor-parallel-size")
    if size is None:
        raise UsageError(f"vLLM's --tensor-parallel-size {' '.join(given['tensor-parallel-size'])} is no size")
    return size


def _devices(folder: Path, chosen: str | None, count: int, notes: list[str]) -> list[str]:
    """The chips to hand to a container: those chosen, else all of this machine."""
    if chosen is not None:
        return [f"/dev/davinci{number}" for number in parse_chips(chosen)]
    chips = sorted(reading.matching(folder, "davinci[0-9]*"), key=lambda path: int(path.name.removeprefix("davinci")))
    if chips:
        return [f"/dev/{path.name}" for path in chips]
    notes.append("there is no NPU here: the first chips and the guide's mounts are named")
    return [f"/dev/davinci{number}" for number in range(count)]


def start_serving(command: Command) -> None:
    """Become the command: its signals and its exit code are then vLLM's own. Raises MissingError without vLLM."""
    program = shutil.which(command.words[0])
    if program is None:
        raise MissingError(
            "vllm is not installed", remedy="serve on a host with vLLM Ascend; w8a8sc serve --print shows the command"
        )
    os.execve(program, command.words, dict(os.environ) | command.environment)


# ------------------------------------------------------------------------------------------------------ does it fit


def fit(
    path: str | os.PathLike[str],
    *,
    tp: int | Sequence[int] | None = None,
    chip_memory: int = CHIP_MEMORY,
    max_model_len: int | None = None,
    max_num_seqs: int | None = None,
    compressed_masks: bool = False,
) -> list[Estimate]:
    """Memory estimates for serving a checkpoint or a directory, one per tensor-parallel size.

    tp: sizes, by default every one of 1, 2, 4 and 8 that a checkpoint's layout allows, or a directory's own; a
    directory has no other. chip_memory is in bytes. Raises InputError for what is neither, or a size that does not
    work.
    """
    sizes = None if tp is None else as_sizes(tp)
    made = []
    for size, config, weights, exact in _weights(Path(path), sizes):
        serving = presets.choose(config).serving(size)
        made.append(
            estimate(
                *(config, size, weights),
                plugin_weights=exact,
                chip=chip_memory,
                max_num_seqs=max_num_seqs or (serving or DEFAULT).max_num_seqs,
                guessed=max_num_seqs is None and serving is None,
                max_model_len=max_model_len,
                compressed_masks=compressed_masks,
            )
        )
    return made


def _weights(folder: Path, wanted: Sequence[int] | None) -> list[tuple[int, ModelConfig, int, int | None]]:
    """Sizes, the model's config, and the bytes of a rank's tensors: a compressed weight at its full size, and as it is.

    The last is None for a checkpoint: only compressing it tells.
    """
    reading.check_folder(folder)
    if is_sharded_state(folder):
        return [_of_directory(folder, wanted)]
    checkpoint = Checkpoint.open(folder, ARCHITECTURES)
    if wanted is None:
        wanted = [size for size in _SIZES if not check_size(checkpoint.config, size)]
    if len(set(wanted)) != len(wanted) or not wanted:
        raise UsageError("tensor-parallel sizes must be given, each once")
    options = Options(compress=False)  # as large as what vLLM Ascend allocates for the compressed form
    plans = {size: make_plan(checkpoint, size, options) for size in wanted}
    return [(size, checkpoint.config, plan.estimated_rank_bytes, None) for size, plan in plans.items()]


def _of_directory(folder: Path, wanted: Sequence[int] | None) -> tuple[int, ModelConfig, int, int]:
    refuse_broken_ranks(folder)
    with ShardedState.open(folder) as state:
        if other := [size for size in wanted or [] if size != state.tp]:
            raise InputError(
                f"the directory is made for TP {state.tp}, not {other[0]}",
                str(folder),
                f"give the checkpoint, or no tp=; for another size: w8a8sc reshard {folder} --tp {other[0]}",
            )
        total = exact = 0
        files = {name: file for file in state.ranks.get(0, []) for name in file.tensors}
        for name, file in files.items():
            module, _, leaf = name.rpartition(".")
            nbytes = file.tensors[name].nbytes
            exact += nbytes
            if leaf == "weight" and (holder := files.get(f"{module}.info")) is not None:
                k, n = (int(value) for value in holder.read(f"{module}.info")[2:4])
                nbytes = max(nbytes, n * k)
            total += nbytes
        return state.tp, ModelConfig.parse(folder / "config.json", ARCHITECTURES), total, exact


def _command_for(directory: Path, manifest: Manifest, shown: Path) -> Command:
    """The command that serves a directory, on a host with the vLLM Ascend it was made for.

    shown: the path in the command. Raises UsageError if it does not fit on a chip of the usual size.
    """
    config = ModelConfig.parse(directory / "config.json", ARCHITECTURES)
    version = f"{manifest.options.get('target', DEFAULT_TARGET)}.0"
    tp = manifest.tensor_parallel_size
    service = Service(shown, "directory", tp, manifest.model, config, presets.choose(config), version)
    memory = _memory(directory, service, {}, CHIP_MEMORY, compressed_masks=False)
    return build(dataclasses.replace(service, memory=memory))


@dataclass(frozen=True)
class Advice:
    """The command that serves a directory on chips of the usual size, or why there is none."""

    command: str | None
    problem: str | None

    def document(self) -> dict[str, str | None]:
        """What --json prints of it beside the directory: docs/json.md."""
        return {"serve": self.command, "serve_problem": self.problem}


def advise(result: Compressed) -> Advice:
    """How to serve what a conversion made."""
    return advise_on(result.directory, result.manifest, result.directory)


def advise_on(directory: Path, manifest: Manifest, shown: Path) -> Advice:
    """How to serve a sealed directory. shown: its path in the command, as seen from where that will be given."""
    try:
        return Advice(str(_command_for(directory, manifest, shown)), None)
    except UsageError as error:
        return Advice(None, error.problems[0].message)


def exit_code(estimates: Sequence[Estimate], *, every: bool) -> int:
    """Of `fit`: 0 if every size fits or, where sizes were not asked for, if one does."""
    fitting = [estimate.fits for estimate in estimates]
    return 0 if (all(fitting) if every else any(fitting)) else 1
