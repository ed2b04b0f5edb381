"""The loop that hands tasks to a pool: every task is done once, results come with their number, an error ends it."""

from __future__ import annotations

import pytest

from w8a8sc_tool.errors import InputError
from w8a8sc_tool.workers.pool import Pool
from w8a8sc_tool.workers.tasks import Task, run_all

HANDLER = "tests.workers.pool_handler:Handler"


@pytest.mark.parametrize("count", [0, 1, 7])
def test_every_task_is_done_once(count: int) -> None:
    with Pool(2, HANDLER, 10) as pool:
        answers = list(run_all(pool, [Task(f"task {number}", "add", (number,)) for number in range(count)]))
        assert not pool.busy
    assert sorted(answers) == [(number, number + 10) for number in range(count)]


def test_an_error_of_a_task_ends_it() -> None:
    with Pool(1, HANDLER, 0) as pool:
        tasks = [Task("first", "add", (1,)), Task("second", "refuse", ()), Task("third", "add", (3,))]
        answers = run_all(pool, tasks)
        assert next(answers) == (0, 1)
        with pytest.raises(InputError, match="bad tensor"):
            next(answers)
