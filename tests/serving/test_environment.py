"""Every row of the examination: one machine that fails it, one that passes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from w8a8sc_tool._version import VERSION
from w8a8sc_tool.cli.main import run
from w8a8sc_tool.jobs import doctor
from w8a8sc_tool.serving.environment import Host, Row, missing, rows
from w8a8sc_tool.serving.plugin import Plugin

from ..pythons import BASE


class Machine(Host):
    """A host whose import of torch_npu says what the test wants."""

    def probe(self, code: str) -> str:
        answers: dict[str, str] = getattr(self, "answers", {})
        return next((answer for part, answer in answers.items() if part in code), "")


def install(packages: Path, name: str, version: str) -> None:
    folder = packages / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def good(tmp_path: Path) -> Machine:
    """A host that serves."""
    packages, devices, cann = tmp_path / "packages", tmp_path / "dev", tmp_path / "cann"
    for name, version in (
        *(
            ("vllm", "0.18.0"),
            ("vllm-ascend", "0.18.0.post1"),
            ("torch_npu", "2.10.0.post4"),
            ("msmodelslim", "26.1.0"),
        ),
    ):
        install(packages, name, version)
    devices.mkdir()
    for name in ("davinci0", "davinci_manager", "devmm_svm", "hisi_hdc"):
        (devices / name).touch()
    cann.mkdir()
    (cann / "version.cfg").write_text("runtime_running_version=[9.0.0.1]\n")
    return Machine(
        environment={
            "ASCEND_HOME_PATH": str(cann),
            "PYTORCH_NPU_ALLOC_CONF": "max_split_size_mb:256",
            "LD_LIBRARY_PATH": f"/a:{tmp_path / 'python'}",
        },
        plugin=Plugin(tmp_path / "bin" / "python", VERSION, ""),
        devices=devices,
        import_path=[str(packages)],
        python_lib=str(tmp_path / "python"),
        python=(3, 11),
        cores=8,
        free_memory=64 << 30,
        free_disk=500 << 30,
        open_files=65536,
        kernel_cache=tmp_path,
        executor="vendor",
        npu_smi="/usr/local/bin/npu-smi",
    )


def row(host: Host, subject: str) -> Row:
    (match,) = [entry for entry in rows(host) if entry.subject == subject]
    return match


def test_a_good_host_has_all(good: Machine) -> None:
    assert [entry.subject for entry in rows(good) if entry.ok is not True and entry.task != "cpu"] == []


def without(host: Machine, **changes: Any) -> Machine:
    return replace(host, **changes)


def cann(host: Machine, text: str) -> Machine:
    (Path(host.environment["ASCEND_HOME_PATH"]) / "version.cfg").write_text(text)
    return host


def added(host: Machine, name: str) -> Machine:
    install(Path(host.import_path[0]), name, "3.0.0")
    return host


def removed(host: Machine, name: str) -> Machine:
    for folder in Path(host.import_path[0]).glob(f"{name.replace('-', '_')}-*"):
        (folder / "METADATA").unlink()
        folder.rmdir()
    return host


def left_over(host: Machine) -> Machine:
    (Path(host.import_path[0]) / "triton").mkdir()
    return host


def elsewhere(host: Machine, name: str) -> Machine:
    """A package behind the first folder: in the user site, the system's packages, or on PYTHONPATH."""
    other = Path(host.import_path[0]).with_name("elsewhere")
    install(other, name, "3.0.0")
    return replace(host, import_path=[*host.import_path, str(other)])


def no_device(host: Machine, name: str) -> Machine:
    (host.devices / name).unlink()
    return host


def answering(host: Machine, **answers: str) -> Machine:
    made = replace(host)
    vars(made)["answers"] = answers
    return made


def environment(host: Machine, name: str, value: str | None) -> Machine:
    changed = dict(host.environment) | ({name: value} if value is not None else {})
    if value is None:
        del changed[name]
    return replace(host, environment=changed)


