"""The inside of the process that workers are forked from."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import socket
import time
import traceback
from collections.abc import Sequence
from typing import Final

from . import process
from .forkserver import MESSAGE_BYTES, NOT_STARTED, READY, UNKNOWN, has_message

_DYING_SECONDS: Final = 5.0  # from the end of a worker's connection to the end of its process


def serve(control: int, module: str) -> None:
    """Fork workers and say what became of them, until the parent closes `control`.

    Kernels that are not on disk yet are compiled here first, once for all workers. module: what the first of them will
    need, "" if that is not known yet.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # what is imported stays: looking through it again and again takes a tenth of the time
    parent = socket.socket(fileno=control)
    with contextlib.suppress(Exception):  # a worker that needs them says what is wrong
        _load_kernels(parent)
    _import(module)
    with contextlib.suppress(OSError):  # the parent is gone
        _answer_requests(parent)
    os._exit(0)


def _import(module: str) -> None:
    with contextlib.suppress(Exception):  # the worker says what is wrong
        importlib.import_module(module)


def _load_kernels(parent: socket.socket) -> None:
    """Load the kernels; those that have to be compiled, which takes long, only once a worker is asked for."""
    from ..codec import kernels

    if not kernels.load_kept() and has_message(parent):  # no message: the parent is gone, nobody needs them
        kernels.load()


def _answer_requests(parent: socket.socket) -> None:
    parent.send(READY)
    workers: list[int | str] = []  # the process; once it has ended, or if it never began, the answer
    while True:
        request, descriptors, _, _ = socket.recv_fds(parent, MESSAGE_BYTES, 4)
        words = request.decode().split()
        if not words:
            return
        if words[0] == "fork":
            for module in words[1:]:
                _import(module)
            workers.append(_fork(parent, descriptors))
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        number = int(words[1]) - 1
        worker = workers[number]
        if isinstance(worker, int):
            code = _ended(worker, kill=words[0] == "end")
            if code is not None:
                worker = workers[number] = str(code)
        parent.send((worker if isinstance(worker, str) else UNKNOWN).encode())


def _fork(parent: socket.socket, descriptors: Sequence[int]) -> int | str:
    """Fork a worker; returns its process, or the answer for one that could not be started."""
    gc.freeze()  # a worker's collector would write to all that is shared, and so copy it
    try:
        pid = os.fork()
    except OSError as error:  # no more processes, or no memory; the parent sees the worker's connection closed
        return f"{NOT_STARTED}{error.errno}"
    if pid:
        return pid
    code = 1
    try:
        gc.enable()
        parent.close()
        os.setsid()
        calls, lifeline, output, *working_folder = descriptors
        os.dup2(output, 1)
        os.dup2(output, 2)
        with contextlib.suppress(OSError):
            if working_folder:
                os.fchdir(working_folder[0])
        for descriptor in (output, *working_folder):
            os.close(descriptor)
        process.main(calls, lifeline)
        code = 0
    except BaseException:
        traceback.print_exc()  # a process of its own would have
    finally:
        os._exit(code)


def _ended(pid: int, *, kill: bool) -> int | None:
    """The exit code of a worker, which is waited for; its number stays its own until then."""
    if kill:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # its session
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # before it made its session
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)
    until = time.monotonic() + _DYING_SECONDS
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.01)
