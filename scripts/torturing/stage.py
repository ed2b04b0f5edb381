"""Where it happens: a small model, reference results, and runs of the command line in a place of their own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import w8a8sc_tool
from w8a8sc_tool.synthesis import synthesize as synthesizer

INJECT = Path(__file__).parent / "inject"
PACKAGES = Path(w8a8sc_tool.__file__).parents[1]  # where the code under torture is
COMMAND = (sys.executable, "-m", "w8a8sc_tool")
SECONDS = 120.0  # what a run may take before it counts as hanging
COMPILING_SECONDS = 900.0  # the same for the first one, which may have to compile the kernels
MARK = "W8A8SC_TORTURE_MARK"

# Small, yet with compressed layers at TP 1 and 2, a layer that the kernel cannot take, and FLOAT ones.
SMALL = synthesizer.Model(320, 768, 2, 4, 2, 64, 320, ("model.layers.1.mlp.down_proj",))
FILE_SIZE = "600kB"  # every rank has several files then


@dataclass
class Part:
    """What one part of the torture did."""

    name: str
    tried: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def count(self, message: str, number: int = 1) -> None:
        self.counts[message] = self.counts.get(message, 0) + number

    def finding(self, message: str) -> None:
        self.findings.append(message)
        print(f"FOUND in {self.name}: {message}", file=sys.stderr, flush=True)


@dataclass
class Ran:
    """A run of the command line that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def clear(self) -> bool:
        """Whether it ended well, or with one error message and no traceback."""
        errors = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        return self.code == 0 or (bool(errors) and "Traceback" not in self.stderr and self.code in (1, 3, 4))


class Stage:
    """A folder with a source model and its reference results; every run gets its own temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "Small-w8a8s"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        synthesizer.MODELS["torture"] = SMALL
        synthesizer.synthesize(self.source, "torture")
        self.source_digest = digests(self.source)
        ran = self.run(self.compress("reference"), seconds=COMPILING_SECONDS)
        if ran.code != 0:
            raise SystemExit(f"the reference run failed with exit code {ran.code}: {ran.stderr}")
        self.references = {tp: digests(self.target("reference", tp)) for tp in (1, 2)}

    def target(self, output: str, tp: int) -> Path:
        return self.folder / output / "Small-w8a8sc-310-vllm" / f"TP{tp}" / f"Small-w8a8sc-310-vllm-tp{tp}"

    def compress(self, output: str, *more: str) -> list[str]:
        """The command whose results the references are."""
        tp = ("--tp", "1", "--tp", "2", "--max-file-size", FILE_SIZE)
        return ["compress", str(self.source), *tp, "-j", "2", "-o", str(self.folder / output), *more]

    def start(
        self,
        arguments: list[str],
        settings: dict[str, Any] | None = None,
        preexec_fn: Callable[[], object] | None = None,
    ) -> subprocess.Popen[str]:
        """Start the command line with faults injected."""
        environment = os.environ | {"TMPDIR": str(self.temporary), MARK: str(self.folder)}
        environment["PYTHONPATH"] = f"{INJECT}:{PACKAGES}"
        if settings:
            environment["W8A8SC_TORTURE"] = json.dumps(settings)
        return subprocess.Popen(
            [*COMMAND, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            preexec_fn=preexec_fn,
        )

    def run(
        self,
        arguments: list[str],
        settings: dict[str, Any] | None = None,
        seconds: float = SECONDS,
        preexec_fn: Callable[[], object] | None = None,
    ) -> Ran:
        """Run the command line to its end; a run that hangs has the code -99."""
        process = self.start(arguments, settings, preexec_fn)
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            return Ran(-99, stdout, stderr)
        return Ran(process.returncode, stdout, stderr)

    def finish(self, part: Part, case: str, output: str, *more: str) -> None:
        """The same command, undisturbed: it has to end well, with the reference's bytes, and leave nothing behind."""
        ran = self.run(self.compress(output, *more))
        if ran.code != 0:
            part.finding(f"{case}: the same command does not finish: {ran.stderr[-300:]}")
        self.check_result(part, case, output)
        shutil.rmtree(self.folder / output, ignore_errors=True)

    def check_result(self, part: Part, case: str, output: str) -> None:
        for tp, wanted in self.references.items():
            target = self.target(output, tp)
            if not target.is_dir() or digests(target) != wanted:
                part.finding(f"{case}: TP {tp} has other bytes than an undisturbed run")
                continue
            beside = [path.name for path in target.parent.iterdir() if path != target]
            if beside:
                part.finding(f"{case}: left behind: {', '.join(beside)}")
        self.check_surroundings(part, case)

    def check_surroundings(self, part: Part, case: str) -> None:
        """The source is as it was; no process and no temporary file is left."""
        if digests(self.source) != self.source_digest:
            part.finding(f"{case}: the source was changed")
        for path in self.temporary.iterdir():
            part.finding(f"{case}: temporary files are left: {path.name}")
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        left = self.processes()
        if left:
            part.finding(f"{case}: processes are left: {left}")

    def processes(self) -> list[int]:
        """Processes that this stage's runs have started and that are still there."""
        wanted = f"{MARK}={self.folder}".encode()
        left = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                try:
                    environment = (entry / "environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if wanted in environment:
                    left.append(int(entry.name))
        return left

    def nothing_half_done(self, part: Part, case: str, output: str) -> None:
        """What is at a target's place is complete."""
        for tp, wanted in self.references.items():
            target = self.target(output, tp)
            if target.exists() and digests(target) != wanted:
                part.finding(f"{case}: TP {tp} is at its place and not complete")


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder, by a hash that is not the project's."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
