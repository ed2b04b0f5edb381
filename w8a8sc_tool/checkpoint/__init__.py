"""W8A8S checkpoints: their files, tensors, description and config."""

from .checkpoint import Checkpoint, SourceTensor
from .config import ModelConfig
from .description import Description

__all__ = ["Checkpoint", "Description", "ModelConfig", "SourceTensor"]
