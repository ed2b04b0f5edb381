"""Faults: every kind of file operation fails in every way it can; limits are hit; people interfere."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .crashes import _recorded
from .stage import Part, Stage

# What may go wrong with each operation.
_ERRORS = {
    "creating the folder": (errno.EACCES, errno.ENOSPC, errno.EROFS),
    "creating the file": (errno.ENOSPC, errno.EMFILE, errno.EACCES, errno.EROFS),
    "opening": (errno.EMFILE, errno.EACCES, errno.EIO),
    "opening the folder": (errno.EMFILE, errno.EACCES),
    "writing": (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG),
    "cutting off the end": (errno.EIO, errno.EPERM),
    "syncing": (errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "syncing the folder": (errno.EIO, errno.ENOSPC),
    "renaming": (errno.EIO, errno.ENOSPC, errno.EXDEV, errno.EACCES),
    "removing": (errno.EIO, errno.EACCES),
}
_READ_ERRORS = (errno.EIO, errno.ESTALE, 0)  # 0: the file ends early

Fault = tuple[str, Callable[[Stage, Part, str], None]]


def run(stage: Stage, rounds: int, seconds: float | None, seed: int) -> Part:
    """rounds: how many faults of all that there are; distinct ones first."""
    part = Part("faults")
    faults = [*_injected(stage, seed), *_REAL]
    chance = random.Random(seed)
    chance.shuffle(faults)
    started = time.monotonic()
    for case, fault in faults:
        if part.tried >= rounds if seconds is None else time.monotonic() - started >= seconds:
            break
        fault(stage, part, case)
        stage.nothing_half_done(part, case, "fault")
        stage.finish(part, case, "fault")
        part.tried += 1
    part.count("distinct faults", part.tried)
    part.count("there are", len(faults))
    return part


def _injected(stage: Stage, seed: int) -> list[Fault]:
    """One fault for every kind of operation on every kind of file, and every error it may have."""
    chance = random.Random(seed)
    happened: dict[tuple[str, str], int] = {}
    for action, path, _ in _recorded(stage, "new"):
        happened[action, _kind(path)] = happened.get((action, _kind(path)), 0) + 1
    faults: list[Fault] = []
    for (action, kind), number in sorted(happened.items()):
        for error in _ERRORS[action]:
            nth, ever = chance.randint(1, number), chance.random() < 0.5
            case = f"{action} ({kind or 'any'}): {errno.errorcode[error]}, {'from' if ever else 'only'} number {nth}"
            faults.append((case, _injection(action, kind, error, nth, ever)))
    for error in _READ_ERRORS:
        nth = chance.randint(1, 40)
        case = f"reading the source: {errno.errorcode.get(error, 'it ends early')} at number {nth}"
        faults.append((case, _injection("reading", str(stage.source), error, nth, False)))
    for nth in (1, 5, 20):
        faults.append((f"a worker is killed at its write number {nth}", _injection("writing", "rank", 0, nth, False)))
    return faults


def _kind(path: str) -> str:
    """What of a path's name makes it its kind."""
    name = Path(path).name
    for kind in ("model-rank", "journal", "manifest", "description", "tokenizer", "config", ".partial", "TP"):
        if kind in name:
            return kind
    return ""


def _injection(action: str, path: str, error: int, nth: int, ever: bool) -> Callable[[Stage, Part, str], None]:
    def fault(stage: Stage, part: Part, case: str) -> None:
        count = stage.folder / "count"
        count.unlink(missing_ok=True)
        settings = {"action": action, "path": path, "errno": error, "nth": nth, "ever": ever, "count": str(count)}
        if action == "writing" and error == 0:
            settings |= {"kill": True, "path": "model-rank"}
        ran = stage.run(stage.compress("fault"), {"fail": settings, "sync": 0.02})
        _check(stage, part, case, ran.code, ran.stderr, ran.clear)
        if not count.exists() or count.stat().st_size < nth:
            part.count("did not come up")
        elif ran.code == 0:
            part.count("harmless")

    return fault


def _check(stage: Stage, part: Part, case: str, code: int, stderr: str, clear: bool) -> None:
    if code == -99:
        part.finding(f"{case}: the run hangs")
    elif not clear:
        part.finding(f"{case}: exit code {code}: {stderr[-400:]}")
    stage.check_surroundings(part, case)


# ------------------------------------------------------------------------------------------------ not injected: real


