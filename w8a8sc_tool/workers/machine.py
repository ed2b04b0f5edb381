"""What this process may use of the machine: cores and memory, by affinity, cgroup and what is free."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

# A worker's own memory: interpreter, kernels, and the blocks and results it works on.
BYTES_PER_WORKER: Final = 400 << 20
BYTES_PER_VENDOR: Final = 2500 << 20  # with msmodelslim beside it: torch, the weight, its fractals, the result

_CGROUP = Path("/sys/fs/cgroup")


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def cores() -> int:
    """Cores this process may run on: its affinity, and the quota of its control group (version 1 or 2)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = period = None
    try:
        words = (_CGROUP / "cpu.max").read_text().split()
        quota, period = (int(words[0]), int(words[1])) if words[0] != "max" else (None, None)
    except (OSError, ValueError, IndexError):
        quota = _read_number(_CGROUP / "cpu/cpu.cfs_quota_us")
        period = _read_number(_CGROUP / "cpu/cpu.cfs_period_us")
    if quota and period and quota > 0:
        count = min(count, max(1, quota // period))
    return max(1, count)


def free_memory() -> int | None:
    """Bytes that can still be used: the machine's available memory or what the control group leaves; None: unknown."""
    free = None
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    for limit_file, used_file, stat_key in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, used = _read_number(_CGROUP / limit_file), _read_number(_CGROUP / used_file)
        if limit is None or used is None:
            continue
        cached = _stat_value((_CGROUP / used_file).with_name("memory.stat"), stat_key)
        left = max(0, limit - used + cached)
        free = left if free is None else min(free, left)
    return free


def _stat_value(path: Path, key: str) -> int:
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    except (OSError, ValueError):
        pass
    return 0


def default_processes(bytes_per_worker: int = BYTES_PER_WORKER) -> int:
    """One per core, fewer if memory would not allow it."""
    memory = free_memory()
    allowed = cores()
    if memory is not None:
        allowed = min(allowed, max(1, memory // bytes_per_worker))
    return allowed
