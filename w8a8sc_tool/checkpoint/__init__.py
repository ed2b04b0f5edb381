"""W8A8S checkpoints: their files, tensors, description and config."""

from .checkpoint import Checkpoint
from .config import ModelConfig
from .description import Description
from .tensors import FileTensor, SourceTensor

__all__ = ["Checkpoint", "Description", "FileTensor", "ModelConfig", "SourceTensor"]
