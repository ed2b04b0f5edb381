"""What the runtime needs to know of a folder's model. This file does without torch."""

from __future__ import annotations

from pathlib import Path

from ..checkpoint import ModelConfig
from ..errors import Problem, refuse
from ..layouts import ARCHITECTURES


def config_of(folder: Path) -> ModelConfig:
    return ModelConfig.parse(folder / "config.json", ARCHITECTURES)


def check_runnable(config: ModelConfig) -> None:
    """Raises InputError if the model computes something that the bundled runtime does not."""
    refuse(
        Problem(f"{reason} is not supported by the bundled runtime", str(config.path), "vLLM may run it")
        for reason in config.not_run
    )


def config_of_directory(folder: Path) -> ModelConfig:
    """A sharded_state directory's; raises InputError if it is not run here, or vLLM would ignore the description."""
    config = config_of(folder)
    check_runnable(config)
    refuse(
        Problem(f"{key} would take the place of quant_model_description.json", str(config.path), "remove it")
        for key in config.replaces_description
    )
    return config
