"""--log: JSON lines as docs/json.md lists them, that are there whatever ends the command, and never in its way."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from w8a8sc_tool.cli import job_log
from w8a8sc_tool.cli.main import run
from w8a8sc_tool.cli.meter import Meter
from w8a8sc_tool.conversion.convert import target_folder
from w8a8sc_tool.io import files
from w8a8sc_tool.io.failures import work_failure

from .halted import end_at_work
from .test_json import PAGE, is_of


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def listed() -> dict[str, dict[str, str]]:
    """By event, its keys with their types."""
    section = PAGE.read_text().partition("\n## Log\n")[2].partition("\n## ")[0]
    parts = re.split(r"^### `(\w+)`$", section, flags=re.M)
    tables = [dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", text, flags=re.M)) for text in parts[::2]]
    return {name: tables[0] | table for name, table in zip(parts[1::2], tables[1:])}


def check(lines: list[dict[str, Any]]) -> None:
    """Every line is of an event on the page, with the keys and types that the page gives."""
    page = listed()
    for line in lines:
        wanted = page[line["event"]]
        assert set(line) == {key for key in wanted if ".*" not in key}, line
        for key, types in wanted.items():
            values = line[key.removesuffix(".*")].values() if key.endswith(".*") else [line[key]]
            assert all(is_of(value, types) for value in values) or types == "any", (line, key)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])


def names(lines: list[dict[str, Any]]) -> list[str]:
    return [line["event"] for line in lines]


def test_a_conversion_and_what_follows(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_log, "LINE_SECONDS", 0.0)
    log = tmp_path / "night.log"
    output = ("-o", str(tmp_path), "-j", "1", "-q", "--log", str(log))
    assert run(["compress", str(tiny), "--tp", "2", *output]) == 0
    lines = events(log)
    check(lines)
    start, *middle, result, end = lines
    assert start["command"] == "compress" and start["options"]["model"] == str(tiny)
    assert start["options"]["tp"] == [2] and start["options"]["verify"] is True and "log" not in start["options"]
    assert set(start["versions"]) >= {"w8a8sc", "python", "numpy", "numba"}
    stages = [line["stage"] for line in middle if line["event"] == "stage"]
    assert stages[-4:] == ["waiting for the disk", "sealing", "reading back", "putting in place"]
    (work,) = [line for line in middle if line["event"] == "work"]
    progress = [line for line in middle if line["event"] == "progress"]
    assert len(progress) > 5 and progress[-1]["done_bytes"] == progress[-1]["total_bytes"] == work["total_bytes"]
    assert 0.3 < progress[-1]["ratio"] < 1
    assert result["document"][0]["directory"] == str(target_folder(tmp_path, "Tiny", 2))
    assert (end["outcome"], end["exit_code"]) == ("done", 0)
    assert {"preparing", "compressing", *stages} <= set(end["stages"])
    assert sum(end["stages"].values()) == pytest.approx(end["seconds"], abs=0.1)

    made = str(target_folder(tmp_path, "Tiny", 2))
    assert run(["verify", made, "-j", "1", "-q", "--log", str(log)]) == 0
    assert run(["reshard", made, "--tp", "1", *output]) == 0
    batch = tmp_path / "batch.yaml"
    batch.write_text(f"jobs: [{{model: {tiny}, name: Tiny, tp: 4}}, {{model: {tiny}, name: Other}}]\nprocesses: 1\n")
    target_folder(tmp_path, "Other", 1).mkdir(parents=True)
    assert run(["batch", str(batch), "-q", "--log", str(log)]) == 1
    assert events(log)[: len(lines)] == lines, "a log is appended to"
    check(events(log))
    whole = events(log)
    assert [line["command"] for line in whole if line["event"] == "start"] == ["compress", "verify", "reshard", "batch"]
    assert [line["exit_code"] for line in whole if line["event"] == "end"] == [0, 0, 0, 1]
    assert any("job 2 of 2 failed" in line["message"] for line in whole if line["event"] == "note")
    assert [line["stage"] for line in whole if line["event"] == "stage"][-2:] == ["putting in place", "2 jobs"]


def test_errors_are_logged(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert run(["compress", "/no/such/model", "--log", str(log)]) == 3
    assert run(["decompress", "/no/such", "--checkpoint", "--no-resume", "--log", str(log)]) == 2
    lines = events(log)
    check(lines)
    assert names(lines) == ["start", "error", "end"] * 2
    assert (lines[1]["message"], lines[1]["where"]) == ("no such folder", "/no/such/model")
    assert (lines[2]["outcome"], lines[2]["exit_code"]) == ("failed", 3)
    assert "--no-resume does not go with --checkpoint" in lines[4]["message"]


@pytest.mark.parametrize("fault", ["folder", "missing", "full", "fifo"])
def test_a_log_that_cannot_be_written_is_an_error_before_the_work(
    fault: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = {"folder": tmp_path, "missing": tmp_path / "no" / "log", "full": Path("/dev/full")}.get(fault)
    if path is None:
        path = tmp_path / "fifo"
        os.mkfifo(path)  # nobody reads it
    assert run(["compress", str(tiny), "-o", str(tmp_path / "out"), "--log", str(path)]) == 3
    errors = capsys.readouterr().err
    assert errors.startswith("error: the log cannot be written: ") and errors.count("\n") == 1 and str(path) in errors
    assert not (tmp_path / "out").exists()


def test_a_log_that_fails_later_is_a_warning_and_nothing_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full for a while; a line may have been written in part."""
    log, append = tmp_path / "log", files.append
    with job_log.JobLog(log, "compress", {}) as journal:
        journal.watch(Meter())

        def full(fd: int, path: Path, data: bytes) -> int:
            if len(data) > 30:
                return append(fd, path, data[:30])
            raise work_failure("writing", OSError(errno.ENOSPC, "No space left on device"), path)

        with monkeypatch.context() as patch:
            patch.setattr(files, "append", full)
            for number in range(3):
                journal.event("note", message=f"number {number}")
        assert log.read_bytes()[-1:] != b"\n"
        journal.done(0)
    lines = events(log)
    check(lines)
    assert [line.get("message") for line in lines] == [None, "number 0", "number 1", "number 2", None]
    warnings = capsys.readouterr().err
    assert warnings.startswith("note: the log cannot be written: writing failed (No space left on device)")
    assert warnings.count("\n") == 1


