"""More files than the usual limit, in a process of its own: as many as the hard limit allows, and none more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MANY = """
import resource, sys
from pathlib import Path
from w8a8sc_tool.errors import W8A8SCError
from w8a8sc_tool.io import files, reading
from w8a8sc_tool.io.descriptors import most_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (200, int(sys.argv[2])))
assert most_open_files() == int(sys.argv[2]) - 128
opened = []
try:
    for number in range(300):
        opened.append(files.create(Path(sys.argv[1], str(number))))
        opened.append(reading.open_file(Path(sys.argv[1], str(number))))
except W8A8SCError as error:
    assert "many open files" in str(error), error
print(len(opened))
"""


@pytest.mark.parametrize(("hard", "least", "most"), [(1000, 600, 600), (400, 380, 400)])
def test_more_files_than_the_usual_limit(hard: int, least: int, most: int, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", MANY, str(tmp_path), str(hard)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert least <= int(done.stdout) <= most


WORKERS = """
import os, resource, sys
from w8a8sc_tool.workers.pool import Pool
resource.setrlimit(resource.RLIMIT_NOFILE, (160, 1000))
files = [os.open(sys.executable, os.O_RDONLY) for _ in range(20)]
with Pool(75, "collections:Counter") as pool:
    print(len(pool.idle()))
"""


def test_more_workers_than_the_usual_limit_leaves_room_for() -> None:
    """Each takes two descriptors: beside nearly as many files as need no higher limit, that may be too many."""
    done = subprocess.run([sys.executable, "-c", WORKERS], capture_output=True, text=True)
    assert done.stdout == "75\n", done.stderr
