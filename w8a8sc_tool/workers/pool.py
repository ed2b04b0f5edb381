"""Worker processes: forked by a server, called one method at a time, noticed when they die."""

# Results travel over a socket; large data never does, workers read and write files themselves.

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ..errors import WorkError
from ..io import files
from ..io.descriptors import spared
from . import forkserver

_STANDARD_ERROR = 2


class _Worker:
    def __init__(
        self,
        server: forkserver.ForkServer,
        handler: str,
        arguments: tuple[object, ...],
        output: int,
        *,
        preload: bool = False,
    ) -> None:
        """output: the descriptor of what it prints to; preload: as of `Pool`."""
        self._server = server
        self.task: str | None = None
        ours, theirs = socket.socketpair()
        self.connection = Connection(spared(ours.detach()))
        lifeline_read, self._lifeline = os.pipe()
        try:
            module = handler.partition(":")[0] if preload else ""
            self._number = server.fork(theirs.fileno(), lifeline_read, output, module)
            self.connection.send((handler, arguments))
        except OSError:
            self.connection.close()
            os.close(self._lifeline)
            raise
        finally:
            theirs.close()
            os.close(lifeline_read)

    def exit_code(self) -> int | None:
        return self._server.exit_code(self._number)

    def let_go(self) -> None:
        self.connection.close()
        os.close(self._lifeline)  # ends the worker, in the middle of its work if need be

    def wait_for_end(self) -> None:
        self._server.end(self._number)


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
        preload: bool = False,
    ) -> None:
        """environment: variables to set in the workers; log: where what they print goes, instead of standard error.

        threads: how many each worker's libraries may start. preload: have the handler's module imported once, before
        workers are forked, in place of once in each: for modules whose import starts no threads. The workers start
        while the caller goes on.
        """
        self._workers: list[_Worker] = []
        output = _STANDARD_ERROR if log is None else files.append_to(log)
        try:
            server = forkserver.shared(forkserver.variables(threads, environment))
            for _ in range(count):
                self._workers.append(_Worker(server, handler, arguments, output, preload=preload))
        except OSError as error:
            self.close()
            raise _not_started(error) from None
        finally:
            if output != _STANDARD_ERROR:
                os.close(output)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        for worker in self._workers:
            worker.let_go()
        for worker in self._workers:
            worker.wait_for_end()
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
        try:
            task, code = worker.task, worker.exit_code()
        except OSError as error:
            return _not_started(error)
        if code is None:
            reason, remedy = "cannot be reached", "run the command again"
        elif code == -signal.SIGKILL:
            reason, remedy = "was killed", "the machine may be out of memory; set processes= to fewer"
        elif code < 0:
            reason, remedy = f"died of {signal.Signals(-code).name}", "run the command again"
        else:
            reason, remedy = f"ended with exit code {code}", "see the messages above"
        return WorkError(f"a worker process {reason}", f"working on {task}", remedy)


def _not_started(error: OSError) -> WorkError:
    return WorkError(f"a worker process cannot be started ({error.strerror})", remedy="set processes= to fewer")
