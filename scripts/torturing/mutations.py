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
        part.finding(f"the process ended with {ran.returncode}: {ran.stderr[-1500:]}")
        return part
    report = json.loads(ran.stdout)
    part.tried = report["tried"]
    part.counts = report["counts"] | {"MiB": report["MiB"], "slowest ms": round(report["slowest"] * 1000)}
    for finding in report["findings"]:
        part.finding(finding)
    if report["MiB"] > _LARGEST:
        part.finding(f"{report['MiB']} MiB")
    if report["slowest"] > _LONGEST[kind]:
        part.finding(f"the slowest took {report['slowest']:.1f} s")
    return part
