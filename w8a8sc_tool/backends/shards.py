"""What a backend gives back: the three tensors of every rank's shard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..io.safetensors import TensorInfo, tensor_info


@dataclass(frozen=True)
class CompressedShard:
    """A rank's compressed weight: the weight tensor in pieces, index and info."""

    weight: list[npt.NDArray[np.int8]]
    index: npt.NDArray[np.int8]
    info: npt.NDArray[np.int64]

    @property
    def weight_bytes(self) -> int:
        return sum(piece.nbytes for piece in self.weight)

    @property
    def nbytes(self) -> int:
        """Bytes of all three tensors."""
        return self.weight_bytes + self.index.nbytes + self.info.nbytes

    def tensors(self, module: str) -> tuple[TensorInfo, ...]:
        """The three tensors of the module, not placed yet."""
        return (
            tensor_info(f"{module}.weight", "I8", (self.weight_bytes,)),
            tensor_info(f"{module}.index", "I8", self.index.shape),
            tensor_info(f"{module}.info", "I64", self.info.shape),
        )

    def pieces(self, leaf: str) -> list[npt.NDArray[np.int8]] | list[npt.NDArray[np.int64]]:
        """The bytes of one of the three tensors, in pieces."""
        return self.weight if leaf == "weight" else [self.index] if leaf == "index" else [self.info]
