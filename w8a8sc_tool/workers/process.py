"""The inside of a worker process: it answers calls until its parent is gone."""

from __future__ import annotations

import importlib
import os
import signal
import threading
import traceback
from multiprocessing.connection import Connection

from ..errors import W8A8SCError, WorkError


def main(calls: int, lifeline: int) -> None:
    """Serve calls from file descriptor `calls`; end when `lifeline`, which the parent alone holds open, closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    connection = Connection(calls)
    try:
        target, arguments = connection.recv()
        module, _, name = target.partition(":")
        handler = getattr(importlib.import_module(module), name)(*arguments)
        while True:
            method, arguments = connection.recv()
            connection.send(_answer(handler, method, arguments))
    except (EOFError, OSError):
        pass  # the parent closed the connection


def _answer(handler: object, method: str, arguments: tuple[object, ...]) -> tuple[object, Exception | None]:
    try:
        return getattr(handler, method)(*arguments), None
    except W8A8SCError as error:
        return None, error
    except OSError as error:
        return None, WorkError(f"{error.strerror or error}", str(error.filename or ""))
    except MemoryError:
        return None, WorkError("not enough memory", remedy="use fewer processes (-j)")
    except Exception as error:
        detail = f"\n{traceback.format_exc()}" if os.environ.get("W8A8SC_DEBUG") else ""
        return None, WorkError(f"a worker failed ({type(error).__name__}: {error}){detail}")


def _end_with_parent(lifeline: int) -> None:
    try:
        os.read(lifeline, 1)
    finally:
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)  # whatever it has started too
        os._exit(1)
