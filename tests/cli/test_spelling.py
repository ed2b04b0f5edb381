"""Library messages speak of keywords, and the command line of flags: each in its own place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from w8a8sc_tool.cli.commands import group
from w8a8sc_tool.cli.spelling import spelled

from ..test_imports import PACKAGE
from .test_cli import run

FLAGS = {
    flag
    for command in group.commands.values()
    for parameter in command.params
    if isinstance(parameter, click.Option)
    for flag in (*parameter.opts, *parameter.secondary_opts)
}
# Where flags are the subject: what flags are made of, vLLM's own, docker's.
OF_FLAGS = (
    "cli/",
    "options.py",
    "reporting/page.py",
    "serving/command.py",
    "serving/options.py",
    "serving/cpu.py",
    "vllm/",
)


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of a file that are no docstrings, those of an f-string joined, with {} for what is put in."""
    tree = ast.parse(path.read_text())
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (inside | statements):
            yield node.lineno, node.value


def library() -> Iterator[tuple[str, str]]:
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE))
        for line, text in texts(path):
            yield f"{name}:{line}", text


def test_the_library_names_no_flags() -> None:
    """Whole commands to run, as w8a8sc reshard DIR --tp 4, are for everybody."""
    flag = re.compile(r"(?<!vLLM's )(?<![\w-])(--[a-z][\w-]*|-j\b)")
    wrong = [
        (where, text)
        for where, text in library()
        if not where.startswith(OF_FLAGS) and "w8a8sc " not in text and FLAGS & set(flag.findall(text))
    ]
    assert wrong == []


def test_every_keyword_in_a_message_is_spelled() -> None:
    """A keyword that no command has would reach the command line as it is."""
    keyword = re.compile(r"""(?<![\w./-])([a-z_]{2,})=(?:True|False|"[a-z]+"|\d+\b|(?=[ ,;)]|$))""")
    seen = {}
    for where, text in library():
        if where.startswith(("cli/", "codec/", "serving/", "vllm/", "runtime/npu")):
            continue
        for match in keyword.finditer(text):
            seen[match[0]] = where
    assert {"overwrite=True", "resume=False", 'backend="native"', "token_ids="} <= set(seen)
    assert {text: where for text, where in seen.items() if "--" not in spelled(text)} == {}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("give overwrite=True to replace it", "give --overwrite to replace it"),
        ("give resume=False, or", "give --no-resume, or"),
        ('backend="native" does without it', "--backend native does without it"),
        ("give token_ids=", "give --token-ids"),
        ("processes=1 is enough", "--processes 1 is enough"),
        ("(quick=True)", "(--quick)"),
        ("compressed_masks=False", "--no-compressed-masks"),
        ("unheard_of=True, PATH=x, /a/overwrite=Truest", "unheard_of=True, PATH=x, /a/overwrite=Truest"),
    ],
)
def test_spelling(text: str, wanted: str) -> None:
    assert spelled(text) == wanted


def test_an_error_on_the_command_line(tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "overwrite=True"
    (target / "Tiny-w8a8sc-310-vllm" / "TP1" / "Tiny-w8a8sc-310-vllm-tp1").mkdir(parents=True)
    result = run("compress", tiny, "--name", "Tiny", "-o", target, "-j", "1")
    assert (result.returncode, result.stderr.count("\n")) == (3, 1)
    assert "/overwrite=True/" in result.stderr and result.stderr.endswith("or give --overwrite to replace it\n")
