"""How progress is seen: a bar where there is a terminal (bar.py), else a line every few seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, Protocol, TextIO

from .meter import Meter

LINE_SECONDS: Final = 5.0  # between progress lines where there is no terminal, and in a log


class View(Protocol):
    """Is told after the meter was."""

    def begin(self, meter: Meter) -> None: ...

    def stage(self, meter: Meter) -> None: ...

    def advance(self, meter: Meter) -> None: ...

    def end(self, meter: Meter) -> None: ...


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that can go back in a line."""
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    except (OSError, ValueError):  # closed
        return False


def has_colours(stream: TextIO | None) -> bool:
    """Whether text on a stream may be coloured; see https://no-color.org for the variable."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


class Lines:
    """A line every few seconds of work."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told = 0.0

    def begin(self, meter: Meter) -> None:
        self._told = time.monotonic()

    def stage(self, meter: Meter) -> None:
        self.advance(meter)

    def advance(self, meter: Meter) -> None:
        now = time.monotonic()
        if now - self._told > LINE_SECONDS:
            self._told = now
            self._say(meter.line())

    def end(self, meter: Meter) -> None: ...

    def say(self, line: str) -> None:
        self._say(line)
