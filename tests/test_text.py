"""Names and text nobody vouches for: what is escaped, what counts as a name, what counts as a document."""

from __future__ import annotations

import os
import subprocess

import pytest

from w8a8sc_tool.errors import InputError, Problem
from w8a8sc_tool.io.documents import parse_json, parse_yaml
from w8a8sc_tool.serving import Command
from w8a8sc_tool.text import is_showable, one_line, some_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("模型 v1/é", "模型 v1/é"),
        ("a\nb\tc", r"a\x0ab\x09c"),
        ("\x1b[2J", r"\x1b[2J"),
        ("x\x7f\x85", r"x\x7f\u0085"),
        (b"\xff\xc4.txt".decode("utf-8", "surrogateescape"), r"\xff\xc4.txt"),
        ("\ud800", r"\ud800"),
        ("a\u202eb\u2028", r"a\u202eb\u2028"),
    ],
)
def test_one_line(text: str, shown: str) -> None:
    assert one_line(text) == shown
    assert is_showable(text) == (text == shown)


def test_generated_text_keeps_its_lines() -> None:
    assert some_lines("a\n\tb\x1b") == "a\n\tb\\x1b"


def test_an_error_is_one_line() -> None:
    assert str(Problem("no such\nfolder", "a\x1bb", "look")) == r"no such\x0afolder, a\x1bb: look"


@pytest.mark.parametrize("text", [b'{"a": "\\ud800"}', b'{"\\uDFFF": 1}', b'{"a": [{"b": ["\\udcff x"]}]}'])
def test_json_with_half_of_a_surrogate_pair(text: bytes) -> None:
    """It would fail when it is written, after all the work."""
    with pytest.raises(InputError, match="surrogate"):
        parse_json(text, "x.json")


def test_json_with_whole_surrogate_pairs() -> None:
    assert parse_json(b'{"a": "\\ud83d\\ude00", "b": "\\\\ud800"}', "x.json") == {"a": "😀", "b": "\\ud800"}


def test_yaml_with_half_of_a_surrogate_pair() -> None:
    with pytest.raises(InputError, match="surrogate"):
        parse_yaml(b'jobs: [{model: "\\ud800"}]', "x.yaml")


def test_a_shell_takes_a_command_whose_words_cannot_be_shown() -> None:
    path = b"/models/\xff \n'x".decode("utf-8", "surrogateescape")
    shown = str(Command(["printf", "%s|", path, "it's"], {"A": "b c"}))
    assert one_line(shown) == shown
    done = subprocess.run(["bash", "-c", shown], capture_output=True, check=True)
    assert done.stdout == os.fsencode(path) + b"|it's|"
