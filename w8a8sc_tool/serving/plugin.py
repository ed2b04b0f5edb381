"""Whether the vLLM that will serve has our plugin: asked of the Python behind the `vllm` command, without vLLM.

That Python is often another than ours: the tool in an environment of its own, vLLM in the image's.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .._version import VERSION
from ..errors import InputError
from ..io import reading

INSTALL: Final = f"pip install --no-deps w8a8sc=={VERSION}"
PLUGINS: Final = "VLLM_PLUGINS"  # vLLM loads all plugins, or those that this lists
_NAME: Final = "w8a8sc"
_SECONDS: Final = 20.0
_LARGEST_SCRIPT: Final = 64 << 10
_QUESTION: Final = """
import importlib.metadata as metadata, json
points = metadata.entry_points(group="vllm.general_plugins")
print(json.dumps([point.dist.version for point in points if point.name == "w8a8sc"][:1]))
"""


@dataclass(frozen=True)
class Plugin:
    """python: the one behind `vllm`, None if there is none. version: of the plugin it has, None if it has none.

    problem: why vLLM will not load the plugin, "" if it will.
    """

    python: Path | None
    version: str | None
    problem: str

    @property
    def works(self) -> bool:
        return not self.problem


def find_plugin(environment: Mapping[str, str]) -> Plugin:
    """Look for the plugin where `vllm` on PATH would; nothing is imported there, which takes some 50 ms."""
    python = python_of(shutil.which("vllm", path=environment.get("PATH")))
    if python is None:
        return Plugin(None, None, "there is no vllm on PATH")
    version = _version_in(python, environment)
    if version is None:
        return Plugin(python, None, f"the Python behind vllm ({python}) does not have it: {INSTALL} there")
    allowed = environment.get(PLUGINS)
    if allowed is not None and _NAME not in allowed.split(","):
        return Plugin(python, version, f"{PLUGINS}={allowed} leaves it out: add {_NAME}")
    return Plugin(python, version, "")


def python_of(script: str | None) -> Path | None:
    """The Python that runs an installed command: its first line names it, or its third where that would be too long."""
    if script is None:
        return None
    try:
        lines = reading.whole(Path(script), _LARGEST_SCRIPT).decode("utf-8", "replace").splitlines()[:3]
    except InputError:
        return None
    words: list[str] = []
    if lines and lines[0].startswith("#!"):
        words = lines[0][2:].split()
        if words and Path(words[0]).name == "sh" and len(lines) > 1 and "exec" in lines[1]:
            words = _words(lines[1])[1:]
    if words and Path(words[0]).name == "env" and len(words) > 1:
        words = [shutil.which(words[1]) or ""]
    return Path(words[0]) if words and "python" in Path(words[0]).name and reading.is_program(Path(words[0])) else None


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quotation that does not end
        return []


def _version_in(python: Path, environment: Mapping[str, str]) -> str | None:
    try:
        answer = subprocess.run(
            [str(python), "-c", _QUESTION],
            capture_output=True,
            env=dict(environment),
            timeout=_SECONDS,
            check=True,
        )
        content = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return str(content[0]) if content else None


def python_for_cpu(environment: Mapping[str, str]) -> Path | None:
    """The Python that vLLM's CPU build would run in: ours if it has vLLM, else the one behind `vllm`, else none."""
    from importlib.util import find_spec

    if find_spec("vllm") is not None:
        return Path(sys.executable)
    return python_of(shutil.which("vllm", path=environment.get("PATH")))
