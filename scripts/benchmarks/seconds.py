"""Where every processor second of a job goes: its processes sampled by Linux's `perf`, the kernel's work included."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from w8a8sc_tool.synthesis.synthesize import synthesize

from . import measure
from .job import ROOT, warm

_HERTZ = 499

_Classes = tuple[tuple[str, tuple[str, ...]], ...]  # name, and words that frames have

# A sample belongs to the first line whose words one of its frames has; kernel frames are named by their functions.
_KERNEL: _Classes = (
    ("page faults", ("exc_page_fault",)),
    ("write to the page cache", ("vfs_write", "pwrite")),
    ("sync and forget", ("fsync", "fadvise", "writepages")),
    ("read from the page cache", ("preadv", "vfs_read", "filemap_read")),
    ("processes and their memory", ("execve", "clone", "exit", "mmap", "munmap", "brk", "mremap")),
)
# Code outside of the kernel, by its file.
_FILES: _Classes = (
    ("hash", ("blake3",)),
    ("codec's kernels", ("perf-", "JIT", "anon")),
    (
        "Python, start and imports included",
        ("python3", "_core", "_json", "ld-linux", "llvmlite", "_dispatcher"),
    ),
    ("copies, cuts, comparisons (numpy, libc)", ("_multiarray", "libc.so")),
)


def run(json: str | None, folder: str, layers: int, vocabulary: int, against: Path | None) -> None:
    """A column per version, by default with the read-back, TP 1, -j 2."""
    if shutil.which("perf") is None:
        raise SystemExit("this needs perf (Debian: linux-perf)")
    work = Path(folder).resolve()
    model = work / f"Bench{layers}-{vocabulary}-w8a8s"
    if not model.exists():
        synthesize(model, "qwen3-8b", layers=layers, vocabulary=vocabulary)
    versions = {"this": ROOT} | ({"other": against} if against is not None else {})
    seconds = {version: _sampled(model, work / "out", root) for version, root in versions.items()}
    total = sum(seconds["this"].values())
    rows = [["processor seconds of", *(f"{version} version" for version in versions), "of all"]]
    for name, value in seconds["this"].most_common():
        rows.append([name, *(f"{each[name]:.2f}" for each in seconds.values()), f"{100 * value / total:.0f} %"])
    rows.append(["all", *(f"{sum(each.values()):.2f}" for each in seconds.values()), "100 %"])
    measure.table(rows)
    measure.save(json, "seconds", seconds)


def _sampled(model: Path, out: Path, root: Path) -> Counter[str]:
    """Processor seconds of a conversion by version `root`, by what they were spent on."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    warm(model)
    command = [sys.executable, "-m", "w8a8sc_tool", "compress", str(model), "-j", "2", "-q", "-o", str(out)]
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/perf.data"
        record = ["perf", "record", "-q", "-F", str(_HERTZ), "-e", "cpu-clock", "-g", "-o", data, *command]
        subprocess.run(record, check=True, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        script = ["perf", "script", "-i", data, "-F", "comm,pid,ip,sym,dso"]
        text = subprocess.run(script, check=True, capture_output=True, text=True, errors="replace").stdout
    shutil.rmtree(out, ignore_errors=True)
    frames = (block.splitlines()[1:] for block in text.split("\n\n"))
    counts = Counter(_spent_on(stack) for stack in frames if stack)
    return Counter({name: count / _HERTZ for name, count in counts.items()})


def _spent_on(stack: list[str]) -> str:
    """What a sample's frames, the innermost first, belong to."""
    if "kernel" in stack[0].rpartition("(")[2]:
        frames = [frame for frame in stack if "kernel" in frame.rpartition("(")[2]]
        classes, words = _KERNEL, " ".join(frames)
    else:
        classes, words = _FILES, stack[0].rpartition("(")[2].rpartition("/")[2]  # folders have Python's name, too
    return next((name for name, parts in classes if any(part in words for part in parts)), "other")
