"""The JSON documents of all commands have the keys that docs/json.md lists, and it lists no others."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from w8a8sc_tool.cli.commands import group
from w8a8sc_tool.cli.main import run
from w8a8sc_tool.conversion.convert import target_folder
from w8a8sc_tool.jobs import device

PAGE = Path(__file__).parents[2] / "docs" / "json.md"
# A value whose keys are data: the page says what they are.
ANY = r"[^.]+"


def listed() -> dict[str, dict[str, str]]:
    """By command, the paths of its section's table with their types."""
    sections = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.M)[1:]
    return {
        title: dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", text, flags=re.M))
        for heading, text in zip(sections[::2], sections[1::2])
        for title in re.findall("`([^`]+)`", heading)
    }


def paths(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a document with its value: a list's elements count as one, written []."""
    if isinstance(content, list):
        for element in content:
            yield from paths(element, f"{prefix}[]")
    elif isinstance(content, dict):
        for key, value in content.items():
            path = f"{prefix}.{key}" if prefix else key
            yield path, value
            yield from paths(value, path)


def is_of(value: Any, types: str) -> bool:
    """Whether a value is of one of the types that the page gives: text, whole, number, yes/no, list, object, null."""
    known: dict[str, Any] = {"text": str, "whole": int, "number": (int, float), "list": list, "object": dict}
    if isinstance(value, bool) or value is None:
        return ("yes/no" if value is not None else "null") in types.split(", ")
    return any(isinstance(value, known[name]) for name in types.split(", ") if name in known)


def check(section: str, content: Any) -> None:
    """Every key is on the page, with its type, and every key of the page is there."""
    wanted = listed()[section]
    patterns = {path: re.compile(re.escape(path).replace(r"\*", ANY)) for path in wanted}
    seen = set()
    for whole, value in paths(content):
        path = whole.replace("with_plugin.", "")  # the same keys again
        matching = [name for name, pattern in patterns.items() if pattern.fullmatch(path)]
        assert matching, f"{path} is not on the page"
        assert is_of(value, wanted[matching[0]]), (path, value)
        seen |= set(matching)
    assert set(wanted) == seen, set(wanted) - seen


@pytest.fixture
def document(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command with --json and returns what it prints."""

    def call(*arguments: object, codes: tuple[int, ...] = (0,)) -> Any:
        capsys.readouterr()
        assert run([*map(str, arguments), "--json", "-q"]) in codes
        return json.loads(capsys.readouterr().out)

    return call


def test_every_command_has_a_section() -> None:
    named = {title.split()[0] for title in listed()}
    assert named == {
        name for name, command in group.commands.items() if any(p.name == "as_json" for p in command.params)
    }


def test_what_makes_directories(document: Callable[..., Any], tiny: Path, tmp_path: Path) -> None:
    output = ("-o", tmp_path, "--name", "Tiny", "-j", "1")
    check("compress --dry-run", document("compress", tiny, *output, "--dry-run"))
    check("compress", document("compress", tiny, *output))
    made = target_folder(tmp_path, "Tiny", 1)
    check("reshard", document("reshard", made, "--tp", "2", "-o", tmp_path, "-j", "1"))
    check("decompress", document("decompress", made, "-o", tmp_path, "-j", "1"))
    check("decompress --checkpoint", document("decompress", made, "--checkpoint", "-o", tmp_path))
    batch = tmp_path / "batch.yaml"
    batch.write_text(f"jobs: [{{model: {tiny}, name: Tiny}}]\noutput: .\nprocesses: 1\n")
    check("batch", document("batch", batch))


def test_what_looks(
    document: Callable[..., Any], tiny: Path, sealed: Callable[[int], Path], sealed_copy: Path, tmp_path: Path
) -> None:
    check("inspect", document("inspect", sealed(2)))
    for row in document("inspect", tiny)["modules"]:
        assert is_of(row["shape"], listed()["inspect"]["modules[].shape"])
    check("compare", document("compare", sealed(2), sealed_copy, "-j", "1"))
    (sealed_copy / "strange").touch()
    check("verify", document("verify", sealed_copy, "--source", tiny, "--quick", "-j", "1", codes=(1,)))
    check("fit", document("fit", sealed(2)))


def test_a_report(
    document: Callable[..., Any], sealed: Callable[[int], Path], sealed_copy: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    (sealed_copy / "strange").touch()
    check("report", document("report", sealed(2), sealed_copy, "-o", tmp_path / "r.html", codes=(1,)))


def test_what_looks_at_trees(document: Callable[..., Any], sealed: Callable[[int], Path], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(sealed(1).parent, tree / "TP1")
    check("card", document("card", tree, "--base-model", "Qwen/Qwen3-8B"))
    (tree / "TP4" / "two").parent.mkdir()
    shutil.copytree(sealed(2), tree / "TP4" / "two")
    (tree / "TP4" / "two" / "strange").touch()
    check("verify TREE", document("verify", tree, "--quick", "-j", "1", codes=(1,)))


def test_what_comes_before(document: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check("synthesize", document("synthesize", tmp_path / "m", "--layers", "1", "--vocab-size", "320"))
    check("compile", document("compile"))
    monkeypatch.setattr("w8a8sc_tool.backends.msmodelslim.installed.install_executor", lambda: tmp_path / "executor")
    check("install-executor", document("install-executor"))


def test_this_machine(document: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from w8a8sc_tool.runtime.selftest import Outcome

    check("doctor", document("doctor", codes=(0, 4)))
    report = device.DeviceReport([], [Outcome("matmul", "1x1", 0.5, 0.1)])
    monkeypatch.setattr(device, "check_device", lambda: report)
    check("doctor --device", document("doctor", "--device", codes=(1,)))


@pytest.mark.slow
def test_generation(document: Callable[..., Any], sealed: Callable[[int], Path], tiny: Path) -> None:
    pytest.importorskip("torch")
    check(
        "generate",
        document("generate", sealed(1), "--token-ids", "1,2", "--max-new-tokens", "2", "--compare", tiny),
    )
