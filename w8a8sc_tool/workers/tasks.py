"""Tasks handed to a pool until all are done: the loop that every job with independent pieces of work has."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .pool import Pool


class Task(NamedTuple):
    """A call of a worker's method. name: of the work, in error messages; nbytes: of progress that it stands for."""

    name: str
    method: str
    arguments: tuple[Any, ...]
    nbytes: int = 0


def run_all(pool: Pool, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
    """Carry out all tasks, in any order: (number of the task, result) of each as it is done.

    Raises what a task raised, or WorkError if a worker died; those that are not done then are left.
    """
    pending = deque(enumerate(tasks))
    doing: dict[int, int] = {}
    while pending or doing:
        for worker in pool.idle():
            if pending:
                number, task = pending.popleft()
                doing[worker] = number
                pool.call(worker, task.name, task.method, *task.arguments)
        for worker, result in pool.wait():
            yield doing.pop(worker), result
