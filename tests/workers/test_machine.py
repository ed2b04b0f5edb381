"""What this process may use of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from w8a8sc_tool.workers import machine


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    return tmp_path


def test_affinity_counts(cgroup: Path) -> None:
    assert machine.cores() == 16


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", 16), ("250000 100000", 2), ("10000 100000", 1), ("junk", 16)]
)
def test_quota_of_cgroup_2(cgroup: Path, text: str, cores: int) -> None:
    (cgroup / "cpu.max").write_text(text + "\n")
    assert machine.cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 16), ("400000", 4)])
def test_quota_of_cgroup_1(cgroup: Path, quota: str, cores: int) -> None:
    (cgroup / "cpu").mkdir()
    (cgroup / "cpu/cpu.cfs_quota_us").write_text(quota)
    (cgroup / "cpu/cpu.cfs_period_us").write_text("100000")
    assert machine.cores() == cores


def test_memory_of_the_cgroup_limits_processes(cgroup: Path) -> None:
    (cgroup / "memory.max").write_text(str(3 << 30))
    (cgroup / "memory.current").write_text(str(2 << 30))
    (cgroup / "memory.stat").write_text(f"anon 5\ninactive_file {200 << 20}\n")
    free = machine.free_memory()
    assert free == (1 << 30) + (200 << 20)
    assert machine.default_processes() == free // machine.BYTES_PER_WORKER
    (cgroup / "memory.max").write_text("max")
    assert machine.default_processes() > free // machine.BYTES_PER_WORKER
    (cgroup / "memory.max").write_text("1")
    assert machine.default_processes() == 1
