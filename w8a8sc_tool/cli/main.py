"""The `w8a8sc` command's entry point."""

# Importing the commands takes a tenth of a second, and what they need another one: the process that workers are forked
# from starts before, and does its own imports meanwhile.

from __future__ import annotations

import gc
import io
import os
import signal
import sys

from ..workers.forkserver import start_early

# The handlers of the workers that a command starts first, and options with which it starts none.
_HANDLERS = {
    **dict.fromkeys(("compress", "reshard", "decompress", "batch"), "w8a8sc_tool.conversion.worker"),
    "verify": "w8a8sc_tool.checking.verify_worker",
    "compare": "w8a8sc_tool.checking.compare_worker",
}
_WITHOUT_WORKERS = {"-h", "--help", "--dry-run", "--checkpoint", "--quick", "--engine", "--engine=ray"}
_RUN_OTHERS = {"serve", "generate"}  # programs that multiply

# Created before the collector looks for garbage. What is imported is none, and is less; the default, 700, makes it a
# tenth slower.
_OBJECTS = 100_000


def main() -> None:
    """Run the command line and exit."""
    # Nothing has begun: an interrupt ends the process without a word, and leaves nothing behind.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _prepare_streams()
    gc.set_threshold(_OBJECTS)
    command, *arguments = [*sys.argv[1:], ""]
    if command in _HANDLERS and not _WITHOUT_WORKERS.intersection(arguments):
        start_early(_HANDLERS[command])
    if command not in _RUN_OTHERS:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's, which would start a thread for every core
    from .commands import main as carry_out_and_exit

    carry_out_and_exit()


def run(arguments: list[str]) -> int:
    """Carry out a command; returns its exit code."""
    from .commands import carry_out

    return carry_out(arguments)


def _prepare_streams() -> None:
    """Have what an encoding cannot spell printed with backslash escapes, whatever the environment asks for.

    The number of a standard stream that is closed is given to nothing else: files and sockets of the work, which its
    processes inherit, would be taken for it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
