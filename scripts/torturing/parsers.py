"""Coverage-guided fuzzing of everything that parses a file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from w8a8sc_tool.sharded_state import manifest as manifest_file

from .stage import INJECT, Part, Stage

# What share of the inputs each parser gets; YAML is slow to parse.
SHARES = {
    "header": 0.3,
    "manifest": 0.25,
    "description": 0.15,
    "config": 0.12,
    "index": 0.1,
    "journal": 0.07,
    "preset": 0.01,
}
_LIMITS = ("-timeout=1", "-rss_limit_mb=512", "-max_len=4096", "-print_final_stats=1")
_STATISTIC = re.compile(r"stat::(\w+):\s+(\d+)")


def run(stage: Stage, rounds: int, seconds: float | None, seed: int) -> Part:
    """rounds: inputs, all parsers together."""
    part = Part("parsers")
    for name, share in SHARES.items():
        limit = f"-runs={max(1, int(rounds * share))}" if seconds is None else f"-max_total_time={int(seconds * share)}"
        with tempfile.TemporaryDirectory(dir=_fast_folder(stage)) as folder:
            corpus = stage.folder / f"corpus-{name}"
            _seed_corpus(stage, name, corpus)
            work = Path(folder)
            command = [sys.executable, "-m", "torturing.fuzz_target", name, folder, str(corpus)]
            command += [*_LIMITS, limit, f"-seed={seed + 1}", f"-artifact_prefix={stage.folder}/{name}-"]
            ran = subprocess.run(
                command, capture_output=True, text=True, errors="replace", cwd=work, env=_environment()
            )
        statistics = dict(_STATISTIC.findall(ran.stderr))
        tried = int(statistics.get("number_of_executed_units", 0))
        part.tried += tried
        part.count(name, tried)
        if ran.returncode != 0 or not tried:
            part.finding(f"{name}: {ran.stderr[-1500:]}")
        part.counts["MiB at most"] = max(part.counts.get("MiB at most", 0), int(statistics.get("peak_rss_mb", 0)))
    return part


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{INJECT.parents[1]}"}


def _fast_folder(stage: Stage) -> Path:
    """Where files cost least: every input of most parsers is a file."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else stage.folder


def _seed_corpus(stage: Stage, name: str, corpus: Path) -> None:
    """Good inputs to begin with, made small."""
    shutil.rmtree(corpus, ignore_errors=True)
    corpus.mkdir()
    source, directory = stage.source, stage.target("reference", 2)
    seeds: dict[str, bytes] = {
        "header": b'\x40\0\0\0\0\0\0\0{"a":{"dtype":"I8","shape":[2,2],"data_offsets":[0,4]}}'.ljust(72) + b"abcd",
        "manifest": _small_manifest(directory),
        "description": b'{"model_quant_type":"W8A8S","a.weight":"W8A8S","a.bias":"FLOAT","norm.bias":"FLOAT"}',
        "config": (source / "config.json").read_bytes(),
        "index": b'{"metadata":{"total_size":1},"weight_map":{"a":"a.safetensors","b":"a.safetensors"}}',
        "journal": b"",
        "preset": b"name: a\nmatch: {architecture: X}\nkeep: ['*.a']\nserve: {1: {max_num_seqs: 1}}",
    }
    (corpus / "seed").write_bytes(seeds[name])


def _small_manifest(directory: Path) -> bytes:
    """A manifest with one tensor of one rank."""
    manifest = manifest_file.load(directory)
    assert manifest is not None
    file = msgspec.structs.replace(manifest.rank_files[0], tensors=manifest.rank_files[0].tensors[:1])
    small = msgspec.structs.replace(manifest, rank_files=[file], layers=manifest.layers[:1], files=manifest.files[:1])
    return small.to_bytes()
