"""How the kernels are compiled: one signature each, cached where possible, in memory where not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from w8a8sc_tool.codec import decode as decoder
from w8a8sc_tool.codec import decode_matrix, encode_matrix, kernel_cache
from w8a8sc_tool.codec import encode as encoder

KERNELS = (encoder.encode_tiles, encoder.count_tiles, encoder.rank_counts, decoder.decode_tiles)

ROUND_TRIP = """
import numpy as np
from w8a8sc_tool.codec import decode_matrix, encode_matrix, kernel_cache
encoded = encode_matrix(np.eye(64, 96, dtype=np.int8))
assert (decode_matrix(encoded.weight, encoded.index, encoded.info) == np.eye(64, 96)).all()
print(kernel_cache.cache_folder())
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
            encoded = encode_matrix(array, dictionary=dictionary)
            for tensor in (encoded.weight, encoded.index, encoded.info):
                tensor.setflags(write=False)
            decode_matrix(encoded.weight, encoded.index, encoded.info)
    for kernel in KERNELS:
        assert len(kernel.compiled().signatures) == 1


@pytest.mark.slow
def test_second_process_finds_compiled_kernels(tmp_path: Path) -> None:
    environment = {**os.environ, "W8A8SC_CACHE_DIR": str(tmp_path)}
    run(environment)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")}
    assert len(before) >= 2 * len(KERNELS)
    run(environment)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")} == before


@pytest.mark.slow
def test_damaged_files_of_a_kernel_are_made_again(tmp_path: Path) -> None:
    """A machine that lost power, or a full disk, leaves files that are cut short."""
    encode_matrix(np.zeros((16, 32), np.int8))
    folder = kernel_cache.cache_folder()
    assert folder is not None
    shutil.copytree(folder, tmp_path / folder.name)
    files = [*tmp_path.rglob("encode.rank_counts-*.nb*")]
    assert len(files) >= 2
    for path in files:
        path.write_bytes(b"" if path.suffix == ".nbi" else b"other bytes")
    run({**os.environ, "W8A8SC_CACHE_DIR": str(tmp_path)})
    assert min(path.stat().st_size for path in files) > 20


def test_importing_compiles_nothing_and_says_nothing(tmp_path: Path) -> None:
    script = "from w8a8sc_tool.codec.matrix import decoder, encoder\n"
    script += "print(encoder.encode_tiles.is_compiled, decoder.decode_tiles.is_compiled)"
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "W8A8SC_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (result.stdout, result.stderr) == ("False False\n", "")
    assert not (tmp_path / "cache").exists()


def test_a_folder_is_complete_for_one_kind_of_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not kernel_cache.is_complete(tmp_path)
    kernel_cache.mark_complete(tmp_path)
    assert kernel_cache.is_complete(tmp_path)
    monkeypatch.setenv("NUMBA_CPU_NAME", "another")
    assert not kernel_cache.is_complete(tmp_path)


WORKERS = """
from w8a8sc_tool.workers.pool import Pool
with Pool(2, "w8a8sc_tool.checking.verify_worker:Verifier") as pool:
    for worker in pool.idle():
        pool.call(worker, "nothing", "check", [], False, False)
    while pool.busy:
        pool.wait()
"""


@pytest.mark.slow
def test_workers_find_compiled_kernels(tmp_path: Path) -> None:
    """The parent compiles before it starts them, the first time, and does not even load them later."""
    environment = {**os.environ, "W8A8SC_CACHE_DIR": str(tmp_path)}
    times = []
    for expected in (1, 0):
        result = subprocess.run(
            [sys.executable, "-c", WORKERS], env=environment, capture_output=True, text=True, check=True
        )
        assert result.stderr.count("compiling kernels") == expected
        times.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")})
    assert times[0] == times[1]


@pytest.mark.slow
def test_compiling_is_told_once(tmp_path: Path) -> None:
    environment = {**os.environ, "W8A8SC_CACHE_DIR": str(tmp_path)}
    for expected in (1, 0):
        result = subprocess.run(
            [sys.executable, "-c", ROUND_TRIP], env=environment, capture_output=True, text=True, check=True
        )
        assert result.stderr.count("compiling kernels, once for this version") == expected


def test_kernels_of_an_image_are_used_where_nothing_can_be_written_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only folder with kernels in it, then one that can be written: they are copied, not compiled."""
    image, home = tmp_path / "image", tmp_path / "home"
    monkeypatch.setattr(kernel_cache, "_candidates", lambda: [image])
    made = kernel_cache.cache_folder()
    assert made is not None
    (made / "x.nbc").write_bytes(b"compiled")
    monkeypatch.setattr(kernel_cache, "_candidates", lambda: [image, home])
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: refuse(Path(dir)))

    def refuse(folder: Path) -> object:
        if image in folder.parents:
            raise PermissionError
        return tempfile.SpooledTemporaryFile()

    used = kernel_cache.cache_folder()
    assert used is not None and home in used.parents
    assert (used / "x.nbc").read_bytes() == b"compiled"


@pytest.mark.slow
def test_works_without_any_writable_folder(tmp_path: Path) -> None:
    """A read-only container without a home: kernels are compiled in memory."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    environment = {**os.environ, "W8A8SC_CACHE_DIR": str(blocked / "cache")}
    assert run(environment) == "None"


def test_cache_folder_without_a_home(tmp_path: Path) -> None:
    script = "import pathlib\nfrom w8a8sc_tool.codec import kernel_cache\n"
    script += "pathlib.Path.home = classmethod(lambda cls: (_ for _ in ()).throw(RuntimeError()))\n"
    script += "print(len(kernel_cache._candidates()))"
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "W8A8SC_CACHE_DIR")}
    assert run(environment, script) == "2"  # the package's folder and the temporary one
