"""The `vllm serve` command for a directory or a checkpoint on 310P, and the container around it.

Flags and defaults are those of vLLM Ascend's guide for Atlas 300I Duo (v0.18) and its later Qwen3 tutorial.
"""

from __future__ import annotations

import json
import shlex
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from ..checkpoint import ModelConfig
from ..errors import UsageError
from ..planning import Preset
from ..planning.preset import Serving
from ..targets import release_of
from ..text import is_showable
from .chips import VARIABLE, chosen
from .memory import Estimate
from .mounts import mounts_of
from .options import Options, length_of, parse_options

HOST: Final = "127.0.0.1"
PORT: Final = "8080"
IMAGE: Final = "quay.io/ascend/vllm-ascend:v{version}-310p"  # the guide's, for 0.18.0

# What a model without a preset is served with.
DEFAULT: Final = Serving(max_num_seqs=16, max_model_len=16384)

# With several ranks every captured graph takes event ids of the device; two are known to work at any depth (the guide,
# of Qwen3-32B; later notes, of other models).
_CAPTURES: Final = 2
_CAPTURES_DOCUMENTED: Final = "qwen3-32b"

_STATES: Final = "float16"  # of linear attention: 310P's kernels take no other, but vLLM counts with the model's choice

# What a container needs of the host (the guide): devices beside the chips themselves, and mounts.
SHARED_DEVICES: Final = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")
MOUNTS: Final = (
    "/usr/local/dcmi",
    "/usr/local/bin/npu-smi",
    "/usr/local/Ascend/driver/lib64/",
    "/usr/local/Ascend/driver/version.info",
    "/etc/ascend_install.info",
)


@dataclass(frozen=True)
class Service:
    """What is served.

    version: of the vLLM Ascend that will serve, as "0.18.0". memory: of a chip with the options that are given, looked
    at for the longest sequence that fits; None if it is not known. plugin: whether that vLLM has ours (docs/vllm.md).
    """

    path: Path
    kind: Literal["directory", "checkpoint"]
    tp: int
    name: str
    config: ModelConfig
    preset: Preset
    version: str = "0.18.0"
    memory: Estimate | None = None
    plugin: bool = False

    @property
    def serving(self) -> Serving:
        return self.preset.serving(self.tp) or DEFAULT

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest sequence, if the user gives none: the preset's, or what fits if that is less."""
        if self.memory is None:
            return self.serving.max_model_len
        return min(self.serving.max_model_len, self.memory.length)

    @property
    def capture_sizes(self) -> list[int]:
        """Batch sizes of captured graphs: the preset's, or powers of two up to the sequences served at a time."""
        if self.serving.capture_sizes is not None:
            return self.serving.capture_sizes
        most = self.serving.max_num_seqs
        sizes = [1 << bit for bit in range(most.bit_length()) if 1 << bit <= most]
        return sizes if self.tp == 1 else sizes[-_CAPTURES:]


@dataclass
class Command:
    """A command and its environment; `warnings` says what may not work."""

    words: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """As a shell takes it."""
        assignments = [f"{name}={quoted(value)}" for name, value in self.environment.items()]
        return " ".join([*assignments, *map(quoted, self.words)])


_PLAIN: Final = frozenset(string.ascii_letters + string.digits + "/._-")


def quoted(word: str) -> str:
    """A word for a shell; one that cannot be shown as it is is spelled byte by byte, as bash, zsh and ksh take it."""
    if is_showable(word):
        return shlex.quote(word)
    encoded = word.encode("utf-8", "surrogateescape")
    return "$'" + "".join(chr(byte) if chr(byte) in _PLAIN else f"\\x{byte:02x}" for byte in encoded) + "'"


def build(
    service: Service,
    more: Sequence[str] = (),
    *,
    environment: Mapping[str, str] | None = None,
    force: bool = False,
    host: str = HOST,
) -> Command:
    """The command that serves; `more` are options of vLLM that win over ours.

    Raises UsageError for what cannot work; force: warn instead.
    """
    given = parse_options(more)
    warnings: list[str] = []
    problems = list(_contradictions(service, given))
    if problems and not force:
        raise UsageError("; ".join(problems), remedy="leave it out, or give force=True")
    warnings += problems
    flags = {name: value for name, value in _flags(service, host).items() if not _replaced(name, given)}
    if "enforce-eager" in given:
        flags.pop("compilation-config", None)
    command = Command(["vllm", "serve", str(service.path)], warnings=warnings)
    for name, value in flags.items():
        command.words += [f"--{name}", *([value] if value is not None else [])]
    command.words += more
    chips = chosen(service.tp, given, environment or {})
    command.environment = {VARIABLE: ",".join(map(str, chips))} if chips is not None else {}
    return command


