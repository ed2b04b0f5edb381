"""What the command line shows: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from ..errors import WorkError
from ..text import one_line, some_lines
from ..workers.progress import Progress
from .meter import FINISHING, Meter
from .spelling import spelled
from .views import Lines, View, has_colours, is_terminal

if TYPE_CHECKING:
    from .bar import Bar
    from .job_log import JobLog

_COLOURS: Final = {"error": "red", "note": "yellow", "interrupted": "yellow", "terminated": "yellow"}


def drop(stream: TextIO) -> None:
    """Let what is still to be printed go nowhere, and keep the interpreter from complaining when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(line: str) -> None:
    """Print a line on standard error, if there is one: a job does not fail because nobody can be told of it."""
    if sys.stderr is None:
        return
    word, colon, rest = line.partition(":")
    if word in _COLOURS and has_colours(sys.stderr):
        line = f"{click.style(word + colon, fg=_COLOURS[word])}{rest}"
    print(line, file=_Lenient(sys.stderr), flush=True)


def _bar() -> Bar:
    from .bar import Bar

    return Bar(_Lenient(sys.stderr), say)


class _Lenient:
    """A stream that goes on when it cannot be written to any more, as after the end of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            drop(self._stream)
        except ValueError:  # it is closed
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Output(Progress):
    """Where a command's results, notes and progress go.

    Names are printed with escapes for what is not to be shown.
    """

    def __init__(
        self, *, as_json: bool = False, quiet: bool = False, makes: bool = False, log: JobLog | None = None
    ) -> None:
        """makes: the command has made something, so that it has not failed if its result cannot be printed."""
        self.as_json = as_json
        self.quiet = quiet
        self._makes = makes
        self._meter = Meter()
        self._log = log
        self._shown: Bar | Lines | None = None
        if not quiet:
            self._shown = _bar() if is_terminal(sys.stderr) else Lines(say)
        self._views: list[View] = [view for view in (self._shown, log) if view is not None]
        if log is not None:
            log.watch(self._meter)

    @property
    def silent(self) -> bool:
        """Whether nobody gets a result or a note."""
        return self.quiet and not self.as_json and self._log is None

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
        if self._log is not None:
            self._log.event("result", document=content)
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
        if self._log is not None:
            self._log.event("note", message=spelled(message))
        if self._shown is not None:
            self._shown.say(f"note: {one_line(spelled(message))}")

    def begin(self, label: str, total_bytes: int, copied_bytes: int = 0) -> None:
        self._meter.begin(label, total_bytes, copied_bytes)
        for view in self._views:
            view.begin(self._meter)

    def stage(self, name: str) -> None:
        if name == self._meter.stage:
            return
        self._meter.enter(name)
        for view in self._views:
            view.stage(self._meter)

    def advance(self, bytes_done: int, original: int = 0, compressed: int = 0) -> None:
        self._meter.advance(bytes_done, original, compressed)
        for view in self._views:
            view.advance(self._meter)

    def skip(self, bytes_done: int) -> None:
        self._meter.skip(bytes_done)
        for view in self._views:
            view.advance(self._meter)

    def end(self) -> None:
        for view in self._views:
            view.end(self._meter)
        self._meter.enter(FINISHING)

    def times(self) -> None:
        """Say how long each stage of the work took, if there was any."""
        if self._meter.begun and self._shown is not None:
            self._shown.say(f"times: {self._meter.summary()}")
