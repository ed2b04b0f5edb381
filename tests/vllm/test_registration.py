"""`register` in a Python without the real vLLM: quick, once, and never an exception."""

from __future__ import annotations

import importlib.metadata
import logging
import subprocess
import sys
import types

import pytest

from w8a8sc_tool._version import VERSION
from w8a8sc_tool.vllm import installed, register


def modules_of_vllm(monkeypatch: pytest.MonkeyPatch, formats: dict[str, type]) -> list[str]:
    """Stand-ins for vLLM's registry and for our loader, which needs vLLM; returns the names that get registered."""
    registered: list[str] = []

    def register_model_loader(name: str) -> object:
        def add(loader: type) -> type:
            registered.append(name)
            formats[name] = loader
            return loader

        return add

    registry = types.SimpleNamespace(_LOAD_FORMAT_TO_MODEL_LOADER=formats, register_model_loader=register_model_loader)
    loader = type("W8A8SCModelLoader", (), {"__module__": "w8a8sc_tool.vllm.loader"})
    for name, module in {
        "vllm": types.ModuleType("vllm"),
        "vllm.model_executor": types.SimpleNamespace(model_loader=registry),
        "w8a8sc_tool.vllm.loader": types.SimpleNamespace(W8A8SCModelLoader=loader),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    return registered


def test_it_registers_once_however_often_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    registered = modules_of_vllm(monkeypatch, {})
    for _ in range(3):
        register()
    assert registered == ["w8a8sc"]


def test_another_package_of_that_name_is_left_and_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registered = modules_of_vllm(monkeypatch, {"w8a8sc": type("Other", (), {"__module__": "another.loader"})})
    with caplog.at_level(logging.WARNING):
        register()
    assert registered == []
    assert "the load format w8a8sc is another.loader's: uninstall" in caplog.text


@pytest.mark.parametrize("missing", ["vllm.model_executor", "w8a8sc_tool.vllm.loader"])
def test_whatever_is_missing_vllm_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    modules_of_vllm(monkeypatch, {})
    monkeypatch.setitem(sys.modules, missing, None)
    with caplog.at_level(logging.WARNING):
        register()
    assert "vLLM goes on without" in caplog.text


def test_the_entry_point_leads_to_it_and_loads_nothing() -> None:
    text = "import sys; from w8a8sc_tool.vllm import register; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numba", "numpy", "vllm", "msgspec"} & set(loaded)


def test_two_versions_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def distributions(versions: list[str]) -> object:
        return lambda name: [types.SimpleNamespace(version=version) for version in versions]

    this = VERSION
    monkeypatch.setattr(importlib.metadata, "distributions", distributions([this, this]))
    assert installed.other_versions() == []
    monkeypatch.setattr(importlib.metadata, "distributions", distributions([]))
    assert installed.other_versions() == []
    monkeypatch.setattr(importlib.metadata, "distributions", distributions([this, "0.0.9"]))
    assert installed.other_versions() == [this, "0.0.9"]
