"""The process that workers are forked from: shared by the pools of a process, replaced when it is gone."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from w8a8sc_tool.codec import kernels
from w8a8sc_tool.errors import MissingError, WorkError
from w8a8sc_tool.workers import forking, forkserver
from w8a8sc_tool.workers.pool import Pool

from .test_pool import HANDLER, alive, one, wait_until_gone


def parent_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("PPid:")[2].split()[0])


def server_of(pool: Pool) -> int:
    worker = one(pool, "pid")
    assert isinstance(worker, int)
    return parent_of(worker)


def test_pools_of_a_process_share_one() -> None:
    with Pool(2, HANDLER, 0) as first, Pool(1, HANDLER, 0) as second:
        servers = {server_of(first), server_of(second)}
    with Pool(1, HANDLER, 0) as third:
        servers.add(server_of(third))
    assert len(servers) == 1 and os.getpid() not in servers


def test_a_pool_with_other_variables_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with Pool(1, HANDLER, 0) as plain, Pool(1, HANDLER, 0, environment={"W8A8SC_TEST": "x"}) as special:
        assert server_of(plain) != server_of(special)
        assert (one(plain, "variable", "W8A8SC_TEST"), one(special, "variable", "W8A8SC_TEST")) == (None, "x")
    monkeypatch.setenv("W8A8SC_TEST", "y")
    with Pool(1, HANDLER, 0) as later:
        assert one(later, "variable", "W8A8SC_TEST") == "y"


def test_workers_are_where_their_pool_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Pool(1, HANDLER, 0):
        monkeypatch.chdir(tmp_path)
        with Pool(1, HANDLER, 0) as pool:
            assert one(pool, "working_folder") == str(tmp_path)


def test_a_handler_that_is_preloaded_is_imported_once_before_its_workers_are_forked() -> None:
    with Pool(2, HANDLER, 0, environment={"W8A8SC_TEST": "preload"}, preload=True) as pool:
        server = server_of(pool)
        for worker in pool.idle():
            pool.call(worker, "the task", "imported_by")
        while pool.busy:
            assert {result for _, result in pool.wait()} == {server}


def test_a_preloaded_handler_that_does_not_exist_is_named_by_the_worker() -> None:
    with Pool(1, "tests.workers.nowhere:Handler", preload=True) as pool, pytest.raises(MissingError, match="nowhere"):
        one(pool, "add", 1)


def test_the_first_pool_takes_the_server_that_was_started_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W8A8SC_TEST", "early")
    forkserver.start_early(HANDLER.partition(":")[0])
    started = forkserver.shared(forkserver.variables())
    with Pool(1, HANDLER, 0) as pool:
        assert server_of(pool) == started._process.pid
        assert one(pool, "imported_by") == started._process.pid


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("asked", [False, True])
def test_kernels_that_are_not_kept_are_compiled_only_for_a_worker(
    kept: bool, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for half a minute, and reads of it, whose input is refused at once, or who is gone."""
    compiled: list[bool] = []
    monkeypatch.setattr(kernels, "load_kept", lambda: kept)
    monkeypatch.setattr(kernels, "load", lambda: compiled.append(True))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        with ours:
            if asked:
                ours.send(b"fork")
                forking._load_kernels(theirs)
        if not asked:
            forking._load_kernels(theirs)
    assert compiled == ([True] if asked and not kept else [])


def test_a_killed_server_ends_nothing_and_is_replaced() -> None:
    with Pool(1, HANDLER, 1) as pool:
        server = server_of(pool)
        os.kill(server, signal.SIGKILL)
        assert wait_until_gone(server)
        assert one(pool, "add", 1) == 2
        with pytest.raises(WorkError, match="a worker process cannot be reached"):
            one(pool, "die", int(signal.SIGKILL))
        with Pool(1, HANDLER, 2) as another:
            assert one(another, "add", 1) == 3
            assert server_of(another) != server


def test_a_system_that_allows_no_more_processes_is_named(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import errno, os\n"
        "def refuse():\n"
        "    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))\n"
        "os.fork = refuse\n"
    )
    with (
        Pool(2, HANDLER, 0, environment={"PYTHONPATH": str(tmp_path)}) as pool,
        pytest.raises(WorkError, match="cannot be started .Resource temporarily unavailable.*fewer"),
    ):
        one(pool, "add", 1)


def test_it_ends_with_its_process(tmp_path: Path) -> None:
    script = (
        "import os\n"
        "from w8a8sc_tool.workers.pool import Pool\n"
        f"with Pool(1, {HANDLER!r}, 0) as pool:\n"
        "    pool.call(0, 'x', 'parent')\n"
        "    print(pool.wait()[0][1])\n"
        "if os.fork() == 0:\n"
        "    raise SystemExit  # ends no server that is not its own\n"
        "os.wait()\n"
        f"with Pool(1, {HANDLER!r}, 0) as pool:\n"
        "    pool.call(0, 'x', 'parent')\n"
        "    print(pool.wait()[0][1])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, env=environment, check=True
    )
    first, second = map(int, ran.stdout.split())
    assert first == second and not alive(first)
    assert not ran.stderr


def test_a_caller_with_many_open_files() -> None:
    """select takes no descriptor above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1100:
        pytest.skip("no more than 1024 files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    ours, theirs = socket.socketpair()
    high = socket.socket(fileno=fcntl.fcntl(ours, fcntl.F_DUPFD, 1050))
    try:
        assert not forkserver.has_message(high, 0)
        theirs.send(b"ready")
        assert forkserver.has_message(high, 0)
    finally:
        for end in (ours, theirs, high):
            end.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