def _flags(service: Service, host: str) -> dict[str, str | None]:
    """Our options, in the order of the guide; None for those without a value."""
    serving = service.serving
    capture = {"cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": service.capture_sizes}
    flags: dict[str, str | None] = {
        "host": host,
        "port": PORT,
        "tensor-parallel-size": str(service.tp),
        "gpu_memory_utilization": "0.90",
        "max_num_seqs": str(serving.max_num_seqs),
        "served_model_name": service.preset.served_name or service.name,
        "dtype": "float16",
        "additional-config": json.dumps({"ascend_compilation_config": _ascend_compilation(service.version)}),
        "compilation-config": json.dumps(capture),
        "quantization": "ascend",
        "max-model-len": str(service.max_model_len),
        "no-enable-prefix-caching": None,
        "load_format": "w8a8sc" if service.plugin else "sharded_state",
    }
    if service.config.linear_layers:
        flags["mamba-ssm-cache-dtype"] = _STATES
    if service.kind == "checkpoint":  # as the guide serves one
        for name in ("max_num_seqs", "no-enable-prefix-caching", "load_format"):
            del flags[name]
    return flags


def _ascend_compilation(version: str) -> dict[str, bool]:
    """The keys a vLLM Ascend release knows; its development versions are given both, as its nightly tests do."""
    release = release_of(version)
    if release is None or "dev" in version:
        return {"fuse_norm_quant": False, "enable_npugraph_ex": False}
    return {"fuse_norm_quant" if release <= (0, 18) else "enable_npugraph_ex": False}


def _replaced(name: str, given: Options) -> bool:
    """Whether an option of ours, or its opposite, was given by the user."""
    plain = name.replace("_", "-")
    opposite = plain.removeprefix("no-") if plain.startswith("no-") else f"no-{plain}"
    other = {"compilation-config": ("O", "cudagraph-capture-sizes")}.get(plain, ())
    return plain in given or opposite in given or any(word in given for word in other)


def _contradictions(service: Service, given: Options) -> list[str]:
    """What of the user's options cannot work, each with the reason."""
    problems = []
    directory = service.kind == "directory"
    wanted: dict[str, tuple[tuple[str, ...], str]] = {
        "dtype": (("float16", "half"), "the 310P computes in float16 alone"),
        "quantization": (("ascend",), "no other method of vLLM reads these weights"),
        "pipeline-parallel-size": (("1",), "the layers are not divided over stages"),
    }
    if directory:
        wanted["tensor-parallel-size"] = (
            (str(service.tp),),
            f"the directory is made for {service.tp} ranks; vLLM would not notice, and answer nonsense. Make another: "
            f"w8a8sc reshard {service.path} --tp {' '.join(given.get('tensor-parallel-size', []))}",
        )
        wanted["load-format"] = (
            ("sharded_state", "w8a8sc"),
            "any other reads the rank files as one checkpoint and fails",
        )
        if "num_experts" in service.config.further and "enable-expert-parallel" in given and service.tp > 1:
            problems.append("--enable-expert-parallel: the directory has a part of every expert on every rank")
        if service.config.reads_images and service.tp > 1:
            wanted["mm-encoder-tp-mode"] = (("weights",), "the tower is cut like the decoder")
    if service.config.linear_layers:
        wanted["mamba-ssm-cache-dtype"] = ((_STATES,), "the 310P keeps states of linear attention in float16 alone")
    for name, (allowed, reason) in wanted.items():
        if name in given and given[name] and given[name][0] not in allowed:
            problems.append(f"--{name} {given[name][0]}: {reason}")
    if directory and service.config.reads_images:
        problems += [f"--{name}: vLLM would want a directory without a tower" for name in _without_images(given)]
    if directory:
        problems += _draft_problems(service, given)
    return [*problems, *_length_problems(service, given), *_capture_problems(service, given)]


