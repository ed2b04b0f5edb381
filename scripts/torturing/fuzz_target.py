"""One fuzzer, in a process of its own: `python -m torturing.fuzz_target NAME FOLDER [libFuzzer's options]`.

A parser may refuse an input with InputError and in no other way. libFuzzer, through atheris, watches time and memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["w8a8sc_tool"]):
    from w8a8sc_tool.checkpoint import config, description
    from w8a8sc_tool.checkpoint.weights import weight_files
    from w8a8sc_tool.errors import InputError
    from w8a8sc_tool.io.safetensors import TensorFile
    from w8a8sc_tool.layouts import ARCHITECTURES
    from w8a8sc_tool.planning import preset
    from w8a8sc_tool.sharded_state import Journal, manifest


def _in_file(name: str, parse: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    def target(folder: Path, data: bytes) -> object:
        path = folder / name
        path.write_bytes(data)
        return parse(path)

    return target


def _journal(path: Path) -> None:
    journal = Journal(path.parent)
    journal.read()
    journal.close()


# The name of each parser, and what it does with a folder and an input.
TARGETS: dict[str, Callable[[Path, bytes], object]] = {
    "header": _in_file("a.safetensors", lambda path: TensorFile(path).close()),
    "manifest": lambda folder, data: manifest.parse(data, "input"),
    "description": _in_file("description.json", description.Description.parse),
    "config": _in_file("config.json", lambda path: config.ModelConfig.parse(path, ARCHITECTURES)),
    "index": _in_file("a.safetensors.index.json", lambda path: weight_files(path.parent, ())),
    "journal": _in_file("w8a8sc_journal.jsonl", _journal),
    "preset": _in_file("preset.yaml", preset.load),
}


def main() -> None:
    name, folder, *options = sys.argv[1:]
    target = TARGETS[name]
    folder_path = Path(folder)

    def one(data: bytes) -> None:
        with suppress(InputError):
            target(folder_path, data)

    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
