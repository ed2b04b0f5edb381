"""Writing by threads, while the caller makes what is to be written next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

_THREADS: Final = 2  # writing a piece and reading it back take about as long as all else that is done to it
_BEHIND: Final = 6  # pieces that are being written, or wait


class WriteBehind:
    """Has threads call what writes: at most so many calls wait, and `finish` waits for all of them."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS)
        self._waiting: deque[Future[Any]] = deque()

    def call(self, write: Callable[..., Any], *arguments: Any) -> None:
        """Raises what an earlier call raised."""
        if len(self._waiting) == _BEHIND:
            self._waiting.popleft().result()
        self._waiting.append(self._threads.submit(write, *arguments))

    def finish(self) -> None:
        """Raises what a call raised."""
        while self._waiting:
            self._waiting.popleft().result()