def _limited(kind: int, value: int) -> Callable[[Stage, Part, str], None]:
    def fault(stage: Stage, part: Part, case: str) -> None:
        ran = stage.run(stage.compress("fault"), preexec_fn=lambda: resource.setrlimit(kind, (value, value)))
        if ran.code == 0:
            part.count("limits not reached")
        _check(stage, part, case, ran.code, ran.stderr, ran.clear)

    return fault


def _meanwhile(delay: float, action: Callable[[Stage, subprocess.Popen[str]], None]) -> Callable[..., None]:
    """Something happens while a run is on."""

    def fault(stage: Stage, part: Part, case: str) -> None:
        process = stage.start(stage.compress("fault"), {"sync": 0.02})
        partial = Path(f"{stage.target('fault', 1)}.partial")
        waited = time.monotonic()
        while process.poll() is None and not partial.exists() and time.monotonic() - waited < 30:
            time.sleep(0.01)
        time.sleep(delay)
        action(stage, process)
        try:
            _, stderr = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            part.finding(f"{case}: the run hangs")
            return
        clear = process.returncode == 0 or "error: " in stderr
        _check(stage, part, case, process.returncode, stderr, clear and "Traceback" not in stderr)

    return fault


def _remove_output(stage: Stage, process: subprocess.Popen[str]) -> None:
    shutil.rmtree(stage.folder / "fault", ignore_errors=True)


def _remove_rank(stage: Stage, process: subprocess.Popen[str]) -> None:
    for path in (stage.folder / "fault").rglob("model-rank-0-*"):
        path.unlink()


def _second_run(stage: Stage, process: subprocess.Popen[str]) -> None:
    second = stage.run(stage.compress("fault"))
    if second.code == 0 and process.poll() is None:
        process.kill()  # makes the first one's end a finding
    elif second.code not in (0, 1, 3) or "Traceback" in second.stderr:
        process.kill()


def _pause(stage: Stage, process: subprocess.Popen[str]) -> None:
    """As a laptop that is closed for a moment."""
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGCONT)


def _clock(stage: Stage, part: Part, case: str) -> None:
    """Files of an unfinished run that come from the future, as after a clock that was put back."""
    count = stage.folder / "count"
    count.unlink(missing_ok=True)
    fault: dict[str, Any] = {
        "action": "writing",
        "path": "model-rank",
        "errno": errno.EIO,
        "nth": 12,
        "count": str(count),
    }
    ran = stage.run(stage.compress("fault"), {"fail": fault, "sync": 0.02})
    _check(stage, part, case, ran.code, ran.stderr, ran.clear)
    later = time.time() + 1e6
    for path in (stage.folder / "fault").rglob("*"):
        os.utime(path, (later, later))


def _elsewhere(stage: Stage, part: Part, case: str) -> None:
    """An output on another file system, reached through a link."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or not os.access(memory, os.W_OK):
        part.count("not possible here")
        return
    real = memory / f"torture-{os.getpid()}"
    real.mkdir()
    try:
        (stage.folder / "linked").symlink_to(real)
        stage.finish(part, case, "linked/out")
    finally:
        shutil.rmtree(real)
        (stage.folder / "linked").unlink()


def _read_only(stage: Stage, part: Part, case: str) -> None:
    """No permission to write to the output; root has it all the same."""
    (stage.folder / "fault").mkdir()
    (stage.folder / "fault").chmod(0o500)
    ran = stage.run(stage.compress("fault"))
    _check(stage, part, case, ran.code, ran.stderr, ran.clear)
    (stage.folder / "fault").chmod(0o700)


_REAL: list[Fault] = [
    ("files may not be larger than 200 kB", _limited(resource.RLIMIT_FSIZE, 200_000)),
    ("files may not be larger than 1 kB", _limited(resource.RLIMIT_FSIZE, 1_000)),
    ("12 open files", _limited(resource.RLIMIT_NOFILE, 12)),
    ("20 open files", _limited(resource.RLIMIT_NOFILE, 20)),
    ("the output is removed at once", _meanwhile(0.0, _remove_output)),
    ("the output is removed meanwhile", _meanwhile(0.7, _remove_output)),
    ("a rank's file is removed early", _meanwhile(0.3, _remove_rank)),
    ("a rank's file is removed meanwhile", _meanwhile(0.5, _remove_rank)),
    ("a rank's file is removed late", _meanwhile(0.8, _remove_rank)),
    ("a second run on the same target", _meanwhile(0.0, _second_run)),
    ("a second run on the same target, later", _meanwhile(0.6, _second_run)),
    ("the run is paused", _meanwhile(0.4, _pause)),
    ("a clock that goes backwards", _clock),
    ("an output on another file system", _elsewhere),
    ("an output without permission", _read_only),
]
