"""The examples: each runs, and does what its first lines say."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from w8a8sc_tool import plan
from w8a8sc_tool.planning import preset as presets

from .conftest import edit_json

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def verify_download(*arguments: str | Path) -> tuple[int, str]:
    command = [sys.executable, EXAMPLES / "verify_download.py", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return result.returncode, result.stdout + result.stderr


def test_verify_a_download(sealed: Callable[[int], Path], tmp_path: Path) -> None:
    directory = sealed(2)
    digest = json.loads((directory / "w8a8sc_manifest.json").read_text())["digest"]
    code, text = verify_download(directory, "--digest", digest)
    assert code == 0 and f"digest: {digest}" in text and "for TP 2" in text
    code, text = verify_download(directory, "--digest", "blake3:" + "0" * 64)
    assert code == 1 and "not the published one" in text
    code, text = verify_download(tmp_path / "nothing")
    assert code == 3 and text.startswith("error: ")


def test_verify_a_damaged_download(sealed_copy: Path) -> None:
    file = sealed_copy / "model-rank-1-part-0.safetensors"
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    code, text = verify_download(sealed_copy)
    assert code == 1 and "wrong: " in text and file.name in text
    edit_json(sealed_copy / "w8a8sc_manifest.json", lambda content: content.update(model="other"))
    code, text = verify_download(sealed_copy, "--digest", "blake3:" + "0" * 64)
    assert code == 1 and "no sound manifest" in text


def test_a_preset_of_ones_own(tiny: Path) -> None:
    (pinned,) = plan(tiny, tp=[2], preset=str(EXAMPLES / "own-preset.yaml"))
    names = {module.module.name for module in pinned.modules if module.fallback == "pinned"}
    assert {"model.layers.1.self_attn.o_proj", "model.layers.0.self_attn.qkv_proj"} <= names
    assert not any(name.startswith("model.layers.1.mlp") for name in names)
    preset = presets.load(EXAMPLES / "own-preset.yaml")
    assert (preset.max_ratio, preset.served_name) == (0.9, "my-model")
    serving = preset.serving(2), preset.serving(4)
    assert [options.capture_sizes if options else None for options in serving] == [[8, 16], None]


@pytest.fixture
def publish(tree: Path, tmp_path: Path) -> Callable[..., tuple[int, str, list[list[str]]]]:
    """Runs scripts/publish on a tree, with programs in place of the hubs' clients that only write down their arguments.

    Returns the exit code, what was printed, and the command lines of the clients.
    """
    tree.rename(tmp_path / "tree")
    bin = tmp_path / "bin"
    bin.mkdir()
    record = tmp_path / "record"
    programs = {
        "w8a8sc": f'exec {shlex.quote(sys.executable)} -m w8a8sc_tool "$@"\n',
        **{name: f'printf "%s\\0" {name} "$@" >> {record}; echo >> {record}\n' for name in ("modelscope", "hf")},
    }
    for name, text in programs.items():
        (bin / name).write_text(f"#!/bin/bash\n{text}")
        (bin / name).chmod(0o755)

    def call(*arguments: str) -> tuple[int, str, list[list[str]]]:
        record.unlink(missing_ok=True)
        path = os.environ["PATH"]
        environment = {**os.environ, "PATH": f"{bin}:{path}", "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
        command = ["bash", str(ROOT / "scripts" / "publish"), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
        lines = record.read_text().splitlines() if record.exists() else []
        return result.returncode, result.stdout + result.stderr, [line.rstrip("\0").split("\0") for line in lines]

    return call


UPLOADED = ["README.md", "TP1/Tiny-w8a8sc-310-vllm-tp1/*", "TP2/Tiny-w8a8sc-310-vllm-tp2/*"]


def test_publishing_uploads_nothing_unless_asked(
    publish: Callable[..., tuple[int, str, list[list[str]]]], tmp_path: Path
) -> None:
    subprocess.run(["bash", "-n", ROOT / "scripts" / "publish"], check=True)
    code, text, clients = publish("tree", "me/Tiny", "--", "--base-model", "Qwen/Qwen3-8B")
    assert (code, clients) == (0, [])
    assert "2 directories, all verified" in text and "nothing was uploaded" in text
    shown = ["modelscope", "upload", "me/Tiny", "./tree", "--repo-type", "model", "--include", *UPLOADED]
    assert [shlex.split(line) for line in text.splitlines() if line.startswith("modelscope ")] == [shown]
    assert "- Qwen/Qwen3-8B\n" in (tmp_path / "tree" / "README.md").read_text()
    assert publish("tree", "me/Tiny", "--upload")[::2] == (0, [shown])


@pytest.mark.slow
def test_publishing_to_another_hub(publish: Callable[..., tuple[int, str, list[list[str]]]], tmp_path: Path) -> None:
    (tmp_path / "tree" / "TP4" / "x.partial").mkdir(parents=True)
    code, text, clients = publish("tree", "me/Tiny", "--hub", "huggingface", "--upload")
    includes = [word for pattern in UPLOADED for word in ("--include", pattern)]
    assert (code, clients) == (0, [["hf", "upload", "me/Tiny", "./tree", ".", "--repo-type", "model", *includes]])
    assert "not checked: tree/TP4/x.partial" in text


@pytest.mark.slow
def test_what_is_not_published(publish: Callable[..., tuple[int, str, list[list[str]]]], tmp_path: Path) -> None:
    for arguments in (["tree"], ["tree", "Tiny"], ["tree", "me/Tiny", "--hub", "x"], ["tree", "me/Tiny", "--all"]):
        assert publish(*arguments)[::2] == (2, [])
    directory = tmp_path / "tree" / "TP2" / "Tiny-w8a8sc-310-vllm-tp2"
    (tmp_path / "tree" / "README.md").write_text("mine")
    code, text, clients = publish("tree", "me/Tiny", "--upload")
    assert (code, clients) == (3, []) and "give --overwrite" in text
    (tmp_path / "tree" / "README.md").unlink()
    starred = directory.rename(directory.with_name("a*b"))
    code, text, clients = publish("tree", "me/Tiny", "--upload")
    assert (code, clients) == (1, []) and "characters of patterns" in text
    file = starred.rename(directory) / "model-rank-1-part-0.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x55")
    code, text, clients = publish("tree", "me/Tiny", "--upload")
    assert (code, clients) == (1, []) and "1 with errors" in text


@pytest.mark.slow
def test_the_python_interface(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "api.py"), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert any(line.startswith("verified against the source: True") for line in lines)
    assert any(line.startswith("an error says") and "no such folder" in line for line in lines)
    assert len(list(tmp_path.rglob("w8a8sc_manifest.json"))) == 2 and (tmp_path / "back").is_dir()
