"""Which files of a repository a conversion or a server needs, by their names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..checkpoint.beside import WEIGHT_SUFFIXES, is_hidden
from ..io.folders import size_of_folder

# Weights of other formats, which lie beside safetensors files on some hubs.
_OTHER_WEIGHTS: Final = (
    *(suffix for suffix in WEIGHT_SUFFIXES if suffix != ".safetensors"),
    *(".h5", ".msgpack", ".ckpt", ".ot", ".tflite"),
)


def needed(names: Iterable[str], tp: int | None) -> list[str]:
    """Of a repository's files those that are needed: of a published tree, those of one size if there is a `tp`.

    Left out are weights of other formats than safetensors, and hidden files. names: relative, with / between levels.
    """
    kept = [name for name in names if not any(map(is_hidden, name.split("/"))) and not name.endswith(_OTHER_WEIGHTS)]
    if tp is None or not sizes_of(kept):
        return kept
    return [name for name in kept if name.startswith(f"TP{tp}/")]


def sizes_of(names: Iterable[str]) -> list[int]:
    """The tensor-parallel sizes of a published tree, by its files' names; empty if it is none."""
    return sorted({size for name in names if "/" in name and (size := size_of_folder(name.split("/")[0])) is not None})
