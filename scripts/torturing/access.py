"""Folders and files that may not be entered, listed or read: every command as another user, in every role of theirs.

Root may do everything. So when this part is started as root it becomes another user; where that user cannot run this
Python (one below /root, say), it stays root and gives up the capabilities that let root pass by permissions. Anyone
else's permissions count as they are.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w8a8sc_tool.codec.kernel_cache import cache_folder

from .stage import COMMAND, PACKAGES, SECONDS, Part, Stage, digests

OTHER = 65534  # nobody
MODES = (0, 0o300, 0o400, 0o100)
_OPEN = 0o755
_PR_CAPBSET_DROP = 24  # linux/prctl.h
_PASSING_BY_PERMISSIONS = (1, 2, 3)  # linux/capability.h: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded before any fork
_NAME = "Small-w8a8sc-310-vllm"


@dataclass(frozen=True)
class Case:
    """A command, a folder or file that is closed meanwhile, and the mode it has then.

    role: what the closed one is to the command.
    """

    role: str
    closed: Path
    mode: int
    arguments: tuple[str, ...]
    working_folder: Path = Path("/")

    def __str__(self) -> str:
        return f"{self.arguments[0]}, {self.role} of mode {self.mode:o}"


class Home:
    """What the other user has: a checkpoint, a directory made of it, and a place for output."""

    def __init__(self, stage: Stage) -> None:
        self.path = stage.folder / "home"
        self.models, self.out = self.path / "models", self.path / "out"
        self.source = self.models / stage.source.name
        shutil.copytree(stage.source, self.source)
        self.made = self.path / "made" / _NAME
        shutil.copytree(stage.folder / "reference" / _NAME, self.made)
        self.directory = self.made / "TP2" / f"{_NAME}-tp2"
        self.batch = self.path / "jobs" / "batch.yaml"
        self.batch.parent.mkdir()
        self.batch.write_text(f"jobs: [{{model: {self.source}}}]\noutput: {self.out}\n")
        (self.path / "tmp").mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.path),
            "TMPDIR": str(self.path / "tmp"),
            "W8A8SC_CACHE_DIR": str(self.path / "cache"),
            "PYTHONPATH": str(PACKAGES),
        }
        if (kernels := cache_folder()) is not None:
            shutil.copytree(kernels, self.path / "cache" / kernels.name)
        stage.folder.chmod(_OPEN)
        self.identity = _identity(self.environment)
        self.fill()

    def fill(self) -> None:
        """The output as if one size were made, and another one begun; nothing of an earlier case."""
        for folder in (self.out, self.path / "new"):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.made / "TP1", self.out / _NAME / "TP1")
        partial = self.out / _NAME / "TP2" / f"{_NAME}-tp2.partial"
        partial.mkdir(parents=True)
        (partial / "w8a8sc_journal.jsonl").write_text("nothing that can be gone on with\n")
        if "user" in self.identity:
            for path in (self.path, *self.path.rglob("*")):
                os.chown(path, OTHER, OTHER)

    def run(self, arguments: tuple[str, ...], working_folder: Path) -> tuple[int, str]:
        """Exit code and everything printed."""
        try:
            ran = subprocess.run(
                [*COMMAND, *arguments],
                env=self.environment,
                cwd=working_folder,
                **self.identity,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return -99, "it hangs"
        return ran.returncode, ran.stdout + ran.stderr


def _identity(environment: dict[str, str]) -> dict[str, Any]:
    """What makes `subprocess.run` start the program as somebody whose permissions count."""
    if os.getuid() != 0:
        return {}
    other: dict[str, Any] = {"user": OTHER, "group": OTHER, "extra_groups": []}
    try:
        subprocess.run((*COMMAND, "--version"), env=environment, cwd="/", capture_output=True, check=True, **other)
    except (OSError, subprocess.CalledProcessError):
        return {"preexec_fn": _give_up_capabilities}
    return other


def _give_up_capabilities() -> None:
    for capability in _PASSING_BY_PERMISSIONS:
        if _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_CAPBSET_DROP)")


def _may_enter_closed_folder(home: Home) -> bool:
    closed = home.path / "closed"
    closed.mkdir(mode=0)
    home.fill()
    code = subprocess.run(("ls", str(closed)), capture_output=True, check=False, **home.identity).returncode
    closed.rmdir()
    return code == 0


def run(stage: Stage, rounds: int, seconds: float | None, seed: int) -> Part:
    """rounds: how many cases, at most."""
    part = Part("access")
    home = Home(stage)
    if _may_enter_closed_folder(home):
        part.finding("root's privileges could not be given up, so nothing was tried")
        return part
    part.count("as user " + str(home.identity.get("user", f"{os.getuid()}, without root's privileges")))
    cases = [*_to_read(home), *_to_write(home)]
    random.Random(seed).shuffle(cases)
    started = time.monotonic()
    for case in cases:
        if part.tried >= rounds if seconds is None else time.monotonic() - started >= seconds:
            break
        _try(home, part, case)
        part.tried += 1
    part.count("cases there are", len(cases))
    return part


def _try(home: Home, part: Part, case: Case) -> None:
    kept = {path: digests(path) for path in (home.source, home.made)}
    case.closed.chmod(case.mode)
    code, output = home.run(case.arguments, case.working_folder)
    case.closed.chmod(_OPEN)
    if code == 0:
        part.count("possible all the same")
    elif _is_refusal(case, code, output):
        part.count("refused")
    else:
        part.finding(f"{case}: exit code {code}: {output[-400:]}")
    if any(digests(path) != before for path, before in kept.items()):
        part.finding(f"{case}: what was there is not what it was")
    home.fill()


def _is_refusal(case: Case, code: int, output: str) -> bool:
    """Whether a command says in the error's one shape that it may not, before it has done anything."""
    if "Traceback" in output or "defect" in output:
        return False
    if case.role == "a file" and case.arguments[0] == "verify" and code == 1:  # a finding
        return "Permission denied" in output
    if case.arguments[0] == "batch" and code == 1:  # a job that failed, in the table; the others go on
        return "failed" in output and "Permission denied" in output
    return code in (2, 3) and output.count("error: ") >= 1 and "Permission denied" in output


