"""The time that the other tests here may take. Needs no environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.interop.conftest import run

HANGS = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path("child").write_text(str(child.pid))
time.sleep(600)
"""


def ends(pid: int) -> bool:
    """Whether a process ends within ten seconds; one that waits for its parent's interest has ended."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "hangs.py"
    path.write_text(HANGS)
    return str(path)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes in /proc")
def test_what_runs_when_no_time_is_left_is_ended_with_its_processes_and_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str
) -> None:
    monkeypatch.setenv("W8A8SC_INTEROP_UNTIL", str(time.time() + 3))
    with pytest.raises(pytest.skip.Exception, match="no time is left"):
        run(Path(sys.executable), script, {}, tmp_path / "log")
    if (tmp_path / "child").exists():  # not on a machine that takes three seconds to start a Python
        assert ends(int((tmp_path / "child").read_text()))
    with pytest.raises(pytest.skip.Exception, match="no time is left"):
        run(Path(sys.executable), script, {}, tmp_path / "log")


def test_a_script_that_takes_longer_than_its_own_limit_fails(tmp_path: Path, script: str) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run(Path(sys.executable), script, {}, tmp_path / "log", 1)
