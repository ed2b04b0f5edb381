"""Names that are not UTF-8, output that cannot spell them, standard streams that fail: no finished job fails so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from w8a8sc_tool.conversion.convert import target_folder

from .test_cli import run

NOT_UTF8 = os.fsdecode(b"\xff\xfe")
CONTROL = "a\nb\x1b[2J"


def linked(tiny: Path, folder: Path) -> Path:
    """The small checkpoint in a folder of another name."""
    folder.mkdir(parents=True)
    for path in tiny.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def test_side_files_that_a_manifest_cannot_name_are_left_out(tiny: Path, tmp_path: Path) -> None:
    model = linked(tiny, tmp_path / "Tiny-w8a8s-310")
    for name in (NOT_UTF8, CONTROL):
        (model / f"{name}.txt").write_text("notes")
        (model / name).mkdir()
        (model / name / "x.json").write_text("{}")
    result = run("compress", model, "-o", tmp_path, "-j", "1")
    assert result.returncode == 0, result.stderr
    assert r"\xff\xfe.txt" in result.stderr and r"a\x0ab\x1b[2J.txt" in result.stderr
    made = {path.name for path in target_folder(tmp_path, "Tiny", 1).iterdir()}
    assert "tokenizer.json" in made
    assert not any("\n" in name or NOT_UTF8 in name for name in made)


@pytest.mark.parametrize("name", [f"{NOT_UTF8}-w8a8s", pytest.param(f"{CONTROL}-w8a8s", marks=pytest.mark.slow)])
def test_a_model_whose_name_no_document_can_hold(name: str, tiny: Path, tmp_path: Path) -> None:
    model = linked(tiny, tmp_path / name)
    refused = run("compress", model, "-o", tmp_path / "out", "-j", "1")
    assert refused.returncode == 3
    assert refused.stderr.startswith("error: its name is not UTF-8 or has control characters")
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    named = run("compress", model, "--name", "Tiny", "-o", tmp_path / NOT_UTF8, "-j", "1", "--json")
    assert named.returncode == 0, named.stderr
    (document,) = json.loads(named.stdout)
    directory = document["directory"]  # Python's spelling of the bytes comes back whole
    assert os.path.isdir(directory)
    for command in (("verify",), ("inspect",), ("serve", "--print")):
        result = run(*command, directory)
        assert result.returncode == 0, (command, result.stderr)
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", [NOT_UTF8, CONTROL, "a/b", ".."])
def test_names_that_cannot_be(name: str, tiny: Path, tmp_path: Path) -> None:
    result = run("compress", tiny, "--name", name, "-o", tmp_path, "-j", "1")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pattern", [f"*{NOT_UTF8}", f"*[!{NOT_UTF8}]"])
def test_patterns_that_are_not_utf8(pattern: str, tiny: Path, tmp_path: Path) -> None:
    result = run("compress", tiny, "--keep", pattern, "-o", tmp_path, "-j", "1")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(name, marks=pytest.mark.slow) for name in ("latin-1", "ascii:strict"))]
)
def test_output_that_cannot_spell_a_path(encoding: str, tiny: Path, tmp_path: Path) -> None:
    output = tmp_path / "模型"
    environment = dict(os.environ, PYTHONIOENCODING=encoding)
    result = run("compress", tiny, "-o", output, "-j", "1", env=environment)
    assert result.returncode == 0, result.stderr
    assert r"\u6a21\u578b" in result.stdout
    again = run("compress", tiny, "-o", output, "-j", "1", "--json", env=environment)
    assert again.returncode == 0, again.stderr
    (document,) = json.loads(again.stdout)
    assert document["directory"] == str(target_folder(output, "Tiny", 1))
    missing = run("inspect", tmp_path / "没有", env=environment)
    assert (missing.returncode, missing.stderr.count("\n")) == (3, 1)
    assert r"\u6ca1\u6709" in missing.stderr


def test_a_stranger_in_a_sealed_directory_is_named(sealed_copy: Path) -> None:
    (sealed_copy / f"{NOT_UTF8}{CONTROL}").touch()
    shown = run("verify", sealed_copy)
    assert shown.returncode == 1
    assert r"\xff\xfea\x0ab\x1b[2J: the file does not belong" in shown.stdout
    (finding,) = json.loads(run("verify", sealed_copy, "--json").stdout)["findings"]
    assert os.path.lexists(finding["where"])


@pytest.mark.parametrize("prompt", [NOT_UTF8, f"Who are you?{NOT_UTF8}"])
def test_prompts_that_are_not_utf8(prompt: str, sealed: Callable[[int], Path]) -> None:
    result = run("generate", sealed(2), "--prompt", prompt)
    assert (result.returncode, result.stderr) == (2, "error: the prompt is not UTF-8\n")


def test_a_batch_whose_paths_are_not_utf8(tiny: Path, tmp_path: Path) -> None:
    batch = tmp_path / "batch.yaml"
    batch.write_text(f"jobs: [{{model: {tiny}}}]\noutput: $OUTPUT\nprocesses: 1\n")
    refused = run("batch", batch, env=dict(os.environ, OUTPUT=str(tmp_path / NOT_UTF8)))
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
    assert r"the path is not UTF-8" in refused.stderr and r"\xff\xfe" in refused.stderr
    shown = run("batch", batch, env=dict(os.environ, OUTPUT=str(tmp_path / "模型"), PYTHONIOENCODING="ascii"))
    assert shown.returncode == 0, shown.stderr


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)


PROGRAM = f"{sys.executable} -m w8a8sc_tool"


def test_a_finished_job_does_not_fail_because_it_cannot_be_printed(tiny: Path, tmp_path: Path) -> None:
    result = shell(f"{PROGRAM} compress {tiny} -o {tmp_path} -j 1 > /dev/full")
    assert result.returncode == 0
    assert "note: the result cannot be printed (No space left on device); what was made is complete" in result.stderr
    assert (target_folder(tmp_path, "Tiny", 1) / "w8a8sc_manifest.json").exists()


@pytest.mark.parametrize("arguments", ["inspect {tiny} --json", "compress {tiny} --dry-run", "--help"])
def test_what_only_prints_fails_if_it_cannot(arguments: str, tiny: Path) -> None:
    result = shell(f"{PROGRAM} {arguments.format(tiny=tiny)} > /dev/full")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "No space left on device" in result.stderr


@pytest.mark.parametrize("stream", ["> /dev/null 2> /dev/full", ">&- 2>&-", "2>&1 >&- | true"])
def test_nobody_can_be_told(stream: str, tiny: Path, tmp_path: Path) -> None:
    result = shell(f"{PROGRAM} compress {tiny} -o {tmp_path} -j 1 {stream}")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (target_folder(tmp_path, "Tiny", 1) / "w8a8sc_manifest.json").exists()
