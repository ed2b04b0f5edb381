"""Going on: what an interrupted run made is checked, kept and completed to the same bytes."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from w8a8sc_tool import codec
from w8a8sc_tool.conversion import recorder
from w8a8sc_tool.conversion.convert import target_folder
from w8a8sc_tool.conversion.draft import DirectoryDraft
from w8a8sc_tool.errors import InputError, WorkError
from w8a8sc_tool.io import files
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.sharded_state import RankFile
from w8a8sc_tool.sharded_state import journal as journal_file
from w8a8sc_tool.workers.progress import Progress

from .. import tensors
from ..jobs.test_compress import WEIGHTS, digests


class Stopped(Exception):
    """Stands for Ctrl-C."""


class Watch(Progress):
    """Counts what is done in each stage, and stops compressing after some of the work."""

    def __init__(self, stop_after: float = 2.0) -> None:
        self.stop_after = stop_after
        self.stages: dict[str, int] = {}
        self.notes: list[str] = []
        self.total = self.skipped = 0
        self._stage = ""

    @property
    def done(self) -> int:
        return self.skipped + sum(self.stages.values())

    def begin(self, label: str, total_bytes: int, copied_bytes: int = 0) -> None:
        self.total += total_bytes
        self.stage(label)

    def stage(self, name: str) -> None:
        self._stage = name
        self.stages.setdefault(name, 0)

    def advance(self, bytes_done: int, original: int = 0, compressed: int = 0) -> None:
        self.stages[self._stage] += bytes_done
        if self.stages.get("compressing", 0) > self.stop_after * self.total:
            raise Stopped

    def skip(self, bytes_done: int) -> None:
        self.skipped += bytes_done

    def note(self, message: str) -> None:
        self.notes.append(message)


class AtOnce(ThreadPoolExecutor):
    """Waits for what it is given, so that what is recorded does not depend on timing."""

    def submit(self, *call: Any, **named: Any) -> Any:
        future = super().submit(*call, **named)
        future.exception()
        return future


class Later(AtOnce):
    """Says of everything that it is not done when it is first asked: more is made meanwhile."""

    def submit(self, *call: Any, **named: Any) -> Any:
        future = super().submit(*call, **named)
        answers = iter([False])
        future.done = lambda: next(answers, True)
        return future


@pytest.fixture(autouse=True)
def record_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "SYNC_BYTES", 1)
    monkeypatch.setattr(recorder, "ThreadPoolExecutor", AtOnce)


def stop(tiny: Path, output: Path, share: float, tp: list[int]) -> Path:
    """Begin a conversion and stop it; the partial folder of the first size."""
    with pytest.raises(Stopped):
        compress(tiny, output, tp=tp, name="Tiny", processes=1, progress=Watch(share))
    target = target_folder(output, "Tiny", tp[0])
    return target.with_name(target.name + ".partial")


@pytest.mark.parametrize(
    "share", [0.0, pytest.param(0.3, marks=pytest.mark.slow), 0.6, pytest.param(0.9, marks=pytest.mark.slow)]
)
def test_going_on_gives_the_bytes_of_an_undisturbed_run(
    share: float, tiny: Path, sealed: Callable[[int], Path], tmp_path: Path
) -> None:
    stop(tiny, tmp_path, share, [2, 4])
    watch = Watch()
    for result in compress(tiny, tmp_path, tp=[2, 4], name="Tiny", processes=2, progress=watch):
        assert digests(result.directory) == digests(sealed(result.tp))
    if share > 0.5:
        again = watch.stages["checking what an earlier run made"]
        assert 0 < again <= watch.skipped + again
        assert 0 < watch.stages["compressing"] < watch.skipped
        assert watch.stages["reading back"] == again  # once more, with what the others read back as they wrote it
    assert watch.done == watch.total


def test_going_on_twice_and_with_fewer_sizes(tiny: Path, sealed: Callable[[int], Path], tmp_path: Path) -> None:
    stop(tiny, tmp_path, 0.3, [2, 4])
    stop(tiny, tmp_path, 0.3, [2])
    for result in compress(tiny, tmp_path, tp=[1, 2, 4], name="Tiny", processes=2):
        assert digests(result.directory) == digests(sealed(result.tp))


def test_other_options_are_noticed(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop(tiny, tmp_path, 0.5, [2])
    with pytest.raises(InputError, match=r"options was .*now it is .*resume=False"):
        compress(tiny, tmp_path, tp=[2], name="Tiny", processes=1, max_ratio=0.9)
    monkeypatch.setattr(codec, "CODEC_VERSION", 2)
    with pytest.raises(InputError, match="codec_version was 1, now it is 2"):
        compress(tiny, tmp_path, tp=[2], name="Tiny", processes=1)
    compress(tiny, tmp_path, tp=[2], name="Tiny", processes=1, resume=False)


def test_another_source_is_noticed(tiny_copy: Path, tmp_path: Path) -> None:
    stop(tiny_copy, tmp_path / "out", 0.9, [2])
    content = tensors.read(tiny_copy / WEIGHTS)
    for name, (dtype, shape, data) in content.items():
        if name.endswith("proj.weight"):
            content[name] = (dtype, shape, data[:-1] + bytes([data[-1] ^ 1]))
    tensors.write(tiny_copy / WEIGHTS, content)
    with pytest.raises(InputError, match=r"another checkpoint: .* differs.*resume=False"):
        compress(tiny_copy, tmp_path / "out", tp=[2], name="Tiny", processes=1)


def test_damage_is_noticed(tiny: Path, tmp_path: Path) -> None:
    partial = stop(tiny, tmp_path, 0.9, [2])
    with (partial / "model-rank-1-part-0.safetensors").open("r+b") as file:
        file.seek(100_000)
        byte = file.read(1)
        file.seek(100_000)
        file.write(bytes([byte[0] ^ 4]))
    with pytest.raises(InputError, match=r"not what was written.*resume=False"):
        compress(tiny, tmp_path, tp=[2], name="Tiny", processes=1)


def test_a_journal_that_cannot_be_written_once(
    tiny: Path, sealed: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not recorded is recorded when the command gives up, though more has been completed meanwhile."""
    armed: list[bool] = []
    sync = DirectoryDraft.sync

    def arming(self: DirectoryDraft) -> None:
        if not armed and any(result.ratios for result in self.results.values()):
            armed.append(True)
        sync(self)

    def fail(operation: str, path: Path, details: tuple[Any, ...]) -> None:
        if operation == "writing" and path.name == journal_file.NAME and armed == [True]:
            armed.append(False)
            raise OSError(errno.EDQUOT, "quota")

    monkeypatch.setattr(recorder, "ThreadPoolExecutor", Later)
    with monkeypatch.context() as patch:
        patch.setattr(DirectoryDraft, "sync", arming)
        patch.setattr(files, "watcher", fail)
        with pytest.raises(WorkError, match="quota is used up"):
            compress(tiny, tmp_path, tp=[2], name="Tiny", processes=1)
    (result,) = compress(tiny, tmp_path, tp=[2], name="Tiny", processes=2)
    assert digests(result.directory) == digests(sealed(2))


