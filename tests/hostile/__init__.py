"""Checkpoints, directories, presets and batch files made to mislead. Each case changes a copy of a good one."""

from __future__ import annotations

from pathlib import Path

from .cases import Case
from .checkpoints import CHECKPOINTS, HEADERS
from .directories import DIRECTORIES
from .documents import BATCH, BATCHES, PRESET, PRESETS
from .manifests import SEALED, UNSEALED

__all__ = ["BATCH", "CASES", "PRESET", "Case", "commands"]

CASES = [*HEADERS, *CHECKPOINTS, *DIRECTORIES, *SEALED, *UNSEALED, *PRESETS, *BATCHES]


def commands(folder: Path, output: Path) -> list[list[str]]:
    """Every command that takes a directory, given one. output: where those write that write."""
    more = ["-j", "1", "-o", str(output)]
    path = str(folder)
    return [
        ["verify", path, "-j", "1"],
        ["verify", path, "--quick"],
        ["inspect", path],
        ["compare", path, path, "-j", "1"],
        ["reshard", path, "--tp", "1", *more],
        ["decompress", path, *more],
        ["decompress", path, "--checkpoint", "-o", str(output)],
        ["serve", path, "--print"],
        ["serve", path, "--container"],
        ["fit", path],
        ["generate", path, "--token-ids", "1", "--max-new-tokens", "1"],
    ]
