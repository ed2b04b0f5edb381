"""Loaded by every Python process that the torture starts: records or fails file operations as W8A8SC_TORTURE says.

A JSON object: "record": a file that every operation is appended to; "fail": an operation to fail; "sync": seconds
between records of a conversion's journal.
"""

import fcntl
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Watcher = Callable[[str, Path, tuple[Any, ...]], None]


def _install(settings: dict[str, Any]) -> None:
    from w8a8sc_tool.io import files

    if "record" in settings:
        files.watcher = _recorder(settings["record"])
    if "fail" in settings:
        fault = settings["fail"]
        if fault["action"] == "reading":
            _fail_reads(fault)
        else:
            files.watcher = _failure(fault)
    if "sync" in settings and "w8a8sc_tool.workers.forkserver" not in " ".join(sys.orig_argv):
        from w8a8sc_tool.conversion import recorder

        vars(recorder)["SYNC_SECONDS"] = settings["sync"]


def _recorder(log_path: str) -> Watcher:
    def record(action: str, path: Path, details: tuple[Any, ...]) -> None:
        details = tuple(bytes(part) if isinstance(part, memoryview) else part for part in details)
        data = pickle.dumps((action, str(path), tuple(str(d) if hasattr(d, "parts") else d for d in details)))
        with open(log_path, "ab") as log:
            fcntl.flock(log, fcntl.LOCK_EX)  # several processes write
            log.write(data)

    return record


def _due(fault: dict[str, Any]) -> bool:
    """Whether this is the operation to fail: the n-th of all processes, counted in a file."""
    with open(fault["count"], "ab") as count:
        fcntl.flock(count, fcntl.LOCK_EX)
        count.write(b"x")
        number = count.tell()
    return number == fault["nth"] or (number > fault["nth"] and bool(fault.get("ever")))


def _failure(fault: dict[str, Any]) -> Watcher:
    def fail(action: str, path: Path, details: tuple[Any, ...]) -> None:
        if action == fault["action"] and fault["path"] in path.name and _due(fault):
            if fault.get("kill"):
                os.kill(os.getpid(), 9)
            if fault.get("fill"):  # the disk; what the operation then says is real
                _fill(fault["fill"])
                return
            raise OSError(fault["errno"], os.strerror(fault["errno"]))

    return fail


def _fill(ballast: str) -> None:
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:  # full, for pieces of this size
                continue


def _fail_reads(fault: dict[str, Any]) -> None:
    real = os.preadv

    def preadv(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if path.startswith(fault["path"]) and _due(fault):
            if fault["errno"] == 0:
                return 0  # the file ended
            raise OSError(fault["errno"], os.strerror(fault["errno"]))
        return real(fd, buffers, offset, flags)

    os.preadv = preadv


_SETTINGS = os.environ.get("W8A8SC_TORTURE")
if _SETTINGS:
    try:
        _install(json.loads(_SETTINGS))
    except ImportError as _error:
        print(f"torture: {_error}", file=sys.stderr)
        sys.exit(99)
