"""Worker processes: their answers, their errors and their deaths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from w8a8sc_tool.errors import InputError, MissingError, WorkError
from w8a8sc_tool.workers.pool import Pool

HANDLER = "tests.workers.pool_handler:Handler"


def one(pool: Pool, method: str, *arguments: object) -> object:
    pool.call(pool.idle()[0], "the task", method, *arguments)
    ((_, result),) = pool.wait()
    return result


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def wait_until_gone(pid: int) -> bool:
    for _ in range(100):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


def test_answers() -> None:
    with Pool(2, HANDLER, 10) as pool:
        assert one(pool, "add", 5) == 15
        assert len(pool.idle()) == 2
        assert not pool.busy


def test_errors_come_back_as_they_were_raised() -> None:
    with Pool(1, HANDLER, 0) as pool:
        with pytest.raises(InputError, match="bad tensor, file.safetensors: mend it"):
            one(pool, "refuse")
        with pytest.raises(WorkError, match="No space left"):
            one(pool, "fill_disk")
        with pytest.raises(WorkError, match="not enough memory"):
            one(pool, "run_out")
        with pytest.raises(WorkError, match="ZeroDivisionError"):
            one(pool, "divide")
        assert one(pool, "add", 1) == 1


@pytest.mark.parametrize(
    ("reason", "kind", "message"),
    [
        ("input", InputError, "^bad file, tokenizer.json: mend it$"),
        ("package", MissingError, "^w8a8sc_tool.nothing_of_this_name cannot be imported"),
        ("disk", WorkError, "^No space left on device, /out$"),
        ("mistake", WorkError, "^a worker failed .KeyError: 'mistake'.$"),
    ],
)
def test_a_handler_that_cannot_be_made_says_why(
    reason: str, kind: type[Exception], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with Pool(1, "tests.workers.pool_handler:Unwilling", reason) as pool:
        for _ in range(2):
            with pytest.raises(kind, match=message) as raised:
                one(pool, "add", 1)
            assert type(raised.value) is kind
    assert "Traceback" not in capfd.readouterr().err


def test_a_handler_that_does_not_exist() -> None:
    with Pool(1, "tests.workers.nowhere:Handler") as pool, pytest.raises(MissingError, match="nowhere"):
        one(pool, "add", 1)


@pytest.mark.parametrize(
    ("number", "message"), [(signal.SIGKILL, "was killed.*out of memory"), (signal.SIGSEGV, "died of SIGSEGV")]
)
def test_a_worker_that_dies_is_an_error_that_names_its_task(number: int, message: str) -> None:
    with Pool(2, HANDLER, 0) as pool:
        with pytest.raises(WorkError, match=rf"(?s)a worker process {message}") as error:
            one(pool, "die", int(number))
        assert "working on the task" in str(error.value)


def test_workers_ignore_ctrl_c_and_end_with_the_pool() -> None:
    with Pool(1, HANDLER, 0) as pool:
        pid = one(pool, "pid")
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGINT)
        assert one(pool, "add", 2) == 2
    assert wait_until_gone(pid)


def test_workers_end_when_their_parent_is_killed_in_the_middle_of_work(tmp_path: Path) -> None:
    script = (
        "from w8a8sc_tool.workers.pool import Pool\n"
        f"pool = Pool(1, {HANDLER!r}, 0)\n"
        "pool.call(0, 'x', 'pid')\n"
        "print(pool.wait()[0][1], flush=True)\n"
        "pool.call(0, 'x', 'sleep')\n"
        "pool.wait()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    assert wait_until_gone(worker)
