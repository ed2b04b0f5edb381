"""All commands, and how every failure of one becomes one line and an exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from importlib import import_module
from typing import Any

import click

from .failures import Terminated, failure
from .group import group
from .output import drop, say

__all__ = ["carry_out", "group", "main"]

# Their commands add themselves to the group.
for _module in ("convert", "check", "report", "run", "prepare"):
    import_module(f"w8a8sc_tool.cli.{_module}")


def _terminate(*_: Any) -> None:
    raise Terminated


def main() -> None:
    """Run the command line and exit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    code = carry_out(sys.argv[1:])
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        drop(sys.stdout)
    except OSError as error:  # of help; commands say it themselves
        say(f"error: standard output cannot be written to ({error.strerror or error})")
        drop(sys.stdout)
        code = code or 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # all is said and done: they would end the interpreter's own clean-up
    gc.freeze()  # that clean-up looks for garbage, which takes a hundredth of a second and frees what ends anyway
    sys.exit(code)


def carry_out(arguments: list[str]) -> int:
    """Carry out a command; returns its exit code."""
    try:
        result = group.main(arguments, prog_name="w8a8sc", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except BaseException as error:
        failed = failure(error)
        if failed is None:
            raise
        if failed.outcome == "failed":
            _debug()
        for line in failed.lines:
            say(line)
        return failed.exit_code


def _debug() -> None:
    if os.environ.get("W8A8SC_DEBUG"):
        traceback.print_exc()