def test_a_line_without_an_end_stays_one(tmp_path: Path) -> None:
    """A command was killed while the disk was full: what follows is not joined to what is left of its last line."""
    log = tmp_path / "log"
    log.write_text('{"half')
    for _ in range(2):
        assert run(["verify", "/no/such", "-q", "--log", str(log)]) == 3
    half, rest = log.read_text().split("\n", 1)
    assert half == '{"half' and names([json.loads(line) for line in rest.splitlines()]) == ["start", "error", "end"] * 2


def test_progress_is_logged_every_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    meter = Meter(time.monotonic)
    log = tmp_path / "log"
    with job_log.JobLog(log, "verify", {}) as journal:
        meter.begin("verifying", 10_000, 0)
        journal.begin(meter)
        for _ in range(1000):
            now[0] += 0.1
            meter.advance(10)
            journal.advance(meter)
        journal.done(0)
    lines = [line for line in events(log) if line["event"] == "progress"]
    assert 18 <= len(lines) <= 20
    assert lines[10]["bytes_per_second"] == 100
    assert lines[10]["seconds_left"] == pytest.approx((10_000 - lines[10]["done_bytes"]) / 100, abs=2)


def test_a_download_is_part_of_the_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told by an output of its own, before the command has one."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    log = tmp_path / "log"
    with job_log.JobLog(log, "verify", {}) as journal:
        for stage, seconds in (("downloading", 60.0), ("verifying", 5.0)):
            meter = Meter(time.monotonic)
            journal.watch(meter)
            meter.begin(stage, 1, 0)
            now[0] += seconds
            meter.enter("finishing")
        journal.done(0)
    end = events(log)[-1]
    assert end["seconds"] == 65 and end["stages"] == pytest.approx(
        {"preparing": 0, "downloading": 60, "finishing": 0, "verifying": 5}, abs=0.1
    )


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGINT, signal.SIGKILL))],
)
def test_it_is_there_after_the_end(number: int, tmp_path: Path) -> None:
    """Of a command that is ended in the middle of its work, however that is done."""
    source, log = tmp_path / "m", tmp_path / "log"
    assert run(["synthesize", str(source), "-q"]) == 0
    end_at_work(number, "compress", source, "-o", tmp_path, "-j", "1", "-q", "--log", log)
    lines = events(log)
    check(lines)
    assert lines[0]["event"] == "start" and "work" in names(lines)
    if number != signal.SIGKILL:
        assert lines[-1]["event"] == "end"
        expected = ("interrupted", 130) if number == signal.SIGINT else ("terminated", 143)
        assert (lines[-1]["outcome"], lines[-1]["exit_code"]) == expected


def test_any_name_can_be_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    name = os.fsdecode(b"/no/\xff\n\x1b[2J")
    assert run(["verify", name, "--log", str(log)]) == 3
    lines = events(log)
    check(lines)
    assert lines[0]["options"]["path"] == name and len(lines) == 3


def test_the_page_lists_every_event() -> None:
    source = Path(job_log.__file__).read_text() + (Path(job_log.__file__).parent / "output.py").read_text()
    assert set(listed()) == set(re.findall(r'event\(\s*"(\w+)"', source))


def test_documents_go_where_they_went(
    sealed: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--json and --log have the same document."""
    assert run(["verify", str(sealed(2)), "--quick", "--json", "--log", str(tmp_path / "log")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [line["document"] for line in events(tmp_path / "log") if line["event"] == "result"] == [printed]
