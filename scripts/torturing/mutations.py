"""Mutated tiles and mutated directories, each in a process that may crash without ending the torture."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from .stage import INJECT, Part, Stage

_LARGEST = 512  # MiB
_LONGEST = {"tiles": 1.0, "mutants": 5.0}  # seconds; a directory's workers have to start


def tiles(stage: Stage, rounds: int, seconds: float | None, seed: int) -> Part:
    return _run("tiles", stage, rounds, seconds, seed)


def mutants(stage: Stage, rounds: int, seconds: float | None, seed: int) -> Part:
    return _run("mutants", stage, rounds, seconds, seed)


def _run(kind: str, stage: Stage, rounds: int, seconds: float | None, seed: int) -> Part:
    part = Part(kind)
    command = [sys.executable, "-m", "torturing.mutation_target", kind, str(rounds), str(seconds or 0), str(seed)]
    ran = subprocess.run(
        [*command, str(stage.target("reference", 2))],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{INJECT.parents[1]}:{INJECT.parents[2]}"},
    )
    if ran.returncode != 0:
        part.found(f"the process ended with {ran.returncode}: {ran.stderr[-1500:]}")
        return part
    told = json.loads(ran.stdout)
    part.tried = told["tried"]
    part.counts = told["counts"] | {"MiB": told["MiB"], "slowest ms": round(told["slowest"] * 1000)}
    for finding in told["findings"]:
        part.found(finding)
    if told["MiB"] > _LARGEST:
        part.found(f"{told['MiB']} MiB")
    if told["slowest"] > _LONGEST[kind]:
        part.found(f"the slowest took {told['slowest']:.1f} s")
    return part
