"""What is shown of progress, and where: a bar that fits on terminals of any width, plain lines elsewhere, colours."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from w8a8sc_tool.cli import meter, views
from w8a8sc_tool.cli.output import Output, say
from w8a8sc_tool.errors import WorkError
from w8a8sc_tool.workers.progress import working

from .test_cli import TIMES

SGR = re.compile(r"\x1b\[[\d;]*m")


class Terminal:
    """A real one, of which the test reads what a person would see."""

    def __init__(self, columns: int) -> None:
        self._master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.written = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        data = b""
        with contextlib.suppress(OSError):  # nobody has the other end any more
            while more := os.read(self._master, 65536):
                data += more
        self.written = data.decode()

    def close(self) -> None:
        """Wait for the end of what is written; all others have closed it."""
        os.close(self.slave)
        self._reader.join()
        os.close(self._master)

    def states(self) -> Iterator[list[str]]:
        """The lines after each return to the first column, as the terminal shows them."""
        lines = [""]
        for piece in re.split(r"(\r\n|\r|\n)", SGR.sub("", self.written)):
            if piece in ("\r\n", "\n"):
                lines.append("")
            elif piece != "\r":
                assert "\x1b" not in piece, repr(piece)
                lines[-1] = piece + lines[-1][len(piece) :]
            yield [line.rstrip() for line in lines]

    def screen(self) -> list[str]:
        return [line for line in list(self.states())[-1] if line]


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    hands = Clock()
    for name in ("time.monotonic", "tqdm.std.time"):
        monkeypatch.setattr(name, hands)
    monkeypatch.setattr(meter.Meter.__init__, "__defaults__", (hands,))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return hands


@contextlib.contextmanager
def terminal(columns: int = 80) -> Iterator[Terminal]:
    """Standard error is a terminal of so many columns."""
    screen = Terminal(columns)
    with pytest.MonkeyPatch.context() as patch, os.fdopen(os.dup(screen.slave), "w", encoding="utf-8") as stream:
        patch.setattr(sys, "stderr", stream)
        yield screen
    screen.close()


def work(out: Output, clock: Clock) -> None:
    """A job of four minutes, with a note in the middle of it."""
    with working(out, "checking what an earlier run made", 8_000_000_000, 1_000_000_000):
        for number in range(160):
            clock.now += 1.5 if number >= 20 else 0.15
            if number == 20:
                out.stage("compressing")
            if number == 80:
                out.note("the disk {0} cannot sync folders")
            out.advance(50_000_000, *((100, 71) if number >= 20 else ()))
        out.stage("waiting for the disk")
        clock.now += 3
    out.times()


@pytest.mark.parametrize("columns", [200, 80, 60, 40, 20, 5])
def test_the_bar_fits(columns: int, clock: Clock) -> None:
    with terminal(columns) as screen:
        work(Output(), clock)
    bars = {lines[-1] for lines in screen.states() if lines[-1]}
    bars = {line for line in bars if not line.startswith(("note", "times"))}
    assert bars and all(len(line) < columns for line in bars)
    if columns >= 80:
        full = (
            r"compressing  [5-9]\d% \|.+\| \d.\d\d GB of 8.00 GB, 33 MB/s, (ratio 0.710, )?(\d min \d\d s|\d\d? s) left"
        )
        assert any(re.fullmatch(full, line) for line in bars), bars
    if columns >= 40:
        assert any(re.match(r"compressing  \d\d% .*\d s left$", line) for line in bars)
        assert any(line.startswith("checking what an earlier run made") for line in bars)
        assert any(line.startswith("waiting for the disk 100%") for line in bars)
    note, times = "".join(screen.screen()).split("times: ")
    assert note == "note: the disk {0} cannot sync folders"  # and nothing is left of the bar
    stages = "checking what an earlier run made 4.5 s, compressing 3 min 28 s, waiting for the disk 3.0 s"
    assert times == f"{stages}; 3 min 36 s in all"


def test_a_failure_stands_in_a_line_of_its_own(clock: Clock) -> None:
    with terminal() as screen:
        out = Output()
        with pytest.raises(WorkError), working(out, "compressing", 1000):
            clock.now += 1
            out.advance(10)
            raise WorkError("the disk is full")
        say("error: the disk is full")
    assert any("compressing   1%" in line for lines in screen.states() for line in lines)
    assert screen.screen() == ["error: the disk is full"]


def test_colours_only_where_they_are_wanted(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def written() -> str:
        with terminal() as screen:
            say("error: it: failed")
        return screen.written

    assert written() == "\x1b[31merror:\x1b[0m it: failed\r\n"
    monkeypatch.setenv("NO_COLOR", "")  # an empty value does not count
    assert "\x1b" in written()
    monkeypatch.setenv("NO_COLOR", "1")
    assert written() == "error: it: failed\r\n"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert written() == "error: it: failed\r\n"
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    say("error: it: failed")
    assert stream.getvalue() == "error: it: failed\n"


@pytest.mark.parametrize("dumb", [True, False])
def test_plain_lines_where_nothing_can_be_drawn(dumb: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a dumb terminal and in a file: at intervals, and no control characters."""
    if dumb:
        monkeypatch.setenv("TERM", "dumb")
        with terminal() as screen:
            work(Output(), clock)
        text = screen.written.replace("\r\n", "\n")
    else:
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        work(Output(), clock)
        text = stream.getvalue()
    assert re.fullmatch(r"[ -~\n]+", text)
    lines = text.splitlines()
    assert 25 < len(lines) < 240 / views.LINE_SECONDS + 5
    assert re.fullmatch(r"compressing: 61% of 8.00 GB, 33 MB/s, ratio 0.710, 1 min 3\d s left", lines[20]), lines[20]
    assert lines[-1].startswith("times: ")


def test_quiet_says_nothing(clock: Clock) -> None:
    with terminal() as screen:
        work(Output(quiet=True), clock)
    assert screen.written == ""


def test_nobody_listens(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A standard error that is closed, gone, or fails: the work goes on."""
    closed = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    closed.close()
    for stream in (closed, None):
        monkeypatch.setattr(sys, "stderr", stream)
        work(Output(), clock)
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        work(Output(), clock)


def test_a_terminal_that_goes_away(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        out = Output()
        out.begin("compressing", 100)
        os.close(master)
        for _ in range(3):
            clock.now += 1
            out.advance(10)
        out.end()
        out.times()


def test_hours() -> None:
    assert [meter.duration(seconds) for seconds in (0.04, 59.4, 60, 3599, 3600, 90_000)] == [
        *("0.0 s", "59.4 s", "1 min 00 s", "59 min 59 s", "1 h 00 min", "25 h 00 min"),
    ]


def test_a_command_on_a_terminal(tiny: Path, tmp_path: Path) -> None:
    """The whole of it, with workers, on a terminal of 80 columns."""
    screen = Terminal(80)
    command = [sys.executable, "-m", "w8a8sc_tool", "compress", str(tiny), "-o", str(tmp_path), "-j", "1"]
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    result = subprocess.run(command, stderr=screen.slave, stdout=subprocess.DEVNULL, env=environment)
    screen.close()
    assert result.returncode == 0
    assert "\x1b[33mnote:\x1b[0m" in screen.written
    shown = [line for lines in screen.states() for line in lines]
    for stage in ("compressing", "waiting for the disk", "sealing", "reading back"):
        assert any(re.match(rf"{stage} +\d+% \|.*\| .* of ", line) for line in shown), stage
    note, times = screen.screen()
    assert note.startswith("note: compressing with native")
    assert re.fullmatch(TIMES, times)
