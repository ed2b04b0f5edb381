"""What the command line shows: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from tqdm import tqdm

_LINE_SECONDS: Final = 5.0  # between progress lines where there is no terminal


def size(count: float) -> str:
    """Bytes for people, in powers of 1000 as disks are sold."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _print(text: str) -> None:
    """Print a result; if nobody reads standard output any more (`| head`), the command goes on without."""
    try:
        print(text)
    except BrokenPipeError:
        drop_stdout()


def drop_stdout() -> None:
    """Let what is still to be printed go nowhere, and keep the interpreter from complaining when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Output:
    """Where a command's results, notes and progress go; also a job's Progress."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self._bar: tqdm[Any] | None = None
        self._label = ""
        self._total = self._done = self._original = self._compressed = 0
        self._begun = self._told = 0.0

    def result(self, text: str) -> None:
        """A line of the result, for people."""
        if not self.as_json and not self.quiet:
            _print(text)

    def stream(self, text: str) -> None:
        """A piece of the result, for people, as it comes."""
        if text and not self.as_json and not self.quiet:
            try:
                print(text, end="", flush=True)
            except BrokenPipeError:
                drop_stdout()

    def document(self, content: object) -> None:
        """The result as one JSON document."""
        if self.as_json:
            _print(json.dumps(content, indent=1, ensure_ascii=False))

    def table(self, rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
        """Aligned columns, the first row the heading; columns in `right` are set flush right."""
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            cells = [
                cell.rjust(width) if number in right else cell.ljust(width)
                for number, (cell, width) in enumerate(zip(row, widths))
            ]
            self.result("  ".join(cells).rstrip())

    def note(self, message: str) -> None:
        if not self.quiet:
            self._say(f"note: {message}")

    def begin(self, label: str, total_bytes: int) -> None:
        self._label, self._total = label, total_bytes
        self._done = self._original = self._compressed = 0
        self._begun = self._told = time.monotonic()
        if self.quiet:
            return
        if sys.stderr.isatty():
            self._bar = tqdm(total=total_bytes, desc=label, unit="B", unit_scale=True, file=sys.stderr, leave=False)

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
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)
