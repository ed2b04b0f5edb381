"""How the kernels are compiled: one signature each, cached where possible, in memory where not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from w8a8sc_tool.codec import decode as decoder
from w8a8sc_tool.codec import decode_matrix, encode_matrix
from w8a8sc_tool.codec import encode as encoder

KERNELS = (encoder.encode_tiles, encoder.count_tiles, encoder.rank_counts, decoder.decode_tiles)

ROUND_TRIP = """
import numpy as np
from w8a8sc_tool.codec import decode_matrix, encode_matrix, jit
encoded = encode_matrix(np.eye(64, 96, dtype=np.int8))
assert (decode_matrix(encoded.weight, encoded.index, encoded.info) == np.eye(64, 96)).all()
print(jit.cache_folder())
"""


def run(environment: dict[str, str], script: str = ROUND_TRIP) -> str:
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    return result.stdout.strip()


def test_no_argument_ever_compiles_a_kernel_again() -> None:
    weight = np.arange(128 * 256, dtype=np.int8).reshape(128, 256)
    for array in (weight, weight[:100], np.frombuffer(b"\0" + bytes(512), np.int8, offset=1).reshape(16, 32)):
        for dictionary in ("tile", "matrix"):
            encoded = encode_matrix(array, dictionary=dictionary)  # type: ignore[arg-type]
            for tensor in (encoded.weight, encoded.index, encoded.info):
                tensor.setflags(write=False)
            decode_matrix(encoded.weight, encoded.index, encoded.info)
    for kernel in KERNELS:
        assert len(kernel.signatures) == 1


def test_second_process_finds_compiled_kernels(tmp_path: Path) -> None:
    environment = {**os.environ, "W8A8SC_CACHE_DIR": str(tmp_path)}
    run(environment)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")}
    assert len(before) >= 2 * len(KERNELS)
    run(environment)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")} == before


def test_works_without_any_writable_folder(tmp_path: Path) -> None:
    """A read-only container without a home: kernels are compiled in memory."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    environment = {**os.environ, "W8A8SC_CACHE_DIR": str(blocked / "cache")}
    assert run(environment) == "None"


def test_cache_folder_without_a_home(tmp_path: Path) -> None:
    script = "import pathlib\nfrom w8a8sc_tool.codec import jit\n"
    script += "pathlib.Path.home = classmethod(lambda cls: (_ for _ in ()).throw(RuntimeError()))\n"
    script += "print(len(jit._candidates()))"
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "W8A8SC_CACHE_DIR")}
    assert run(environment, script) == "1"
