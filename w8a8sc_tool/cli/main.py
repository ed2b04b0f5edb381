"""The `w8a8sc` command: its entry point, and how every failure becomes one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from importlib import import_module
from typing import Any

import click

from ..errors import W8A8SCError
from ..text import one_line
from .group import group
from .output import drop, prepare_streams, say
from .spelling import spelled_problem

__all__ = ["group", "main", "run"]

# Their commands add themselves to the group.
for _module in ("convert", "check", "report", "run", "prepare"):
    import_module(f"w8a8sc_tool.cli.{_module}")

_MOST_PROBLEMS = 50


class _Terminated(BaseException):
    """SIGTERM arrived."""


def _terminate(*_: Any) -> None:
    raise _Terminated


def main() -> None:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _terminate)
    prepare_streams()
    code = run(sys.argv[1:])
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        drop(sys.stdout)
    except OSError as error:  # of help; commands say it themselves
        say(f"error: standard output cannot be written to ({error.strerror or error})")
        drop(sys.stdout)
        code = code or 1
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Carry out a command; returns its exit code."""
    try:
        result = group.main(arguments, prog_name="w8a8sc", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except W8A8SCError as error:
        _debug()
        for problem in error.problems[:_MOST_PROBLEMS]:
            say(f"error: {spelled_problem(problem)}")
        if len(error.problems) > _MOST_PROBLEMS:
            say(f"error: and {len(error.problems) - _MOST_PROBLEMS} more like these")
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        _debug()
        hint = f": see {error.ctx.command_path} --help" if isinstance(error, click.UsageError) and error.ctx else ""
        say(f"error: {one_line(error.format_message()).removesuffix('.')}{hint}")
        return 2
    except (click.Abort, KeyboardInterrupt):
        say("interrupted: run the same command again")
        return 130
    except _Terminated:
        say("terminated: run the same command again")
        return 143
    except MemoryError:
        say("error: not enough memory: use fewer processes (-j)")
        return 1
    except Exception as error:
        _debug()
        error_text = one_line(f"{type(error).__name__}: {error}")
        say(f"error: this is a defect of w8a8sc ({error_text}): report it with the output of W8A8SC_DEBUG=1")
        return 1


def _debug() -> None:
    if os.environ.get("W8A8SC_DEBUG"):
        traceback.print_exc()
