"""What ends a command before its end, as lines for people and as an exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import click

from ..errors import Problem, W8A8SCError
from ..text import one_line
from .spelling import spelled_problem

_MOST_PROBLEMS: Final = 50


class Terminated(BaseException):
    """SIGTERM arrived."""


@dataclass(frozen=True)
class Failure:
    """problems: what was wrong, in the command line's words; lines: what is said of it on standard error."""

    exit_code: int
    outcome: Literal["failed", "interrupted", "terminated"]
    lines: list[str]
    problems: list[Problem]


def failure(error: BaseException) -> Failure | None:
    """What an exception means; None for one that is no failure of a command."""
    if isinstance(error, W8A8SCError):
        problems = [spelled_problem(problem) for problem in error.problems]
        lines = [f"error: {problem}" for problem in problems[:_MOST_PROBLEMS]]
        if len(problems) > _MOST_PROBLEMS:
            lines.append(f"error: and {len(problems) - _MOST_PROBLEMS} more like these")
        return Failure(error.exit_code, "failed", lines, problems)
    if isinstance(error, click.ClickException):
        hint = f": see {error.ctx.command_path} --help" if isinstance(error, click.UsageError) and error.ctx else ""
        return _failed(f"{one_line(error.format_message()).removesuffix('.')}{hint}", 2)
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return Failure(130, "interrupted", ["interrupted: run the same command again"], [])
    if isinstance(error, Terminated):
        return Failure(143, "terminated", ["terminated: run the same command again"], [])
    if isinstance(error, MemoryError):
        return _failed("not enough memory: use fewer processes (-j)")
    if isinstance(error, Exception):
        text = one_line(f"{type(error).__name__}: {error}")
        return _failed(f"this is a defect of w8a8sc ({text}): report it with the output of W8A8SC_DEBUG=1")
    return None


def _failed(message: str, exit_code: int = 1) -> Failure:
    return Failure(exit_code, "failed", [f"error: {message}"], [Problem(message)])
