"""The process that workers are forked from, which has loaded the kernels already."""

# Loading the kernels and what workers import takes a fifth of a second of processor time; a fork of a process that has
# all of it takes a few milliseconds. The parent itself is not forked: it may have threads, and a fork of those can
# hang. multiprocessing's own fork server runs the caller's main module again, which a script without a main guard does
# not survive.

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from . import process

_READY: Final = b"ready"
_UNANSWERED: Final = 128  # requests on their way at most: the kernel allows 1024 descriptors in flight, as a rule
_MESSAGE_BYTES: Final = 256
_DYING_SECONDS: Final = 5.0  # from the end of a worker's connection to the end of its process
_UNKNOWN: Final = "unknown"
_NOT_STARTED: Final = "errno"
_START: Final = (
    "import sys; sys.path[0] = sys.argv[1]; from w8a8sc_tool.workers.forkserver import serve; serve(int(sys.argv[2]))"
)


class ForkServer:
    """The parent's side: it asks for workers, and what became of them.

    The server ends when nobody holds this object any more, its workers with their own lifelines.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        """environment: the variables of the server and of all its workers. Raises OSError."""
        self.environment = environment
        self.owner = os.getpid()
        self._lock = threading.Lock()  # an answer belongs to the request before it
        self._workers = 0
        self._ready = False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, str(Path(__file__).parents[2]), str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=2,  # standard output belongs to the result
                env=environment,
                start_new_session=True,  # a Ctrl-C in the terminal reaches the parent alone
            )
        weakref.finalize(self, _close, self.owner, self._control, self._process)

    def fork(self, calls: int, lifeline: int, output: int, module: str = "") -> int:
        """Ask for a worker, without waiting for it or the kernels; returns its number, by which the server knows it.

        calls, lifeline: descriptors for `process.main`; output: where it prints; module: imported before, once for all
        workers. Raises OSError if the server is gone.
        """
        with self._lock, contextlib.ExitStack() as stack:
            descriptors = [calls, lifeline, output]
            with contextlib.suppress(OSError):  # a working folder that was removed
                descriptors.append(os.open(".", os.O_PATH | os.O_DIRECTORY))
                stack.callback(os.close, descriptors[-1])
            if self._workers >= _UNANSWERED:
                self._is_ready(wait=True)
            socket.send_fds(self._control, [f"fork {module}".encode()], descriptors)
            self._workers += 1
            return self._workers

    def exit_code(self, worker: int) -> int | None:
        """The exit code of a worker whose connection has ended, as `subprocess` gives it; None: not known.

        Raises OSError if the worker could not be started.
        """
        answer = self._ask(f"wait {worker}")
        if answer.startswith(_NOT_STARTED):
            number = int(answer.removeprefix(_NOT_STARTED))
            raise OSError(number, os.strerror(number))
        return int(answer) if answer not in ("", _UNKNOWN) else None

    def end(self, worker: int) -> None:
        """Kill a worker and whatever it has started, and wait for its end."""
        self._ask(f"end {worker}")

    def _ask(self, question: str) -> str:
        """The server's answer; "", at once, if it has not forked anything yet or is gone."""
        with self._lock:
            try:
                if not self._is_ready(wait=False):
                    return ""
                self._control.send(question.encode())
                return self._control.recv(_MESSAGE_BYTES).decode()
            except OSError:
                return ""

    def _is_ready(self, *, wait: bool) -> bool:
        """Whether the server has its kernels and forks; its first message says so."""
        if not self._ready and (wait or _has_message(self._control, 0)):
            self._ready = self._control.recv(_MESSAGE_BYTES) == _READY
        return self._ready

    def alive(self) -> bool:
        return self._process.poll() is None


def _close(owner: int, control: socket.socket, server: subprocess.Popen[bytes]) -> None:
    control.close()
    if owner == os.getpid():
        server.kill()
        server.wait()
    else:
        server.returncode = 0  # a fork of the caller: it has no such child to wait for


_shared: ForkServer | None = None
_shared_lock = threading.Lock()


def shared(environment: dict[str, str]) -> ForkServer:
    """The server of this process, as long as its pools want the same environment. Raises OSError."""
    global _shared  # noqa: PLW0603
    with _shared_lock:
        server = _shared
        if server is None or server.owner != os.getpid() or server.environment != environment or not server.alive():
            server = _shared = ForkServer(environment)
        return server


def variables(threads: int = 1, additional: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a server and its workers: this process's, with what holds for all workers.

    threads: how many each worker's libraries may start; additional: variables of one pool.
    """
    inherited = dict(os.environ) | dict(additional or {})
    # Libraries must not start threads of their own: processes are what -j counts.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        inherited[variable] = str(threads)
    # Blocks of a few megabytes come and go: with glibc's defaults each would be mapped and cleared anew. 32 MiB is
    # the most that the first may be (DEFAULT_MMAP_THRESHOLD_MAX); what is kept is bounded by what is in flight.
    return inherited | {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


def start_early() -> None:
    """Have the server load the kernels while the caller still imports and reads; without it, the first pool starts it.

    A failure is left to the first pool, which says what it is.
    """
    with contextlib.suppress(OSError):
        shared(variables())


def serve(control: int) -> None:
    """The server: fork workers and say what became of them, until the parent closes `control`.

    Kernels that are not on disk yet are compiled here first, once for all workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # what is imported stays: looking through it again and again takes a tenth of the time
    parent = socket.socket(fileno=control)
    with contextlib.suppress(Exception):  # a worker that needs them says what is wrong
        _load_kernels(parent)
    with contextlib.suppress(OSError):  # the parent is gone
        _answer_requests(parent)
    os._exit(0)


def _load_kernels(parent: socket.socket) -> None:
    """Load the kernels; those that have to be compiled, which takes long, only once a worker is asked for."""
    from ..codec import kernels

    if not kernels.load_kept() and _has_message(parent):  # no message: the parent is gone, nobody needs them
        kernels.load()


def _has_message(control: socket.socket, milliseconds: int | None = None) -> bool:
    """Wait, at most so long, for a message; False without one, and once the other side is gone.

    Not by select, which takes no descriptor above 1023: a host program may have more.
    """
    waiting = select.poll()
    waiting.register(control, select.POLLIN)
    return any(event & select.POLLIN and not event & select.POLLHUP for _, event in waiting.poll(milliseconds))


def _answer_requests(parent: socket.socket) -> None:
    parent.send(_READY)
    workers: list[int | str] = []  # the process; once it has ended, or if it never began, the answer
    while True:
        request, descriptors, _, _ = socket.recv_fds(parent, _MESSAGE_BYTES, 4)
        words = request.decode().split()
        if not words:
            return
        if words[0] == "fork":
            for module in words[1:]:
                with contextlib.suppress(Exception):  # the worker says what is wrong
                    importlib.import_module(module)
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
        parent.send((worker if isinstance(worker, str) else _UNKNOWN).encode())


def _fork(parent: socket.socket, descriptors: Sequence[int]) -> int | str:
    """Fork a worker; returns its process, or the answer for one that could not be started."""
    gc.freeze()  # a worker's collector would write to all that is shared, and so copy it
    try:
        pid = os.fork()
    except OSError as error:  # no more processes, or no memory; the parent sees the worker's connection closed
        return f"{_NOT_STARTED}{error.errno}"
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
