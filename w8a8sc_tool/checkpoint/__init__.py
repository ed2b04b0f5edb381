"""W8A8S checkpoints: their files, tensors, description and config."""

from .checkpoint import AssembledTensor, Checkpoint, SourceTensor
from .config import ModelConfig
from .description import Description

__all__ = ["AssembledTensor", "Checkpoint", "Description", "ModelConfig", "SourceTensor"]
