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
from .group import group
from .output import drop_stdout

# Their commands add themselves to the group.
for _module in ("convert", "check", "run", "prepare"):
    import_module(f"w8a8sc_tool.cli.{_module}")

_MOST_PROBLEMS = 50


class _Terminated(BaseException):
    """SIGTERM arrived."""


def _terminate(*_: Any) -> None:
    raise _Terminated


def main() -> None:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _terminate)
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        drop_stdout()
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Carry out a command; returns its exit code."""
    try:
        result = group.main(arguments, prog_name="w8a8sc", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except W8A8SCError as error:
        _debug()
        for problem in error.problems[:_MOST_PROBLEMS]:
            print(f"error: {problem}", file=sys.stderr)
        if len(error.problems) > _MOST_PROBLEMS:
            print(f"error: and {len(error.problems) - _MOST_PROBLEMS} more like these", file=sys.stderr)
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        _debug()
        hint = f": see {error.ctx.command_path} --help" if isinstance(error, click.UsageError) and error.ctx else ""
        print(f"error: {error.format_message().removesuffix('.')}{hint}", file=sys.stderr)
        return 2
    except (click.Abort, KeyboardInterrupt):
        print("interrupted: run the same command again", file=sys.stderr)
        return 130
    except _Terminated:
        print("terminated: run the same command again", file=sys.stderr)
        return 143
    except MemoryError:
        print("error: not enough memory: use fewer processes (-j)", file=sys.stderr)
        return 1
    except Exception as error:
        _debug()
        print(
            f"error: this is a defect of w8a8sc ({type(error).__name__}: {error}): "
            "report it with the output of W8A8SC_DEBUG=1",
            file=sys.stderr,
        )
        return 1


def _debug() -> None:
    if os.environ.get("W8A8SC_DEBUG"):
        traceback.print_exc()