@pytest.mark.parametrize(
    ("subject", "spoil", "ok"),
    [
        ("Python", lambda h: without(h, python=(3, 9)), False),
        ("folder for compiled kernels", lambda h: without(h, kernel_cache=None), None),
        ("memory", lambda h: without(h, free_memory=1 << 30), False),
        ("memory", lambda h: without(h, free_memory=None), None),
        ("disk here", lambda h: without(h, free_disk=1 << 30), None),
        ("msmodelslim and its executor", lambda h: without(h, executor="builtin"), None),
        ("open files", lambda h: without(h, open_files=256), False),
        ("open files", lambda h: without(h, open_files=1024, executor=None), None),
        ("PYTORCH_NPU_ALLOC_CONF", lambda h: environment(h, "PYTORCH_NPU_ALLOC_CONF", None), None),
        ("LD_LIBRARY_PATH", lambda h: environment(h, "LD_LIBRARY_PATH", None), None),
        ("triton", lambda h: added(h, "triton"), False),
        ("triton-ascend", lambda h: added(h, "triton-ascend"), False),
        ("left-over triton folder", left_over, False),
        ("triton", lambda h: elsewhere(h, "triton"), False),
        ("versions that belong together", lambda h: elsewhere(removed(h, "vllm"), "vllm"), False),
        ("ASCEND_HOME_PATH", lambda h: environment(h, "ASCEND_HOME_PATH", None), False),
        ("ASCEND_HOME_PATH", lambda h: environment(h, "ASCEND_HOME_PATH", "/nowhere"), False),
        ("CANN", lambda h: cann(h, "version=[8.3.0]"), False),
        ("CANN", lambda h: cann(h, "?"), None),
        ("torch_npu", lambda h: removed(h, "torch_npu"), False),
        ("import of torch_npu", lambda h: answering(h, torch_npu="ImportError: libhccl.so"), False),
        ("compressed masks", lambda h: answering(h, hasattr="AssertionError"), None),
        ("vllm", lambda h: removed(h, "vllm"), False),
        ("vllm-ascend", lambda h: removed(h, "vllm-ascend"), False),
        ("versions that belong together", lambda h: added(removed(h, "vllm"), "vllm"), False),
        ("chips", lambda h: no_device(h, "davinci0"), False),
        ("/dev/davinci_manager", lambda h: no_device(h, "davinci_manager"), False),
        ("/dev/devmm_svm", lambda h: no_device(h, "devmm_svm"), False),
        ("/dev/hisi_hdc", lambda h: no_device(h, "hisi_hdc"), False),
        ("npu-smi", lambda h: without(h, npu_smi=None), False),
    ],
)
def test_each_row_can_fail(good: Machine, subject: str, spoil: Any, ok: bool | None) -> None:
    assert row(good, subject).ok is True
    spoiled = row(spoil(good), subject)
    assert spoiled.ok is ok
    assert spoiled.mend and spoiled.why


def test_a_laptop_converts_and_does_not_serve(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    laptop = Machine(
        environment={},
        devices=tmp_path / "dev",
        import_path=[str(tmp_path)],
        python=(3, 12),
        free_memory=8 << 30,
        free_disk=100 << 30,
        open_files=1024,
        npu_smi=None,
    )
    entries = rows(laptop)
    assert missing(entries, "convert") == []
    assert {"vllm", "chips", "torch_npu"} <= {entry.subject for entry in missing(entries, "serve")}


def test_probing_happens_in_another_process() -> None:
    host = Host()
    assert host.probe("import os; assert True") == ""
    assert host.probe("raise ImportError('libascendcl.so: cannot open')") == "ImportError: libascendcl.so: cannot open"
    assert host.probe("import os; os.abort()").startswith("ended with -")


def test_the_command(good: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "this_machine", lambda: good)
    assert run(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["judged"] == ["convert", "serve"]
    monkeypatch.setattr(doctor, "this_machine", lambda: added(good, "triton"))
    assert run(["doctor"]) == 4
    printed = capsys.readouterr().out
    assert "MISSING  triton: 3.0.0 (wanted: absent)" in printed and "pip uninstall -y triton" in printed
    monkeypatch.setattr(doctor, "this_machine", lambda: good)
    assert run(["doctor", "--for", "convert"]) == 0


def test_doctor_and_serve_find_the_same_packages(tmp_path: Path) -> None:
    """On PYTHONPATH, in the user site, or in the packages of the Python that a virtual environment was made with."""
    user, path = tmp_path / "user", tmp_path / "path"
    install(user / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages", "vllm", "0.23.1")
    install(path, "vllm_ascend", "0.23.0")
    (path / "triton").mkdir()
    (path / "triton/__init__.py").touch()
    code = (
        "from w8a8sc_tool.serving.environment import Host\nfrom w8a8sc_tool.serving.packages import version_of\n"
        "h = Host(); print(h.version('vllm'), version_of('vllm-ascend'), h.importable('triton'), h.importable('json'))"
    )
    ours = [Path(__file__).parents[2], sysconfig.get_paths()["purelib"]]  # the last for what the tool itself imports
    environment = {
        **os.environ,
        "PYTHONUSERBASE": str(user),
        "PYTHONPATH": os.pathsep.join(map(str, [path, *ours])),
    }
    ran = subprocess.run(
        [BASE, "-c", code],  # a virtual environment has no user site
        capture_output=True,
        text=True,
        env=environment,
    )
    vllm, ascend, triton, standard = ran.stdout.split() if ran.returncode == 0 else [ran.stderr] * 4
    assert (vllm, ascend, triton) == ("0.23.1", "0.23.0", str(path / "triton"))
    assert standard == str(Path(json.__file__).parent)
