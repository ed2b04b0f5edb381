"""What a directory has to be before anything runs from it. This file does without torch."""

from __future__ import annotations

from pathlib import Path

from ..checkpoint import ModelConfig
from ..errors import InputError
from ..layouts import ARCHITECTURES, check_size
from ..sharded_state import ShardedState


def config_of(folder: Path) -> ModelConfig:
    return ModelConfig.parse(folder / "config.json", ARCHITECTURES)


def check_directory(folder: Path) -> int:
    """The directory's TP size; InputError if its files are not those of its manifest, by name, size and header."""
    with ShardedState.open(folder) as state:
        state.check_files()
        problems = check_size(config_of(folder), state.tp)
        if problems:
            raise InputError(problems)
        return state.tp
