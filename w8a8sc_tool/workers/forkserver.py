"""The process that workers are forked from, which has loaded the kernels already, as its caller sees it."""

# Loading the kernels and what workers import takes a fifth of a second of processor time; a fork of a process that has
# all of it takes a few milliseconds. The parent itself is not forked: it may have threads, and a fork of those can
# hang. multiprocessing's own fork server runs the caller's main module again, which a script without a main guard does
# not survive.

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Final

READY: Final = b"ready"
_UNANSWERED: Final = 128  # requests on their way at most: the kernel allows 1024 descriptors in flight, as a rule
MESSAGE_BYTES: Final = 256
UNKNOWN: Final = "unknown"
NOT_STARTED: Final = "errno"
_START: Final = (
    "import sys; sys.path[0] = sys.argv[1]; from w8a8sc_tool.workers.forking import serve; "
    "serve(int(sys.argv[2]), sys.argv[3])"
)


class ForkServer:
    """The parent's side: it asks for workers, and what became of them.

    The server ends when nobody holds this object any more, its workers with their own lifelines.
    """

    def __init__(self, environment: dict[str, str], module: str = "") -> None:
        """environment: the variables of the server and of all its workers; module: imported at once. Raises OSError."""
        self.environment = environment
        self.owner = os.getpid()
        self._lock = threading.Lock()  # an answer belongs to the request before it
        self._workers = 0
        self._ready = False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, str(Path(__file__).parents[2]), str(theirs.fileno()), module],
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
        if answer.startswith(NOT_STARTED):
            number = int(answer.removeprefix(NOT_STARTED))
            raise OSError(number, os.strerror(number))
        return int(answer) if answer not in ("", UNKNOWN) else None

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
                return self._control.recv(MESSAGE_BYTES).decode()
            except OSError:
                return ""

    def _is_ready(self, *, wait: bool) -> bool:
        """Whether the server has its kernels and forks; its first message says so."""
        if not self._ready and (wait or has_message(self._control, 0)):
            self._ready = self._control.recv(MESSAGE_BYTES) == READY
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


def shared(environment: dict[str, str], module: str = "") -> ForkServer:
    """The server of this process, as long as its pools want the same environment; module: as of `ForkServer`.

    Raises OSError.
    """
    global _shared  # noqa: PLW0603
    with _shared_lock:
        server = _shared
        if server is None or server.owner != os.getpid() or server.environment != environment or not server.alive():
            server = _shared = ForkServer(environment, module)
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


def start_early(module: str) -> None:
    """Have the server load kernels and a module while the caller still imports and reads; without it, the first pool
    starts it.

    A failure is left to the first pool, which says what it is.
    """
    with contextlib.suppress(OSError):
        shared(variables(), module)


def has_message(control: socket.socket, milliseconds: int | None = None) -> bool:
    """Wait, at most so long, for a message; False without one, and once the other side is gone.

    Not by select, which takes no descriptor above 1023: a host program may have more.
    """
    waiting = select.poll()
    waiting.register(control, select.POLLIN)
    return any(event & select.POLLIN and not event & select.POLLHUP for _, event in waiting.poll(milliseconds))
