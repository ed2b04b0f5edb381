"""The examples: each runs, and does what its first lines say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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


def test_the_container_runs_commands_that_exist() -> None:
    text = (EXAMPLES / "container" / "Dockerfile").read_text()
    assert re.findall(r"^RUN w8a8sc (\w+)$", text, re.MULTILINE) == ["compile"]
    assert 'ENTRYPOINT ["w8a8sc"]' in text


def test_the_python_interface(tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLES / "api.py", tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert any(line.startswith("verified against the source: True") for line in lines)
    assert any(line.startswith("an error says") and "no such folder" in line for line in lines)
    assert len(list(tmp_path.rglob("w8a8sc_manifest.json"))) == 2 and (tmp_path / "back").is_dir()
