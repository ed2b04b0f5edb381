"""Models by name on the command line: every command takes them, says where they are from, and one line if not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from w8a8sc_tool.cli import main
from w8a8sc_tool.cli.commands import group

CHECKPOINT, TREE = "acme/Tiny1.5-w8a8s-310", "acme/Tiny1.5-w8a8sc-310-vllm"
HUGGINGFACE = "models--acme--Tiny1.5-w8a8s-310/snapshots/" + "a" * 40
MODELSCOPE = "hub/models/acme/Tiny1___5-w8a8sc-310-vllm"

# What takes no model of a hub: synthesize and batch write or read files of their own, card writes into the tree.
WITHOUT = {"synthesize", "batch", "card", "doctor", "compile", "install-executor"}


@pytest.fixture
def cached(tiny: Path, sealed: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both caches, with a checkpoint and a tree in them."""
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hf" / HUGGINGFACE).parent.mkdir(parents=True)
    (tmp_path / "hf" / HUGGINGFACE).symlink_to(tiny)
    (tmp_path / "ms" / MODELSCOPE).mkdir(parents=True)
    for tp in (1, 2):
        (tmp_path / "ms" / MODELSCOPE / f"TP{tp}").symlink_to(sealed(tp).parent)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main.run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_every_command_that_takes_a_model_takes_a_name() -> None:
    taking = {name for name, command in group.commands.items() if any(p.name == "hub" for p in command.params)}
    assert taking == (set(group.commands) - WITHOUT) | {"batch"}


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (["inspect", CHECKPOINT], f"hf/{HUGGINGFACE}"),
        (["fit", CHECKPOINT, "--tp", "2"], f"hf/{HUGGINGFACE}"),
        (["fit", TREE, "--tp", "2"], f"ms/{MODELSCOPE}/TP2"),
        (["inspect", TREE, "--tp", "1"], f"ms/{MODELSCOPE}/TP1"),
        (["verify", TREE, "--quick"], f"ms/{MODELSCOPE}"),
        (["verify", TREE, "--tp", "2", "--quick"], f"ms/{MODELSCOPE}/TP2"),
        (["serve", TREE, "--tp", "2", "--print"], f"ms/{MODELSCOPE}/TP2"),
        (["serve", CHECKPOINT, "--tp", "2", "--print"], f"hf/{HUGGINGFACE}"),
    ],
)
def test_a_name(arguments: list[str], folder: str, cached: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 0, err
    first = err.splitlines()[0]
    assert first.startswith(f"note: {arguments[1]} is taken from the cache of ")
    assert f", without asking the network: {cached / folder}" in first
    if arguments[0] == "serve":
        assert f" {cached / folder}" in out and "--tensor-parallel-size 2" in out
    assert "is taken from" not in run(capsys, *arguments, "-q")[2]


def test_what_is_made_is_called_like_the_model(cached: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "compress", CHECKPOINT, "--dry-run", "--json")
    assert code == 0, err
    assert '"Tiny1.5-w8a8sc-310-vllm/TP1/Tiny1.5-w8a8sc-310-vllm-tp1"' in out


def test_a_source_and_a_second_directory(
    cached: Path, sealed: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "verify", sealed(1), "--source", "acme/None", "--quick")[0] == 3
    code, _, err = run(capsys, "verify", sealed(1), "--source", CHECKPOINT, "--quick")
    assert (code, err.count("is taken from the cache of Hugging Face")) == (0, 1)
    assert run(capsys, "compare", sealed(1), TREE)[0] == 3  # a tree, of which no size was chosen
    assert run(capsys, "generate", TREE, "--tp", "1", "--prompt", "x", "--compare", "acme/None")[2].count("\n") == 2


def test_one_line(cached: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "inspect", "acme/None")
    remedy = "give the folder, or --download to fetch it"
    caches = f"ModelScope ({cached}/ms) and Hugging Face ({cached}/hf)"
    assert (code, err) == (3, f"error: no such folder, and not in the caches of {caches}, acme/None: {remedy}\n")
    assert run(capsys, "inspect", CHECKPOINT, "--hub", "modelscope")[0] == 3
    for path in ("./models/x", "models/x/y/z"):
        code, _, err = run(capsys, "inspect", path)
        assert (code, err) == (3, f"error: no such folder, {os.path.normpath(path)}\n")


def test_batch(cached: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names in a batch file; a relative path is one from the file's folder, not from the working folder."""
    file = cached / "jobs" / "batch.yaml"
    file.parent.mkdir()
    (cached / "acme").mkdir()
    (cached / CHECKPOINT).symlink_to("/nowhere")
    jobs = [{"model": name} for name in (CHECKPOINT, "acme/None", "acme/Nor@v2")]
    file.write_text(yaml.safe_dump({"jobs": jobs}))
    code, _, err = run(capsys, "batch", file)
    assert code == 3
    lines = err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"note: {CHECKPOINT} is taken from the cache of Hugging Face")
    assert lines[1].startswith("error: job 2: no such folder") and lines[2].endswith(
        ", acme/Nor@v2: give the folder, or --download to fetch it"
    )
