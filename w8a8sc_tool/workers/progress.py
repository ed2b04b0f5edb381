"""How jobs tell what they are doing, to whoever wants to know."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives a job's progress; the command line shows it, the API is silent unless given one."""

    def begin(self, label: str, total_bytes: int) -> None:
        """A stage begins that will work through so many bytes of input."""

    def advance(self, bytes_done: int, original: int = 0, compressed: int = 0) -> None:
        """So many more input bytes are done; of them so many of weights that were compressed to so many."""

    def end(self) -> None:
        """The stage is over."""

    def note(self, message: str) -> None:
        """Something a person should know."""


class Silent:
    """Tells nobody."""

    def begin(self, label: str, total_bytes: int) -> None: ...

    def advance(self, bytes_done: int, original: int = 0, compressed: int = 0) -> None: ...

    def end(self) -> None: ...

    def note(self, message: str) -> None: ...
