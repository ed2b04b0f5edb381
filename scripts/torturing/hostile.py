"""Files made to mislead, given to the command line: one clear error that names the place, soon and in little memory."""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import time
from pathlib import Path

from tests import hostile as inputs

from .stage import COMMAND, INJECT, PACKAGES, Part, Stage, digests

LARGEST_MEMORY = 512 << 20
LONGEST = 20.0  # seconds, the start of the interpreter and of worker processes included


def run(stage: Stage, rounds: int, seconds: float | None, seed: int) -> Part:
    """rounds: how many of the inputs, at most."""
    part = Part("hostile")
    cases = list(inputs.CASES)
    random.Random(seed).shuffle(cases)
    outside = stage.folder / "outside"
    outside.mkdir()
    (outside / "secret").write_text("nobody touches this")
    before = digests(outside)
    names = {path.name for path in stage.folder.iterdir()} | {"hostile-w8a8s", "never", "printed"}
    started = time.monotonic()
    for case in cases:
        if part.tried >= rounds if seconds is None else time.monotonic() - started >= seconds:
            break
        origin = stage.source if case.of == "checkpoint" else stage.target("reference", 2)
        folder = stage.folder / "hostile-w8a8s"
        shutil.copytree(origin, folder)
        case.make(folder)
        codes = [(arguments[0], _judge(part, case, arguments, stage)) for arguments in _commands(case, folder, stage)]
        if ("verify", 0) in codes[:1] and {code for command, code in codes if command == "generate"} != {0}:
            part.finding(f"{case.name}: verified, and generate refuses it")
        part.tried += 1
        elsewhere = [path for path in (*stage.folder.iterdir(), Path("touched")) if path.name not in names]
        elsewhere = [path for path in elsewhere if path.exists()]
        if digests(outside) != before or elsewhere:
            part.finding(f"{case.name}: something was written elsewhere: {elsewhere}")
        if (stage.folder / "never").exists() and not case.harmless:
            part.finding(f"{case.name}: something was made of it")
        shutil.rmtree(stage.folder / "never", ignore_errors=True)
        shutil.rmtree(folder)
    part.count("inputs there are", len(cases))
    return part


def _commands(case: inputs.Case, folder: Path, stage: Stage) -> list[list[str]]:
    never = str(stage.folder / "never")
    if case.of == "directory":
        return inputs.commands(folder, Path(never))
    if case.of == "batch":
        return [["batch", str(folder / inputs.BATCH)]]
    if case.of == "preset":
        preset = str(folder / inputs.PRESET)
        return [["compress", str(stage.source), "--preset", preset, "--dry-run", "-o", never]]
    return [["inspect", str(folder)], ["compress", str(folder), "-o", never]]


def _judge(part: Part, case: inputs.Case, arguments: list[str], stage: Stage) -> int:
    """The exit code of a command, which has to be right."""
    case_name = f"{case.name} ({arguments[0]})"
    code, output, seconds, memory = _measured(arguments, stage)
    part.count("commands")
    part.counts["MiB at most"] = max(part.counts.get("MiB at most", 0), memory >> 20)
    refused = code in (1, 3) and ("error: " in output or arguments[0] in ("verify", "compare"))
    # These two describe what is there, whatever it is good for.
    may_end_well = case.harmless or (case.of == "directory" and arguments[0] in ("inspect", "compare"))
    if not (refused or (may_end_well and code == 0)) or "Traceback" in output or "defect" in output:
        part.finding(f"{case_name}: exit code {code}: {output[-300:]}")
    elif refused and "hostile-w8a8s" not in output:
        part.finding(f"{case_name}: the error names no place: {output[-300:]}")
    if seconds > LONGEST:
        part.finding(f"{case_name}: {seconds:.0f} s")
    if memory > LARGEST_MEMORY:
        part.finding(f"{case_name}: {memory >> 20} MiB")
    return code


def _measured(arguments: list[str], stage: Stage) -> tuple[int, str, float, int]:
    """Exit code, what was printed, seconds, and the largest memory of any process of a command."""
    log = stage.folder / "printed"
    started = time.monotonic()
    with log.open("wb") as printed:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=os.environ | {"PYTHONPATH": f"{INJECT}:{PACKAGES}"},
            stdout=printed,
            stderr=printed,
            stdin=subprocess.DEVNULL,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (60, 60)),
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - started
    return process.returncode, log.read_text(errors="replace"), seconds, usage.ru_maxrss * 1024