def _commands_on_checkpoint(home: Home) -> Iterator[tuple[str, ...]]:
    source, out = str(home.source), str(home.path / "new")
    yield "inspect", source
    yield "fit", source
    yield "serve", "--print", source
    yield "serve", "--container", source
    yield "compress", source, "-o", out
    yield "compress", source, "--dry-run", "-o", out
    yield "verify", str(home.directory), "--source", source
    yield "batch", str(home.batch)


def _commands_on_directory(home: Home) -> Iterator[tuple[str, ...]]:
    directory, out = str(home.directory), str(home.path / "new")
    for command in ("inspect", "verify", "fit"):
        yield command, directory
    yield "verify", directory, "--quick"
    yield "serve", "--print", directory
    yield "serve", "--container", directory
    yield "compare", directory, directory
    yield "generate", directory, "--token-ids", "1,2", "--max-new-tokens", "1"
    yield "reshard", directory, "--tp", "1", "-o", out
    yield "decompress", directory, "-o", out
    yield "decompress", directory, "--checkpoint", "-o", out


def _to_read(home: Home) -> Iterator[Case]:
    """The folder itself, those above it, the one that a relative path starts from; then single files."""
    for folder, commands in (
        (home.source, list(_commands_on_checkpoint(home))),
        (home.directory, list(_commands_on_directory(home))),
    ):
        for mode in MODES:
            for arguments in commands:
                yield Case("the folder", folder, mode, arguments)
                yield Case("a folder above", folder.parent, mode, arguments)
            for command in ("inspect", "fit"):
                yield Case("the working folder", folder, mode, (command, "."), folder)
                yield Case("above the working folder", folder.parent, mode, (command, folder.name), folder.parent)
        for name in ("config.json", "tokenizer.json", "quant_model_description.json", "w8a8sc_manifest.json"):
            for arguments in commands:
                if (folder / name).exists():
                    yield Case("a file", folder / name, 0, arguments)
    for mode in MODES:
        yield Case("the batch file's folder", home.batch.parent, mode, ("batch", str(home.batch)))


def _to_write(home: Home) -> Iterator[Case]:
    """The output, the folders below it that are there, a target that is there, and one in the making."""
    source, directory = str(home.source), str(home.directory)
    tree = home.out / _NAME
    folders = {
        "the output": home.out,
        "the output's tree": tree,
        "a size's folder": tree / "TP1",
        "the target": tree / "TP1" / f"{_NAME}-tp1",
        "a partial folder": tree / "TP2" / f"{_NAME}-tp2.partial",
    }
    commands = [
        ("compress", source, "--tp", "1", "--tp", "2", "-o", str(home.out)),
        ("compress", source, "--tp", "1", "--tp", "2", "-o", str(home.out), "--overwrite"),
        ("reshard", directory, "--tp", "1", "--tp", "2", "-o", str(home.out)),
        ("reshard", directory, "--tp", "1", "--tp", "2", "-o", str(home.out), "--overwrite", "--no-resume"),
        ("batch", str(home.batch)),
    ]
    for mode in MODES:
        for role, folder in folders.items():
            for arguments in commands:
                yield Case(role, folder, mode, arguments)
        for arguments in (
            ("decompress", directory, "-o", str(home.out)),
            ("decompress", directory, "--checkpoint", "-o", str(home.out)),
            ("synthesize", str(home.out / "model")),
            ("fit", source, "--plot", str(home.out / "memory.svg")),
        ):
            yield Case("the output", home.out, mode, arguments)
