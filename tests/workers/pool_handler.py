"""What the workers of test_pool do."""

from __future__ import annotations

import errno
import importlib
import os
import time
from pathlib import Path

from w8a8sc_tool.errors import InputError


class Unwilling:
    """Cannot be made."""

    def __init__(self, reason: str) -> None:
        if reason == "input":
            raise InputError("bad file", "tokenizer.json", "mend it")
        if reason == "package":
            importlib.import_module("w8a8sc_tool.nothing_of_this_name")
        if reason == "disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/out")
        dict[str, str]()[reason]

    def add(self, number: int) -> int:
        return number


IMPORTED_BY = os.getpid()


class Handler:
    def __init__(self, base: int) -> None:
        self.base = base

    def add(self, number: int) -> int:
        return self.base + number

    def imported_by(self) -> int:
        return IMPORTED_BY

    def pid(self) -> int:
        return os.getpid()

    def parent(self) -> int:
        return os.getppid()

    def variable(self, name: str) -> str | None:
        return os.environ.get(name)

    def working_folder(self) -> str:
        return str(Path.cwd())

    def sleep(self) -> None:
        time.sleep(600)

    def die(self, number: int) -> None:
        os.kill(os.getpid(), number)
        time.sleep(10)

    def refuse(self) -> None:
        raise InputError("bad tensor", "file.safetensors", "mend it")

    def fill_disk(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/out")

    def run_out(self) -> None:
        raise MemoryError

    def divide(self) -> None:
        1 / 0  # noqa: B018