@pytest.mark.parametrize(
    "lost", [1, pytest.param(7, marks=pytest.mark.slow), pytest.param(300, marks=pytest.mark.slow)]
)
def test_a_torn_journal_is_used_as_far_as_it_is_whole(
    lost: int, tiny: Path, sealed: Callable[[int], Path], tmp_path: Path
) -> None:
    partial = stop(tiny, tmp_path, 0.9, [2])
    path = partial / journal_file.NAME
    path.write_bytes(path.read_bytes()[:-lost])
    (result,) = compress(tiny, tmp_path, tp=[2], name="Tiny", processes=2)
    assert digests(result.directory) == digests(sealed(2))


def test_a_directory_that_was_sealed_but_not_put_in_place(
    tiny: Path, sealed: Callable[[int], Path], tmp_path: Path
) -> None:
    target = target_folder(tmp_path, "Tiny", 2)
    target.parent.mkdir(parents=True)
    shutil.copytree(sealed(2), target.with_name(target.name + ".partial"))
    watch = Watch()
    compress(tiny, tmp_path, tp=[2], name="Tiny", processes=2, progress=watch)
    assert list(watch.stages) == ["hashing the source", "reading back", "putting in place"]
    assert watch.done == watch.total
    assert digests(target) == digests(sealed(2))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: os.truncate(path, 100)], ids=["removed", "cut"])
def test_a_sealed_directory_that_has_lost_a_file_is_made_again(
    damage: Callable[[Path], None], tiny: Path, sealed: Callable[[int], Path], tmp_path: Path
) -> None:
    target = target_folder(tmp_path, "Tiny", 2)
    partial = target.with_name(target.name + ".partial")
    target.parent.mkdir(parents=True)
    shutil.copytree(sealed(2), partial)
    damage(partial / "model-rank-1-part-0.safetensors")
    compress(tiny, tmp_path, tp=[2], name="Tiny", processes=1)
    assert digests(target) == digests(sealed(2))


def test_a_file_that_is_removed_in_the_making(
    tiny: Path, sealed: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sealed then, not even unread, and the same command finishes."""
    finish = RankFile.finish

    def lose(self: RankFile) -> object:
        result = finish(self)
        self.path.unlink()
        return result

    monkeypatch.setattr(RankFile, "finish", lose)
    with pytest.raises(WorkError, match="was removed or cut while it was in the making"):
        compress(tiny, tmp_path, tp=[2], name="Tiny", processes=1, verify=False)
    monkeypatch.undo()
    (result,) = compress(tiny, tmp_path, tp=[2], name="Tiny", processes=1)
    assert digests(result.directory) == digests(sealed(2))


def test_two_runs_on_one_target(tiny: Path, tmp_path: Path) -> None:
    partial = stop(tiny, tmp_path, 0.5, [2])
    held = files.lock(partial)
    assert held is not None
    with pytest.raises(WorkError, match="another run is working on it"):
        compress(tiny, tmp_path, tp=[2], name="Tiny", processes=1)
