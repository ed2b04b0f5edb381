"""Is our plugin in the Python behind `vllm`? And what serve, fit and doctor make of the answer."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving.vllm import parse
from w8a8sc_tool._version import VERSION
from w8a8sc_tool.cli.main import run
from w8a8sc_tool.errors import UsageError
from w8a8sc_tool.jobs import serving as job
from w8a8sc_tool.serving.environment import Host, rows
from w8a8sc_tool.serving.plugin import find_plugin, python_of

GUIDE = "sharded_state"


def program(folder: Path, text: str, name: str = "vllm") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def python_with(folder: Path, version: str | None) -> dict[str, str]:
    """An environment whose `vllm` runs in a Python that has the plugin of a version, or none."""
    site = folder / "site"
    site.mkdir()
    if version is not None:
        made = site / f"w8a8sc-{version}.dist-info"
        made.mkdir()
        (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: w8a8sc\nVersion: {version}\n")
        (made / "entry_points.txt").write_text("[vllm.general_plugins]\nw8a8sc = w8a8sc_tool.vllm:register\n")
    # -S: without this environment's own packages, in which the plugin may be installed.
    wrapper = program(folder, f'#!/bin/sh\nexec {sys.executable} -S "$@"\n', "python3.11")
    program(folder, f"#!{wrapper}\nraise SystemExit('vllm must not be run')\n")
    return {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(site)}


def test_the_python_behind_a_command_is_read_from_its_script(tmp_path: Path) -> None:
    here = sys.executable
    assert python_of(str(program(tmp_path, f"#!{here}\n"))) == Path(here)
    assert python_of(str(program(tmp_path, f"#!/bin/sh\n'''exec' \"{here}\" \"$0\" \"$@\"\n' '''\n"))) == Path(here)
    for text in ("", "#!", "#!/bin/bash\n", "\x7fELF\0\0", "#!/nowhere/python3\n", "#!/bin/sh\n'''exec' \"\n"):
        assert python_of(str(program(tmp_path, text))) is None
    assert python_of(None) is None and python_of(str(tmp_path / "absent")) is None


def test_found_absent_and_left_out(tmp_path: Path) -> None:
    environment = python_with(tmp_path, "9.9")
    plugin = find_plugin(environment)
    assert plugin.works and plugin.version == "9.9"
    left_out = find_plugin({**environment, "VLLM_PLUGINS": "ascend,ascend_model"})
    assert not left_out.works and "add w8a8sc" in left_out.problem
    assert find_plugin({**environment, "VLLM_PLUGINS": "ascend,w8a8sc"}).works
    (tmp_path / "without").mkdir()
    absent = find_plugin(python_with(tmp_path / "without", None))
    assert absent.version is None and "pip install --no-deps w8a8sc==" in absent.problem
    assert "no vllm on PATH" in find_plugin({"PATH": "/nowhere"}).problem


def test_serve_uses_it_where_it_is_and_says_what_is_lost_where_not(
    sealed: Callable[[int], Path], tiny: Path, tmp_path: Path
) -> None:
    environment = python_with(tmp_path, VERSION)
    prepared = job.prepare_serving(sealed(2), environment=environment)
    assert parse(prepared.command.words)["--load-format"] == ["w8a8sc"]
    assert not any("plugin" in note for note in prepared.notes)
    without = job.prepare_serving(sealed(2), environment={**environment, "VLLM_PLUGINS": "ascend"})
    assert parse(without.command.words)["--load-format"] == [GUIDE]
    assert any("VLLM_PLUGINS=ascend leaves it out" in note for note in without.notes)
    chosen = job.prepare_serving(sealed(2), ["--load-format", GUIDE], environment=environment)
    assert parse(chosen.command.words)["--load-format"] == [GUIDE]
    assert "--load-format" not in parse(job.prepare_serving(tiny, environment=environment).command.words)
    other = job.prepare_serving(sealed(2), environment=python_with(make(tmp_path / "other"), "0.0.1"))
    assert any("is version 0.0.1, this tool is" in note for note in other.notes)


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_container_has_it_if_the_user_says_so(sealed: Callable[[int], Path], tmp_path: Path) -> None:
    plain = job.prepare_serving(sealed(2), in_container=True, device_folder=tmp_path)
    assert "sharded_state" in plain.command.words and any("plugin_in_image=True" in note for note in plain.notes)
    serving = job.prepare_serving(sealed(2), in_container=True, plugin_in_image=True, device_folder=tmp_path)
    assert "w8a8sc" in serving.command.words and "sharded_state" not in serving.command.words
    assert run(["serve", str(sealed(2)), "--plugin-in-image"]) == 2


def test_a_cpu_engine_is_served_by_its_module(
    sealed: Callable[[int], Path], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "cores", lambda: 6)
    prepared = job.prepare_for_cpu(sealed(2), ["--port", "80"], environment={"PATH": "/nowhere"})
    words = prepared.command.words
    assert words[1:4] == ["-m", "vllm.entrypoints.openai.api_server", "--model"]
    flags = parse(["vllm", "serve", *words[4:]], "0.18")
    assert flags["--quantization"] == flags["--load-format"] == ["w8a8sc"] and flags["--port"] == ["80"]
    assert flags["--tensor-parallel-size"] == ["2"] and flags["--dtype"] == ["float16"]
    assert prepared.command.environment == {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "3"}
    assert any("not for speed" in note for note in prepared.notes)
    assert any("doctor --for cpu" in note for note in prepared.notes)
    single = job.prepare_for_cpu(tiny, environment={"PATH": "/nowhere"}).command
    assert not single.environment and "--load-format" not in single.words
    for words in (["--dtype", "bfloat16"], ["-tp", "1"], ["--quantization", "ascend"], ["--load-format", "auto"]):
        with pytest.raises(UsageError, match="leave it out, or give force=True"):
            job.prepare_for_cpu(sealed(2), words, environment={})
    assert run(["serve", str(sealed(2)), "--device", "cpu", "--container"]) == 2


def test_fit_says_what_it_saves_for_a_directory(sealed: Callable[[int], Path], tiny: Path) -> None:
    (one,) = job.fit(sealed(2))
    smaller = one.with_plugin
    assert smaller is not None and smaller.with_plugin is None
    # Two layers' qkv, o and gate_up, of which the recipe leaves layer 1's gate_up FLOAT.
    assert 0.35 * 2_883_584 < one.weights - smaller.weights < 0.45 * 2_883_584
    assert smaller.kv_cache - one.kv_cache == (one.weights - smaller.weights) // 2
    assert one.document()["with_plugin"] is not None
    assert all(estimate.with_plugin is None for estimate in job.fit(tiny))


def test_doctor_names_the_plugin_and_what_breaks_a_cpu_engine(tmp_path: Path) -> None:
    def row(host: Host, subject: str) -> tuple[bool | None, str]:
        entry = next(row for row in rows(host) if row.subject == subject)
        return entry.ok, f"{entry.state} {entry.mend}"

    environment = python_with(tmp_path, VERSION)
    host = Host(environment=environment, import_path=[str(tmp_path / "packages")])
    assert row(host, "plugin for vLLM")[0] is True
    ok, message = row(Host(environment={**environment, "VLLM_PLUGINS": "x"}, import_path=[]), "plugin for vLLM")
    assert ok is None and "leaves it out" in message
    assert row(Host(environment={"PATH": "/nowhere"}, import_path=[]), "plugin for vLLM")[0] is None
    assert row(host, "vLLM's CPU build")[0] is False and row(host, "torchvision")[0] is True
    host = Host(environment=environment, import_path=[str(tmp_path / "others")])
    for name, version in (("vllm_cpu", "0.32.0"), ("torch", "2.13.0+cpu"), ("torchvision", "0.28.0")):
        made = tmp_path / "others" / f"{name}-{version}.dist-info"
        made.mkdir(parents=True)
        (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (tmp_path / "others" / "vllm").mkdir()
    (tmp_path / "others" / "vllm" / "__init__.py").touch()
    assert row(host, "vLLM's CPU build")[0] is True and row(host, "torch")[0] is True
    ok, message = row(host, "torchvision")
    assert ok is False and "pip uninstall -y torchvision" in message
    assert row(Host(environment={"VLLM_PLUGINS": "x", "PATH": "/"}, import_path=[]), "VLLM_PLUGINS")[0] is False
