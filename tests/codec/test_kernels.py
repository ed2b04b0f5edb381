"""How the kernels are compiled, kept and loaded: once for each kind of machine, on disk where possible."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core.errors import NumbaError

from w8a8sc_tool.codec import kernel_cache, kernels
from w8a8sc_tool.codec.jit import kernel, object_code
from w8a8sc_tool.codec.kernel_cache import ObjectCode
from w8a8sc_tool.errors import MissingError
from w8a8sc_tool.jobs.kernels import compile_kernels

ROUND_TRIP = """
import sys
import numpy as np
from w8a8sc_tool.codec import decode_matrix, encode_matrix, kernel_cache
encoded = encode_matrix(np.eye(64, 96, dtype=np.int8))
assert (decode_matrix(encoded.weight, encoded.index, encoded.info) == np.eye(64, 96)).all()
print(kernel_cache.cache_folder(), "numba" in sys.modules)
"""
CODE = [ObjectCode("name", "symbol", 2, {"bytes": 3}, b"code")]


def run(environment: dict[str, str], script: str = ROUND_TRIP) -> str:
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    return result.stdout.strip() + result.stderr


@pytest.fixture
def candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that kernels may be kept in, best first."""
    folders = [tmp_path / "image", tmp_path / "home"]
    monkeypatch.setattr(kernel_cache, "_candidates", lambda: folders)
    return folders


def kept(parent: Path) -> Path:
    """The folder below another one that kernels were written to."""
    (folder,) = (folder for folder in kernel_cache._folders() if folder.parent == parent)
    folder.mkdir(parents=True)
    kernel_cache.write(CODE, folder)
    return folder


# ---------------------------------------------------------------------------------------------------------- compiling


def test_kernels_that_are_kept_are_loaded_without_numba() -> None:
    kernels.load()
    assert run(dict(os.environ)) == f"{kernel_cache.kept_in()} False"


def test_importing_compiles_nothing_and_says_nothing(tmp_path: Path) -> None:
    script = "import sys\nfrom w8a8sc_tool.codec import kernels, matrix, provenance\n"
    script += "print(kernels._loaded, 'numba' in sys.modules)"
    assert run({**os.environ, "W8A8SC_CACHE_DIR": str(tmp_path / "cache")}, script) == "None False"
    assert not (tmp_path / "cache").exists()


@kernel({"bytes": 7})
def _difference(a, b):  # type: ignore[no-untyped-def]
    return a - b


@kernel({})
def _sine(a):  # type: ignore[no-untyped-def]
    return np.int64(math.sin(a))


@kernel({})
def _allocating(a):  # type: ignore[no-untyped-def]
    return np.empty(a)[0]


@kernel({})
def _raising(a):  # type: ignore[no-untyped-def]
    if a < 0:
        raise ValueError
    return a


def test_a_kernel_alone() -> None:
    (difference, raising), memory = kernels.in_memory([object_code(_difference), object_code(_raising)])
    assert memory
    assert difference(3, 2**40) == 3 - 2**40
    assert difference(-(2**63), 0) == -(2**63)
    assert difference.sizes == {"bytes": 7}
    assert raising(5) == 5
    with pytest.raises(RuntimeError, match="_raising"):
        raising(-5)


def test_a_kernel_needs_nothing_of_a_process() -> None:
    """LLVM ends a process that lacks something that code refers to."""
    with pytest.raises(RuntimeError, match="_sine refers to sin"):
        object_code(_sine)
    with pytest.raises(NumbaError):
        object_code(_allocating)


@pytest.mark.slow
def test_compiling_is_told_once_and_a_second_process_finds_the_kernels(tmp_path: Path) -> None:
    environment = {**os.environ, "W8A8SC_CACHE_DIR": str(tmp_path)}
    folder, _, told = run(environment).partition(" ")
    assert told.count("compiling kernels, once for this version") == 1
    (file,) = Path(folder).iterdir()
    assert file.is_relative_to(tmp_path)
    made = file.stat().st_mtime_ns
    assert run(environment) == f"{folder} False"
    assert file.stat().st_mtime_ns == made


