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
        if state.problems:
            raise InputError(state.problems)
        if sorted(state.ranks) != list(range(state.tp)):
            missing = sorted(set(range(state.tp)) - set(state.ranks))
            raise InputError(f"there is no file of rank {', '.join(map(str, missing)) or 'that size'}", str(folder))
        problems = check_size(config_of(folder), state.tp)
        if problems:
            raise InputError(problems)
        if state.manifest is not None:
            for rank in state.manifest.ranks:
                (file,) = state.ranks[rank.rank] if len(state.ranks[rank.rank]) == 1 else (None,)
                listed = {t.name: (t.dtype, tuple(t.shape), t.begin, t.end) for t in rank.tensors}
                found = file and {t.name: (t.dtype, t.shape, t.begin, t.end) for t in file.tensors.values()}
                if file is None or file.path.name != rank.file or file.size != rank.size or found != listed:
                    raise InputError(
                        "it is not the file that the manifest lists", str(folder / rank.file), "see w8a8sc verify"
                    )
        return state.tp
