"""A disk that really fills up in the middle of a run: a small tmpfs, filled at one of the writes.

A run that has no room says so and keeps what it has; without room for the rest the same command refuses, or says so
again; with room for the rest, and little more, it ends with the bytes of a run that had room from the start.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

from .stage import Part, Ran, Stage, digests

_DISK = 24 << 20
_LATEST_WRITE = {
    "compress": 60,
    "compress --no-verify": 60,
    "reshard": 40,
    "decompress": 40,
    "decompress --checkpoint": 60,
}
_SLACK = 400_000  # blocks that are not full, and what the estimate is off by in so small a model


def run(stage: Stage, rounds: int, seconds: float | None, seed: int) -> Part:
    """rounds: how many disks are filled."""
    part = Part("space")
    chance = random.Random(seed)
    disk = stage.folder / "space"
    disk.mkdir()
    started = time.monotonic()
    wanted = {name: _undisturbed(stage, name) for name in _LATEST_WRITE}
    while part.tried < rounds if seconds is None else time.monotonic() - started < seconds:
        if not _mount(disk):
            part.count("left out: no file system may be mounted here")
            break
        name = chance.choice(list(_LATEST_WRITE))
        nth = chance.randint(1, _LATEST_WRITE[name])
        try:
            _fill_and_go_on(stage, part, disk, name, nth, wanted[name])
        finally:
            subprocess.run(["umount", disk], check=True)
        part.tried += 1
    disk.rmdir()
    return part


def _mount(disk: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(disk)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _command(stage: Stage, name: str, output: Path) -> list[str]:
    command, *more = name.split()
    if command == "compress":
        return stage.compress(output.name, *more)
    directory = str(stage.target("reference", 2))
    sizes = ["--tp", "1"] if command == "reshard" else []
    workers = [] if more else ["-j", "2"]
    return [command, directory, *sizes, *more, *workers, "-o", str(output)]


def _undisturbed(stage: Stage, name: str) -> dict[str, str]:
    output = stage.folder / "with-room"
    ran = stage.run(_command(stage, name, output))
    if ran.code != 0:
        raise SystemExit(f"{name} with room fails: {ran.stderr}")
    content = digests(output)
    content["bytes"] = str(_blocks(output))
    shutil.rmtree(output)
    return content


def _blocks(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _free(disk: Path) -> int:
    there = os.statvfs(disk)
    return there.f_bavail * there.f_frsize


def _fill_and_go_on(stage: Stage, part: Part, disk: Path, name: str, nth: int, expected: dict[str, str]) -> None:
    case = f"{name}, full at write {nth}"
    output, ballast, count = disk, disk / "ballast", stage.folder / "count"
    count.unlink(missing_ok=True)
    path = "model" if "--checkpoint" in name else "model-rank"
    fault = {"action": "writing", "path": path, "nth": nth, "fill": str(ballast), "count": str(count)}
    first = stage.run(_command(stage, name, output), {"fail": fault, "sync": 0.02})
    if not ballast.exists():
        part.count("did not come up")
    elif first.code == 0:
        part.count("was written before the disk was full")
    elif first.code != 1 or not first.clear or "make room" not in first.stderr:
        part.finding(f"{case}: exit code {first.code}: {first.stderr[-300:]}")
    else:
        part.count("ended for want of room")
    if first.code != 0:
        again = stage.run(_command(stage, name, output))
        part.count("refused while there is no room" if again.code == 3 else "ended again for want of room")
        if again.code not in (1, 3) or not again.clear:
            part.finding(f"{case}, again without room: exit code {again.code}: {again.stderr[-300:]}")
    ballast.unlink(missing_ok=True)
    rest = max(0, int(expected["bytes"]) - _blocks(disk))
    with ballast.open("wb") as file:
        file.write(bytes(max(0, _free(disk) - rest * 12 // 10 - _SLACK)))
    last = stage.run(_command(stage, name, output))
    ballast.unlink()
    _judge(part, case, disk, last, expected)
    stage.check_surroundings(part, case)


def _judge(part: Part, case: str, disk: Path, last: Ran, expected: dict[str, str]) -> None:
    if last.code != 0:
        part.finding(f"{case}: with room for the rest it does not finish: {last.stderr[-300:]}")
    elif digests(disk) != {key: value for key, value in expected.items() if key != "bytes"}:
        part.finding(f"{case}: other bytes than with room from the start")