@pytest.mark.slow
def test_damaged_files_are_made_again(tmp_path: Path) -> None:
    kernels.load()
    folder = kernel_cache.kept_in()
    assert folder is not None
    content = (folder / kernel_cache._file_name()).read_bytes()
    damaged = tmp_path / folder.name / kernel_cache._file_name()
    damaged.parent.mkdir()
    damaged.write_bytes(content[: len(content) // 2])
    environment = {**os.environ, "W8A8SC_CACHE_DIR": str(tmp_path)}
    assert "compiling" in run(environment)
    assert run(environment) == f"{damaged.parent} False"


@pytest.mark.slow
def test_works_without_any_writable_folder(tmp_path: Path) -> None:
    """A read-only container without a home: kernels are compiled in memory."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    told = run({**os.environ, "W8A8SC_CACHE_DIR": str(blocked / "cache")})
    assert told.startswith("None True") and "no folder to keep them can be written" in told


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
    """The process that they are forked from compiles, the first time, and only loads later."""
    environment = {**os.environ, "W8A8SC_CACHE_DIR": str(tmp_path)}
    times = []
    for expected in (1, 0):
        assert run(environment, WORKERS).count("compiling kernels") == expected
        times.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.kernels")})
    assert times[0] == times[1] and len(times[0]) == 1


# ------------------------------------------------------------------------------------------------------------ keeping


def test_a_file_is_for_one_kind_of_machine(candidates: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel_cache.read() is None
    folder = kept(candidates[1])
    assert kernel_cache.read() == CODE and kernel_cache.kept_in() == folder
    monkeypatch.setenv("NUMBA_CPU_NAME", "another")
    assert kernel_cache.read() is None
    other = [CODE[0]._replace(code=b"other")]
    kernel_cache.write(other, folder)
    assert kernel_cache.read() == other
    monkeypatch.undo()
    monkeypatch.setattr(kernel_cache, "_candidates", lambda: candidates)
    assert kernel_cache.read() == CODE


@pytest.mark.parametrize("size", [0, 10, 40, -1])
def test_a_file_that_was_cut_or_changed_is_not_read(candidates: list[Path], size: int) -> None:
    """A machine that lost power, or a full disk."""
    (file,) = kept(candidates[0]).iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:size])
    assert kernel_cache.read() is None and kernel_cache.kept_in() is None
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert kernel_cache.read() is None
    file.write_bytes(content)
    assert kernel_cache.read() == CODE


def test_code_that_others_could_have_put_there_is_not_read(candidates: list[Path]) -> None:
    folder = kept(candidates[0])
    for path in (folder, folder.parent):
        path.chmod(0o777)
        assert kernel_cache.read() is None
        assert (kernel_cache.writable_folder() or folder).parent == candidates[1]
        path.chmod(0o755)
    assert kernel_cache.read() == CODE


def test_a_chosen_folder_that_others_may_write_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As mkdir makes one where a user's group is shared: the remedy says what is wrong with it."""
    tmp_path.chmod(0o775)
    monkeypatch.setenv(kernel_cache.CACHE_VARIABLE, str(tmp_path))
    with pytest.raises(MissingError, match="nobody else may write to"):
        compile_kernels()


def test_kernels_of_an_image_are_used_where_nothing_can_be_written(
    candidates: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another user than who built it, too."""
    folder = kept(candidates[0])
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o644
    for name in ("mkdir", "unlink", "replace"):
        monkeypatch.setattr(Path, name, None)
    assert kernel_cache.read() == CODE
    assert kernel_cache.cache_folder() == folder


def test_a_full_disk_leaves_nothing(candidates: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = kernel_cache.writable_folder()
    assert folder is not None

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", fail)
    kernel_cache.write(CODE, folder)
    assert not [*folder.iterdir()]
    monkeypatch.setattr(kernels, "_loaded", None)
    monkeypatch.setattr(kernels, "_compile", list)
    monkeypatch.setattr(kernels, "_all_of", lambda code: None)
    with pytest.raises(MissingError, match="cannot be written"):
        compile_kernels()


def test_cache_folder_without_a_home() -> None:
    script = "import pathlib\nfrom w8a8sc_tool.codec import kernel_cache\n"
    script += "pathlib.Path.home = classmethod(lambda cls: (_ for _ in ()).throw(RuntimeError()))\n"
    script += "print(len([*kernel_cache._candidates()]))"
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "W8A8SC_CACHE_DIR")}
    assert run(environment, script) == "2"  # the package's folder and the temporary one
