"""Environments with the real vLLM, which scripts/interop makes, and the directories that are loaded there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.jobs.reshard import reshard
from w8a8sc_tool.sharded_state.manifest import NAME as MANIFEST
from w8a8sc_tool.synthesis.synthesize import synthesize

HERE = Path(__file__).parent
PAIRS = ("0.18.0", "0.23.0")

# Behind norms with bias no layer but W8A8S and W8A8 has a bias in vLLM.
_MIXED = (("*.0.mlp.down_proj", "FLOAT"), ("*.1.self_attn.*", "W8A8"), ("*.2.mlp.down_proj", "W8A8_DYNAMIC"))
_KEPT = "*.3.self_attn.o_proj"  # stays W8A8S


def environment(name: str) -> Path:
    """The Python of an environment; skips the test, with the reason, if there is none or no time is left."""
    remaining()
    root = Path(os.environ.get("W8A8SC_INTEROP", HERE.parents[1] / ".interop"))
    failed = root / f"{name}.failed"
    if (root / name / "ready").exists():
        return root / name / "bin" / "python"
    reason = failed.read_text().strip() if failed.exists() else "scripts/interop has not made it"
    pytest.skip(f"no environment with {name}: {reason}")


def remaining() -> float:
    """Seconds until everything has to be over (W8A8SC_INTEROP_UNTIL, seconds since 1970); skips the test after that."""
    seconds = float(os.environ.get("W8A8SC_INTEROP_UNTIL", "inf")) - time.time()
    if seconds <= 0:
        pytest.skip("no time is left (scripts/interop --until)")
    return seconds


def run(python: Path, script: str, request: object, log: Path, seconds: float = 1800, **variables: str) -> Any:
    """What a script of this folder answers, in another environment, to a JSON request on its standard input.

    It fails if that takes longer than `seconds`, and is skipped if no time is left.
    """
    left = remaining()
    keep = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VLLM_PLUGINS")}
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [python, HERE / script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**keep, "PYTHONDONTWRITEBYTECODE": "1", **variables},
            cwd=log.parent,
            start_new_session=True,  # an engine's own processes end with it
        ) as process,
    ):
        try:
            output, _ = process.communicate(json.dumps(request), min(seconds, left))
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                remaining()
            raise
    assert process.returncode == 0 and output, log.read_text()[-4000:]
    return json.loads(output)


class Directories:
    """Checkpoints and directories by name, made on first use, read only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[str, Path] = {}
        self._makers: dict[str, Callable[[], Path]] = {
            "checkpoint": lambda: synthesize(folder / "Tiny-w8a8s-310", "tiny", layers=2),
            # All types that vLLM Ascend has, m4's norms with bias, a bfloat16 model's float32 deq_scale.
            "mixed checkpoint": lambda: synthesize(
                folder / "Mixed-w8a8s-310", "tiny", m4=True, dtype="bfloat16", types=_MIXED
            ),
            "all types checkpoint": lambda: synthesize(
                folder / "All-w8a8s-310",
                "tiny",
                m4=True,
                dtype="bfloat16",
                types=[*_MIXED, ("*.3.mlp.down_proj", "W16A16S")],
            ),
            "all types": lambda: self._compressed("all types checkpoint", 2, "all", keep=[_KEPT]),
            "tied checkpoint": lambda: synthesize(
                folder / "Tied-w8a8s-310", "tiny", layers=1, tied=True, vocabulary=1000
            ),
            "wide checkpoint": lambda: synthesize(folder / "Wide-w8a8s-310", "qwen3-8b", layers=2, vocabulary=32000),
            "wide tp1": lambda: self._compressed("wide checkpoint", 1, "wide"),
            "vendor tp2": lambda: self._without_manifest("tp2"),
            "resharded tp2": lambda: reshard(self["tp4"], folder / "resharded", tp=[2], processes=2)[0].directory,
            "uncompressed tp2": lambda: self._uncompressed("checkpoint", 2),
            "tp2 in parts": lambda: self._compressed("checkpoint", 2, "parts", max_file_size="2MB"),
        }
        for size in (1, 2, 4):
            self._makers[f"tp{size}"] = partial(self._compressed, "checkpoint", size, "out")
            self._makers[f"tied tp{size}"] = partial(self._compressed, "tied checkpoint", size, "tied")
        for pair in PAIRS:
            target = pair.rpartition(".")[0]
            self._makers[f"mixed {pair}"] = partial(
                self._compressed, "mixed checkpoint", 2, f"mixed-{target}", target=target, keep=[_KEPT]
            )

    def __getitem__(self, name: str) -> Path:
        if name not in self._made:
            self._made[name] = Path(self._makers[name]())
        return self._made[name]

    def copy(self, name: str, *, manifest: bool = True) -> Path:
        """A copy to damage."""
        target = self.folder / "copies" / str(len(self._made))
        self._made[str(target)] = Path(shutil.copytree(self[name], target))
        if not manifest:
            (target / MANIFEST).unlink()
        return target

    def _compressed(self, source: str, tp: int, output: str, **options: Any) -> Path:
        return compress(self[source], self.folder / output, tp=[tp], processes=2, **options)[0].directory

    def _uncompressed(self, source: str, tp: int) -> Path:
        output = self.folder / "uncompressed"
        return compress(self[source], output, tp=[tp], processes=2, compress=False)[0].directory

    def _without_manifest(self, name: str) -> Path:
        return self.copy(name, manifest=False)


@pytest.fixture(scope="session")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Directories:
    return Directories(tmp_path_factory.mktemp("interop"))
