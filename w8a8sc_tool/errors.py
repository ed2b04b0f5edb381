"""The errors of the project: what is wrong, where, and what to do, with the exit code that goes with each kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .text import one_line


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what it is, where (file and key), and what to do about it."""

    message: str
    where: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        """One line, whatever names are in it."""
        text = f"{self.message}, {self.where}" if self.where else self.message
        return one_line(f"{text}: {self.remedy}" if self.remedy else text)


class W8A8SCError(Exception):
    """Something that a user can understand and mend; `problems` holds one entry or, in a report, many."""

    exit_code = 1

    def __init__(self, message: str | Sequence[Problem], where: str = "", remedy: str = "") -> None:
        self.problems = [Problem(message, where, remedy)] if isinstance(message, str) else list(message)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problems,)


class WorkError(W8A8SCError):
    """The work failed on its way: a worker died, the disk filled up, a check found something."""

    exit_code = 1


class UsageError(W8A8SCError):
    """The command or the call cannot mean anything."""

    exit_code = 2


class InputError(W8A8SCError):
    """The input is bad: a wrong path, a damaged file, a checkpoint that does not fit together."""

    exit_code = 3


class AccessError(InputError):
    """A file system refuses: no permission, a name it cannot hold, a disk or share that fails."""


class MissingError(W8A8SCError):
    """The environment lacks something."""

    exit_code = 4


def refuse(problems: Iterable[Problem]) -> None:
    """Raise one InputError with all problems, if there are any."""
    listed = list(problems)
    if listed:
        raise InputError(listed)
