"""The real msmodelslim, with this project's executor in the vendor's place: the same bytes, and every failure told."""

# What only CANN can provide, the vendor's own executor, is not here: these tests prove the way to it and back.

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from w8a8sc_tool.backends.msmodelslim import compressor as vendor
from w8a8sc_tool.backends.msmodelslim import installed as backend
from w8a8sc_tool.checking.verify import verify
from w8a8sc_tool.conversion.convert import target_folder
from w8a8sc_tool.errors import MissingError, UsageError, WorkError
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.synthesis.synthesize import synthesize

from ...workers.test_pool import wait_until_gone

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(backend.package_folder() is None, reason="msmodelslim is not installed"),
]

REAL = 'exec {python} -m w8a8sc_tool.backends.msmodelslim.executor "$@"\n'


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for temporary files of each test's own: what is left in it is the test's."""
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("source") / "Small-w8a8s-310", "tiny", layers=1)


def program(path: Path, body: str) -> str:
    """A shell script as an executor; arguments 8 to 11 are IN OUT INDEX INFO."""
    path.write_text("#!/bin/sh\n" + body.replace("{python}", sys.executable))
    path.chmod(0o755)
    return str(path)


def rank_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("model-rank-*")}


def left_overs() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"w8a8sc-msmodelslim-{os.getuid()}-*"))


def test_a_checkpoint_of_full_width_with_the_recipes_fallbacks(tmp_path: Path) -> None:
    """Two layers of Qwen3-8B, the second with FLOAT gate and up: both backends give the same rank files."""
    source = synthesize(tmp_path / "Qwen3-8B-w8a8s-310", "qwen3-8b", layers=2, vocabulary=2048)
    (ours,) = compress(source, tmp_path / "native", tp=[2], backend="native")
    (theirs,) = compress(source, tmp_path / "vendor", tp=[2], backend="msmodelslim", executor="builtin", processes=2)
    assert theirs.manifest.options["backend"] == "msmodelslim"
    assert theirs.fallbacks == {"source": 3}
    assert rank_files(ours.directory) == rank_files(theirs.directory)
    assert (ours.directory / "quant_model_description.json").read_bytes() == (
        theirs.directory / "quant_model_description.json"
    ).read_bytes()
    assert verify(theirs.directory, source=source).ok
    assert not left_overs()


def test_installing_and_removing_our_executor(source: Path, tmp_path: Path) -> None:
    if backend.installed_executor() == "vendor":
        pytest.skip("a vendor build is here, which is not touched")
    path = backend.install_executor()
    try:
        assert backend.installed_executor() == "builtin"
        assert backend.install_executor() == path  # again: it replaces itself
        assert backend.choose().name == "native"  # ours is no reason to go through msmodelslim
        (result,) = compress(source, tmp_path, backend="msmodelslim", processes=1)
        assert verify(result.directory, source=source).ok
        with pytest.raises(MissingError, match="built with CANN"):
            backend.choose("msmodelslim", "vendor")
    finally:
        assert backend.uninstall_executor() == path
    assert backend.uninstall_executor() is None
    with pytest.raises(MissingError, match="no executor"):
        backend.choose("msmodelslim")


def test_a_vendor_build_is_never_replaced(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "compress_excutor"
    program(fake, "exit 0\n")
    monkeypatch.setattr(backend, "executor_path", lambda: fake)
    before = fake.read_bytes()
    with pytest.raises(UsageError, match="built with CANN is there"):
        backend.install_executor()
    assert backend.uninstall_executor() is None
    assert fake.read_bytes() == before
    chosen = backend.choose()
    assert (chosen.name, chosen.executor) == ("msmodelslim", "vendor")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("echo no licence for this device >&2; exit 3\n", r"return code: 3.*no licence for this device"),
        ("exit 0\n", "reports"),  # writes no files
        (
            "head -c 1000 /dev/zero > $9; head -c 8 /dev/zero > ${10}; head -c 12 /dev/zero > ${11}\n",
            "breaks the format",
        ),
        (
            # All is well but for one bit of the input: the result decodes, to something else.
            '{python} -c \'import sys; d = bytearray(open(sys.argv[1], "rb").read()); d[5] ^= 1; '
            'open(sys.argv[1] + ".x", "wb").write(d)\' $8\n'
            "exec {python} -m w8a8sc_tool.backends.msmodelslim.executor $1 $2 $3 $4 $5 $6 $7 $8.x $9 ${10} ${11}\n",
            "decodes to other values",
        ),
    ],
)
def test_executors_that_fail(source: Path, tmp_path: Path, body: str, message: str) -> None:
    executor = program(tmp_path / "executor", body)
    with pytest.raises(WorkError, match=message) as error:
        compress(source, tmp_path / "out", backend="msmodelslim", executor=executor, processes=1)
    assert "_proj.weight, rank 0 of 1" in str(error.value)
    assert not target_folder(tmp_path / "out", "Small", 1).exists()
    assert not left_overs()


def test_an_executor_that_hangs(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen from inside a worker: it gives up, names the tensor, and leaves no process behind."""
    from w8a8sc_tool.checkpoint import Checkpoint
    from w8a8sc_tool.checkpoint.reader import SourceReader
    from w8a8sc_tool.layouts import ARCHITECTURES
    from w8a8sc_tool.planning import Options, make_plan

    pid = tmp_path / "pid"
    once = tmp_path / "once"
    hanging = f"if [ -e {once} ]; then echo $$ > {pid}; sleep 600; fi; touch {once}\n"
    executor = program(tmp_path / "executor", hanging + REAL)
    checkpoint = Checkpoint.open(source, ARCHITECTURES)
    planned = next(item for item in make_plan(checkpoint, 1, Options()).modules if item.compress)
    with vendor.temporary_folder() as folder:
        compressor = vendor.VendorCompressor(str(folder), executor)
        compressor.compress_shards([planned.module], planned.sources, SourceReader())  # msmodelslim is imported here
        monkeypatch.setattr(vendor, "_TIMEOUT_SECONDS", 5.0)
        with pytest.raises(WorkError, match=r"did not answer within 5 s.*qkv_proj\.weight, rank 0 of 1"):
            compressor.compress_shards([planned.module], planned.sources, SourceReader())
    assert wait_until_gone(int(pid.read_text()))


