"""Worker processes: started fresh, called one method at a time, noticed when they die."""

# Workers are new interpreters rather than forks or multiprocessing children: a fork from a process with threads can
# hang, and multiprocessing runs the caller's main module again, which a script without a main guard does not survive.
# Results travel over a socket; large data never does, workers read and write files themselves.

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ..codec.cache import ensure_compiled
from ..errors import WorkError
from ..io import files

_START = (
    "import sys; sys.path[0] = sys.argv[1]; from w8a8sc_tool.workers.process import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]))"
)


class _Worker:
    def __init__(
        self, handler: str, arguments: tuple[object, ...], environment: dict[str, str], log: Path | None
    ) -> None:
        ours, theirs = socket.socketpair()
        self._lifeline_read, self._lifeline = os.pipe()
        root = str(Path(__file__).parents[2])
        output = 2 if log is None else files.append_to(log)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, root, str(theirs.fileno()), str(self._lifeline_read)],
                pass_fds=(theirs.fileno(), self._lifeline_read),
                stdin=subprocess.DEVNULL,
                stdout=output,  # standard output belongs to the result
                stderr=output,
                env=environment,
                start_new_session=True,  # a Ctrl-C in the terminal reaches the parent alone
            )
        finally:
            theirs.close()
            os.close(self._lifeline_read)
            if output != 2:
                os.close(output)
        self.connection = Connection(ours.detach())
        self.task: str | None = None
        self.connection.send((handler, arguments))

    def close(self) -> None:
        self.connection.close()
        os.close(self._lifeline)  # ends the worker, in the middle of its work if need be
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # its session: whatever it has started too
        self.process.wait()


class Pool:
    """`count` processes, each holding an object of the class named by `handler` ("package.module:Class")."""

    def __init__(
        self,
        count: int,
        handler: str,
        *arguments: object,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        threads: int = 1,
    ) -> None:
        """environment: variables to set in the workers; log: where what they print goes, instead of standard error.

        threads: how many each worker's libraries may start.
        """
        ensure_compiled()  # or every worker would do it
        inherited = dict(os.environ) | dict(environment or {})
        # Libraries must not start threads of their own: processes are what -j counts.
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
            inherited[variable] = str(threads)
        # Blocks of a few megabytes come and go: with glibc's defaults each would be mapped and cleared anew. 32 MiB is
        # the most that the first may be (DEFAULT_MMAP_THRESHOLD_MAX); what is kept is bounded by what is in flight.
        inherited |= {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
        self._workers: list[_Worker] = []
        try:
            for _ in range(count):
                self._workers.append(_Worker(handler, arguments, inherited, log))
        except OSError as error:
            self.close()
            raise WorkError(f"a worker process cannot be started ({error.strerror})") from None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        for worker in self._workers:
            worker.close()
        self._workers.clear()

    def idle(self) -> list[int]:
        """The workers that wait for a call."""
        return [number for number, worker in enumerate(self._workers) if worker.task is None]

    @property
    def busy(self) -> bool:
        return any(worker.task is not None for worker in self._workers)

    def call(self, number: int, task: str, method: str, *arguments: object) -> None:
        """Have an idle worker call a method; `task` names the work in error messages."""
        worker = self._workers[number]
        worker.task = task
        try:
            worker.connection.send((method, arguments))
        except OSError:
            raise self._death(worker) from None

    def wait(self, timeout: float | None = None) -> list[tuple[int, Any]]:
        """Wait for answers: (worker, result) of each that came; empty after `timeout` seconds without one.

        Raises what the method raised, or WorkError if a worker died.
        """
        working = {worker.connection: number for number, worker in enumerate(self._workers) if worker.task is not None}
        answers = []
        for connection in wait(list(working), timeout):
            number = working[connection]  # type: ignore[index]
            worker = self._workers[number]
            try:
                result, error = worker.connection.recv()
            except (EOFError, OSError):
                raise self._death(worker) from None
            worker.task = None
            if error is not None:
                raise error
            answers.append((number, result))
        return answers

    def _death(self, worker: _Worker) -> WorkError:
        task = worker.task
        try:
            code = worker.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = 0
        if code == -signal.SIGKILL:
            reason, remedy = "was killed", "the machine may be out of memory; use fewer processes (-j)"
        elif code < 0:
            reason, remedy = f"died of {signal.Signals(-code).name}", "run the command again"
        else:
            reason, remedy = f"ended with exit code {code}", "see the messages above"
        return WorkError(f"a worker process {reason}", f"working on {task}", remedy)
