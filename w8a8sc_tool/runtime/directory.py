"""What the runtime needs to know of a folder's model. This file does without torch."""

from __future__ import annotations

from pathlib import Path

from ..checkpoint import ModelConfig
from ..layouts import ARCHITECTURES


def config_of(folder: Path) -> ModelConfig:
    return ModelConfig.parse(folder / "config.json", ARCHITECTURES)