def test_a_helper_that_is_killed(source: Path, tmp_path: Path) -> None:
    executor = program(tmp_path / "executor", "kill -9 -$(ps -o pgid= $$ | tr -d ' ')\n")
    with pytest.raises(WorkError, match=r"was killed.*_proj\.weight, rank"):
        compress(source, tmp_path / "out", backend="msmodelslim", executor=executor, processes=1)


def test_what_was_done_before_a_failure_is_not_lost(source: Path, tmp_path: Path) -> None:
    """The executor works twice, then fails; the next run has less to do and ends with the same bytes."""
    count = tmp_path / "count"
    body = f"echo x >> {count}; [ $(wc -l < {count}) -gt 2 ] && exit 9\n" + REAL
    executor = program(tmp_path / "executor", body)
    with pytest.raises(WorkError, match="return code: 9"):
        compress(source, tmp_path / "out", backend="msmodelslim", executor=executor, processes=1)
    assert len(count.read_text().split()) == 3
    good = program(tmp_path / "good", f"echo x >> {count}; " + REAL)
    (result,) = compress(source, tmp_path / "out", backend="msmodelslim", executor=good, processes=1)
    assert len(count.read_text().split()) < 3 + 3  # three layers are compressed in all
    (native,) = compress(source, tmp_path / "native", backend="native")
    assert rank_files(result.directory) == rank_files(native.directory)


def test_left_overs_of_a_killed_run_are_removed() -> None:
    left = Path(tempfile.mkdtemp(prefix=f"w8a8sc-msmodelslim-{os.getuid()}-"))
    (left / "source").write_bytes(b"x")
    with vendor.temporary_folder() as folder:
        assert not left.exists()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    shutil.rmtree(left, ignore_errors=True)