def _draft_problems(service: Service, given: Options) -> list[str]:
    """Speculative decoding with the draft model of a checkpoint, which directories leave out."""
    try:
        content = json.loads(given["speculative-config"][0])
    except (KeyError, IndexError, ValueError):
        return []
    if not service.config.linear_layers or not isinstance(content, dict):
        return []
    method = content.get("method")
    if not isinstance(method, str) or not method.endswith("mtp") or "draft_load_config" in content:
        return []
    return [
        f"--speculative-config {method}: directories have no mtp.* tensors; give the checkpoint's folder as model, "
        "and a draft_load_config that reads it, which vLLM has from 0.23 on"
    ]


def _without_images(given: Options) -> Iterator[str]:
    """Options that make vLLM leave out the vision tower."""
    if "language-model-only" in given:
        yield "language-model-only"
    try:
        limits = json.loads(given["limit-mm-per-prompt"][0])
    except (KeyError, IndexError, ValueError):
        return
    if isinstance(limits, dict) and limits.get("image") == limits.get("video") == 0:
        yield "limit-mm-per-prompt"


def _length_problems(service: Service, given: Options) -> list[str]:
    """What `fit` would refuse: weights that leave no room, or sequences longer than the chip or the model allows."""
    length = length_of(given, "max-model-len")
    if "max-model-len" in given and length is None:
        value = " ".join(given["max-model-len"])
        return [f"--max-model-len {value}: it has to be a number, masks of a detected one may exceed the memory"]
    memory = service.memory
    if memory is None:
        return []
    if not memory.fits:
        return [
            f"nothing fits beside the weights on a chip at TP {service.tp}: they take {memory.weights >> 20} of "
            f"{memory.chip >> 20} MiB"
        ]
    if length is not None and length > memory.length:
        reason = memory.reason(compressed_masks=memory.compressed_masks)
        return [f"--max-model-len {length}: {memory.length} is the most here, because of the {reason}"]
    return []


def _captured(service: Service, given: Options) -> list[Any]:
    """The capture sizes that the user asks for; ours if none."""
    if "cudagraph-capture-sizes" in given:
        return list(given["cudagraph-capture-sizes"])
    try:
        content = json.loads(given["compilation-config"][0])
        sizes = content.get("cudagraph_capture_sizes")
        return list(sizes) if isinstance(sizes, list) else []
    except (KeyError, IndexError, ValueError, AttributeError):
        return list(service.capture_sizes)


def _capture_problems(service: Service, given: Options) -> list[str]:
    sizes = _captured(service, given)
    if service.tp == 1 or len(sizes) <= _CAPTURES or "enforce-eager" in given:
        return []
    if service.preset.name == _CAPTURES_DOCUMENTED:
        return [f"{len(sizes)} capture sizes: with several ranks Qwen3-32B can capture {_CAPTURES}"]
    return []


def capture_warning(service: Service, more: Sequence[str]) -> str | None:
    """A warning about more captured graphs than are known to work with several ranks."""
    given = parse_options(more)
    sizes = _captured(service, given)
    if service.tp == 1 or len(sizes) <= _CAPTURES or "enforce-eager" in given:
        return None
    return (
        f"{len(sizes)} capture sizes at TP {service.tp}: the device's event ids may not suffice; {_CAPTURES} are known "
        "to work"
    )


def container(service: Service, command: Command, *, devices: Sequence[str], mounts: Sequence[str]) -> Command:
    """A `docker run` line that serves: this machine's devices and mounts, the directory read-only, the port published.

    devices: /dev/davinci0 and so on; the service has to listen on all addresses of the container. Raises InputError if
    the directory cannot be mounted so that it is whole.
    """
    words = ["docker", "run", "--rm", "--name", "vllm-ascend", "--shm-size=10g"]
    for device in (*devices, *SHARED_DEVICES):
        words += ["--device", device]
    for mount in mounts:
        words += ["-v", f"{mount}:{mount}"]
    folders = [str(folder) for folder in mounts_of(service.path)]
    for folder in folders:
        words += ["-v", f"{folder}:{folder}:ro"]
    given = parse_options(command.words[3:])
    port = given.get("port", [PORT])[0]
    words += ["-v", "/root/.cache:/root/.cache", "-p", f"{port}:{port}"]
    for name, value in command.environment.items():
        words += ["-e", f"{name}={value}"]
    serve = [*command.words[:2], folders[0], *command.words[3:]]
    return Command([*words, "-it", IMAGE.format(version=service.version), *serve], warnings=command.warnings)
