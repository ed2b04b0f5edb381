"""The entry point: workers' process starts before the commands are imported, if the command will need it."""

from __future__ import annotations

import sys

import pytest

from w8a8sc_tool.checking import compare, verify
from w8a8sc_tool.cli import commands, main
from w8a8sc_tool.conversion import conversion

from ..test_imports import loaded_by


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        ("compress X --tp 2", "conversion.worker"),
        ("reshard X --tp 2", "conversion.worker"),
        ("batch x.yaml", "conversion.worker"),
        ("verify X", "checking.verify_worker"),
        ("compare X Y", "checking.compare_worker"),
        ("verify X --quick", None),
        ("compress X --dry-run", None),
        ("compress --help", None),
        ("decompress X --checkpoint", None),
        ("batch x.yaml --engine ray", None),
        ("inspect X", None),
        ("--help", None),
        ("", None),
    ],
)
def test_what_starts_early(arguments: str, module: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(sys, "argv", ["w8a8sc", *arguments.split()])
    monkeypatch.setattr(main, "start_early", started.append)
    monkeypatch.setattr(commands, "main", lambda: started.append("the command"))
    main.main()
    assert started == ([f"w8a8sc_tool.{module}"] if module else []) + ["the command"]


def test_what_starts_early_is_what_workers_need() -> None:
    handlers = {conversion._HANDLER, verify._HANDLER, compare._HANDLER}
    assert set(main._HANDLERS.values()) == {handler.partition(":")[0] for handler in handlers}
    assert set(main._HANDLERS) <= set(commands.group.commands)


def test_nothing_that_takes_time_is_imported_before() -> None:
    assert not loaded_by("import w8a8sc_tool.cli.main") & {"click", "multiprocessing", "dataclasses", "json", "logging"}
