"""What the command line shows: results on standard output, everything else on standard error."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, TextIO

from tqdm import tqdm

from ..errors import WorkError
from ..io.amounts import size
from ..text import one_line, some_lines
from .spelling import spelled

_LINE_SECONDS: Final = 5.0  # between progress lines where there is no terminal


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def prepare_streams() -> None:
    """Have what an encoding cannot spell printed with backslash escapes, whatever the environment asks for.

    The number of a standard stream that is closed is given to nothing else: files and sockets of the work, which its
    processes inherit, would be taken for it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def drop(stream: TextIO) -> None:
    """Let what is still to be printed go nowhere, and keep the interpreter from complaining when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(line: str) -> None:
    """Print a line on standard error, if there is one: a job does not fail because nobody can be told of it."""
    if sys.stderr is not None:
        print(line, file=_Lenient(sys.stderr), flush=True)


class _Lenient:
    """A stream that goes on when it cannot be written to any more, as after the end of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            drop(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Output:
    """Where a command's results, notes and progress go; also a job's Progress.

    Names are printed with escapes for what is not to be shown.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False, makes: bool = False) -> None:
        """makes: the command has made something, so that it has not failed if its result cannot be printed."""
        self.as_json = as_json
        self.quiet = quiet
        self._makes = makes
        self._bar: tqdm[Any] | None = None
        self._bar_stream: Any = None
        self._label = ""
        self._total = self._done = self._original = self._compressed = 0
        self._begun = self._told = 0.0

    def result(self, text: str) -> None:
        """A line of the result, for people."""
        if not self.as_json and not self.quiet:
            self._print(f"{one_line(text)}\n")

    def stream(self, text: str) -> None:
        """A piece of the result, for people, as it comes."""
        if text and not self.as_json and not self.quiet:
            self._print(some_lines(text))

    def document(self, content: object) -> None:
        """The result as one JSON document, with JSON's escapes if there is text that cannot be printed as it is."""
        if not self.as_json:
            return
        text = json.dumps(content, indent=1, ensure_ascii=False)
        try:
            text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
        except UnicodeEncodeError:
            text = json.dumps(content, indent=1)
        self._print(f"{text}\n")

    def _print(self, text: str) -> None:
        """Print a result; if nobody reads standard output any more (`| head`), the command goes on without."""
        try:
            print(text, end="", flush=True)
        except BrokenPipeError:
            drop(sys.stdout)
        except OSError as error:
            drop(sys.stdout)
            problem = f"the result cannot be printed ({error.strerror or error})"
            if not self._makes:
                raise WorkError(problem, "standard output") from None
            self.note(f"{problem}; what was made is complete")

    def table(self, rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
        """Aligned columns, the first row the heading; columns in `right` are set flush right."""
        rows = [[one_line(cell) for cell in row] for row in rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            cells = [
                cell.rjust(width) if number in right else cell.ljust(width)
                for number, (cell, width) in enumerate(zip(row, widths))
            ]
            self.result("  ".join(cells).rstrip())

    def note(self, message: str) -> None:
        if not self.quiet:
            self._say(f"note: {one_line(spelled(message))}")

    def begin(self, label: str, total_bytes: int) -> None:
        self._label, self._total = label, total_bytes
        self._done = self._original = self._compressed = 0
        self._begun = self._told = time.monotonic()
        if self.quiet:
            return
        if sys.stderr is not None and sys.stderr.isatty():
            options: dict[str, Any] = {"unit": "B", "unit_scale": True, "leave": False}
            self._bar_stream = _Lenient(sys.stderr)
            self._bar = tqdm(total=total_bytes, desc=label, file=self._bar_stream, **options)

    def advance(self, bytes_done: int, original: int = 0, compressed: int = 0) -> None:
        self._done += bytes_done
        self._original += original
        self._compressed += compressed
        if self._bar is not None:
            if self._original:
                self._bar.set_postfix_str(f"ratio {self._compressed / self._original:.3f}", refresh=False)
            self._bar.update(bytes_done)
        elif not self.quiet and time.monotonic() - self._told > _LINE_SECONDS:
            self._told = time.monotonic()
            self._say(self._line())

    def _line(self) -> str:
        elapsed = max(time.monotonic() - self._begun, 1e-6)
        share = self._done / self._total if self._total else 1.0
        left = elapsed / share - elapsed if share else 0.0
        ratio = f", ratio {self._compressed / self._original:.3f}" if self._original else ""
        speed = f"{self._done / elapsed / 1e6:.0f} MB/s"
        return f"{self._label}: {share:.0%} of {size(self._total)}, {speed}{ratio}, {duration(left)} left"

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=self._bar_stream)
        else:
            say(line)
