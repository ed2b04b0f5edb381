"""A command that is ended in the middle of its work: it gets no further than its first worker's answer."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

_HALTING = """
import time
from w8a8sc_tool.workers.pool import Pool

wait = Pool.wait

def wait_and_halt(*arguments):
    answers = wait(*arguments)
    print("working", flush=True)
    time.sleep(600)
    return answers

Pool.wait = wait_and_halt
from w8a8sc_tool.cli.main import main
main()
"""


def end_at_work(number: int, *arguments: str | Path) -> tuple[int, str]:
    """Send a signal to a command at work; returns its exit code and what it said on standard error."""
    with subprocess.Popen(
        [sys.executable, "-c", _HALTING, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs tests in the background has children ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors
