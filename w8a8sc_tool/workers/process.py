"""The inside of a worker process: it answers calls until its parent is gone."""

from __future__ import annotations

import importlib
import os
import signal
import threading
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from ..errors import MissingError, W8A8SCError, WorkError


def main(calls: int, lifeline: int) -> None:
    """Serve calls from file descriptor `calls`; end when `lifeline`, which the parent alone holds open, closes.

    A handler that cannot be made answers every call with the reason.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    connection = Connection(calls)
    try:
        handler, failure = _answer(partial(_make, *connection.recv()))
        while True:
            method, arguments = connection.recv()
            answer = (None, failure) if failure else _answer(partial(_call, handler, method, arguments))
            connection.send(answer)
    except (EOFError, OSError):
        pass  # the parent closed the connection


def _make(target: str, arguments: tuple[object, ...]) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)(*arguments)


def _call(handler: object, method: str, arguments: tuple[object, ...]) -> Any:
    return getattr(handler, method)(*arguments)


def _answer(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """What came of a piece of work: its result, or the error that the parent is to raise."""
    try:
        return work(), None
    except W8A8SCError as error:
        return None, error
    except ImportError as error:
        return None, MissingError(f"{error.name or 'a package'} cannot be imported ({error})")
    except OSError as error:
        return None, WorkError(f"{error.strerror or error}", str(error.filename or ""))
    except MemoryError:
        return None, WorkError("not enough memory", remedy="set processes= to fewer")
    except Exception as error:
        if os.environ.get("W8A8SC_DEBUG"):
            traceback.print_exc()  # an error is one line
        return None, WorkError(f"a worker failed ({type(error).__name__}: {error})")


def _end_with_parent(lifeline: int) -> None:
    try:
        os.read(lifeline, 1)
    finally:
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)  # whatever it has started too
        os._exit(1)
