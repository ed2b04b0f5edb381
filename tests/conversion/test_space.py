"""Room on the disk: what an interrupted run left of its own counts, whatever the command; also on a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from w8a8sc_tool.conversion.convert import target_folder
from w8a8sc_tool.conversion.space import check_space, held_bytes
from w8a8sc_tool.errors import InputError, WorkError
from w8a8sc_tool.io import files, reading
from w8a8sc_tool.jobs.compress import compress, plan
from w8a8sc_tool.jobs.reshard import reshard, to_checkpoint
from w8a8sc_tool.workers.progress import Progress

from ..jobs.test_compress import digests
from .test_resume import record_everything, stop

__all__ = ["record_everything"]


def needed(attempt: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that have to be free for an attempt to begin: found by trying, with 1 % to spare."""
    low, high = 0, 1 << 32
    with monkeypatch.context() as patch:
        patch.setattr(files, "watcher", _no_writing)
        while high - low > max(high // 100, 1000):
            middle = (low + high) // 2
            patch.setattr(reading, "free_bytes", lambda folder, free=middle: free)
            try:
                attempt()
            except InputError as refusal:
                assert "are needed" in str(refusal)
                low = middle
            except Began:
                high = middle
            else:
                high = middle
    return high


class Began(Exception):
    """The work would begin now."""


def _no_writing(operation: str, path: Path, details: object) -> None:
    if operation != "opening the folder":
        raise Began


def test_what_an_interrupted_run_holds_counts(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At one size and at several; more is done, less is needed."""
    sizes = [2, 4]
    whole = last = needed(lambda: plan(tiny, tmp_path, tp=sizes, name="Tiny"), monkeypatch)
    for share in (0.3, 0.9):
        output = tmp_path / str(share)
        stop(tiny, output, share, sizes)
        held = sum(held_bytes(partial) for partial in output.rglob("*.partial"))
        rest = needed(lambda: plan(tiny, output, tp=sizes, name="Tiny"), monkeypatch)  # noqa: B023 (called at once)
        assert held > 0 and rest < last
        assert abs(rest - max(0, whole - held * 1.1)) < 0.15 * whole
        last = rest
        discarded = needed(lambda: plan(tiny, output, tp=sizes, name="Tiny", resume=False), monkeypatch)  # noqa: B023
        assert discarded < whole - 0.9 * held


@pytest.mark.parametrize("checkpoint", [False, True])
def test_resharding_and_decompressing_know_what_is_there(
    checkpoint: bool, sealed: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = sealed(2)

    def attempt() -> object:
        if checkpoint:
            return to_checkpoint(directory, tmp_path)
        return reshard(directory, tmp_path, tp=2, compress=False, processes=1)

    whole = needed(attempt, monkeypatch)
    target = tmp_path / "Tiny-w8a8s-310" if checkpoint else target_folder(tmp_path, "Tiny", 2, "w8a8s")
    partial = target.with_name(target.name + ".partial")
    partial.mkdir(parents=True)
    (partial / "model-rank-0-part-0.safetensors").write_bytes(os.urandom(3_000_000))
    rest = needed(attempt, monkeypatch)
    assert abs(whole - rest - 3_300_000) < 0.02 * whole + 10_000


def test_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes as everywhere else, the margin, and what is missing."""
    monkeypatch.setattr(reading, "free_bytes", lambda folder: 5_000_000)
    with pytest.raises(InputError) as refusal:
        check_space({tmp_path / "a": 4_000_000, tmp_path / "b": 6_000_000, tmp_path / "c": -1_000_000})
    assert str(refusal.value) == (
        f"about 9.0 MB more are needed, with a margin of 900.0 kB, and 5.0 MB are free, {tmp_path}: "
        "make room for 4.9 MB, or choose another output"
    )
    check_space({tmp_path / "a": 4_000_000})
    check_space({tmp_path / "a": -1})


# Run with a small disk of its own, a tmpfs that nobody else sees. Prints "no disk" where that cannot be had.
ON_A_SMALL_DISK = """
import subprocess, sys
from pathlib import Path
disk = Path(sys.argv[1])
if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={sys.argv[2]}", "tmpfs", disk]).returncode:
    print("no disk")
    sys.exit()
from tests.conversion import test_space
test_space.fill_and_go_on(disk, Path(sys.argv[3]))
"""


def fill_and_go_on(disk: Path, source: Path) -> None:
    """The disk is full in the middle of a run; with room for the rest, and no more than that, the command goes on."""
    ballast = disk / "ballast"
    whole = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize

    class Filling(Progress):
        """Takes all but a third of what is needed as soon as the work begins."""

        def begin(self, label: str, total_bytes: int, copied_bytes: int = 0) -> None:
            if label == "compressing" and not ballast.exists():
                ballast.write_bytes(bytes(whole - total_bytes // 5))

    try:
        compress(source, disk, tp=2, name="Tiny", processes=1, progress=Filling())
    except WorkError as error:
        print("full:", "goes on where it stopped" in str(error))
    partial = target_folder(disk, "Tiny", 2)
    held = held_bytes(partial.with_name(partial.name + ".partial"))
    try:
        compress(source, disk, tp=2, name="Tiny", processes=1)
    except InputError as error:
        print("refused:", "are needed" in str(error))
    ballast.unlink()
    (made,) = plan(source, tp=2)
    rest = made.estimated_bytes() - held
    ballast.write_bytes(bytes(whole - held - int(rest * 1.2) - 200_000))
    (result,) = compress(source, disk, tp=2, name="Tiny", processes=1)
    ballast.unlink()
    print("held:", held > 0, "done:", result.directory.is_dir(), *sorted(digests(result.directory).values()))


def test_a_disk_that_is_really_full(tiny: Path, sealed: Callable[[int], Path], tmp_path: Path) -> None:
    command = ["unshare", "-m" if os.getuid() == 0 else "-rm", sys.executable, "-c", ON_A_SMALL_DISK]
    (tmp_path / "disk").mkdir()
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}"}
    try:
        done = subprocess.run(
            [*command, str(tmp_path / "disk"), "64m", str(tiny)], capture_output=True, text=True, env=environment
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if "no disk" in done.stdout or "unshare" in done.stderr:
        pytest.skip("no file system may be mounted here")
    assert done.returncode == 0, done.stderr
    wanted = " ".join(sorted(digests(sealed(2)).values()))
    assert done.stdout.splitlines() == ["full: True", "refused: True", f"held: True done: True {wanted}"]
