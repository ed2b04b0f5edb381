"""`--log FILE`: what a command does, as JSON lines that are there whatever ends it. docs/json.md has the events."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from .._version import VERSION
from ..errors import AccessError, InputError, WorkError
from ..io import files, reading
from ..text import one_line
from .failures import failure
from .meter import Meter
from .output import say
from .views import LINE_SECONDS


class JobLog:
    """A file that a line is appended to at every event.

    What cannot be written is a warning, once, and is kept until it can be: the work goes on, and the file gets all of
    it when there is room again.
    """

    def __init__(self, path: Path, command: str, options: Mapping[str, Any]) -> None:
        """Raises AccessError if the file cannot be written."""
        self._path = path
        self._started = time.monotonic()
        self._meter = Meter()
        self._stages: dict[str, float] = {}  # seconds, of meters that were watched before
        self._told = 0.0
        self._waiting = b""
        self._warned = False
        try:
            self._fd = files.append_to(path)
            try:
                self._waiting = _rest_of_line(path)
                self._event("start", command=command, options=dict(options), versions=_versions())
                self._write()
            except BaseException:
                os.close(self._fd)
                raise
        except WorkError as error:
            problem = error.problems[0]
            raise AccessError([replace(problem, message=f"the log cannot be written: {problem.message}")]) from None

    def __enter__(self) -> JobLog:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        failed = failure(error) if error is not None else None
        if failed is not None:
            for problem in failed.problems:
                where, remedy = problem.where or None, problem.remedy or None
                self.event("error", message=problem.message, where=where, remedy=remedy)
            self._end(failed.outcome, failed.exit_code)
        os.close(self._fd)

    def done(self, exit_code: int) -> None:
        """The command has come to its end."""
        self._end("failed" if exit_code else "done", exit_code)

    def watch(self, meter: Meter) -> None:
        """Take the times of stages from a meter, from now on: a download has one before the work has its own."""
        self._stages = self._times()
        self._meter = meter

    # ------------------------------------------------------------------------------------------------------- progress

    def begin(self, meter: Meter) -> None:
        self._told = time.monotonic()
        self.event("work", stage=meter.stage, total_bytes=meter.total)

    def stage(self, meter: Meter) -> None:
        self.event("stage", stage=meter.stage)

    def advance(self, meter: Meter) -> None:
        now = time.monotonic()
        if now - self._told > LINE_SECONDS:
            self._told = now
            self._progress(meter)

    def end(self, meter: Meter) -> None:
        self._progress(meter)

    def _progress(self, meter: Meter) -> None:
        left = meter.seconds_left
        self.event(
            "progress",
            stage=meter.stage,
            done_bytes=meter.done,
            total_bytes=meter.total,
            bytes_per_second=round(meter.rate) or None,
            ratio=None if meter.ratio is None else round(meter.ratio, 6),
            seconds_left=None if left is None else round(left, 1),
        )

    # --------------------------------------------------------------------------------------------------------- the file

    def event(self, name: str, **values: Any) -> None:
        """Append a line."""
        self._event(name, **values)
        try:
            self._write()
        except WorkError as error:
            if not self._warned:
                self._warned = True
                kept = "the work goes on, and what is to be logged is kept until it can be"
                say(
                    f"note: the log cannot be written: {error.problems[0].message}, {one_line(str(self._path))}: {kept}"
                )

    def _event(self, name: str, **values: Any) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        self._waiting += f"{json.dumps({'time': now, 'event': name, **values})}\n".encode()

    def _write(self) -> None:
        while self._waiting:
            self._waiting = self._waiting[files.append(self._fd, self._path, self._waiting) :]

    def _end(self, outcome: str, exit_code: int) -> None:
        stages = {stage: round(seconds, 3) for stage, seconds in self._times().items()}
        seconds = round(time.monotonic() - self._started, 3)
        self.event("end", outcome=outcome, exit_code=exit_code, seconds=seconds, stages=stages)

    def _times(self) -> dict[str, float]:
        """Seconds of every stage so far, of all meters."""
        times = dict(self._stages)
        for stage, seconds in self._meter.times().items():
            times[stage] = times.get(stage, 0.0) + seconds
        return times


def _rest_of_line(path: Path) -> bytes:
    """What ends the last line of a file: one that a command wrote on a full disk before it was killed has no end."""
    with suppress(InputError):  # a pipe, or a file that may not be read
        return b"" if reading.tail(path, 1) in (b"", b"\n") else b"\n"
    return b""


def _versions() -> dict[str, str]:
    """Of this program and of what makes its bytes and its errors."""
    versions = {"w8a8sc": VERSION, "python": platform.python_version()}
    for name in ("numpy", "numba", "llvmlite", "safetensors", "blake3"):
        versions[name] = metadata.version(name)
    return versions | {"system": f"{platform.system()} {platform.release()} {platform.machine()}"}
