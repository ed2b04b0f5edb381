"""The native backend: weights compressed by the project's own codec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..checkpoint import SourceTensor
from ..checkpoint.reader import SourceReader
from ..codec import MatrixEncoder, TooLargeError
from ..layouts import Module
from ..plan.produce import columns_of, joined_rows, rank_groups


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


def compress_shards(
    module: Module, sources: Mapping[str, SourceTensor], reader: SourceReader
) -> list[CompressedShard] | None:
    """Compress a linear layer's weight for every rank, reading each source row once where ranks share rows.

    None: a shard would be larger than the original, so the layer cannot be compressed.
    """
    output = module.weight
    shards: list[CompressedShard | None] = [None] * len(output.slices)
    for ranks, slices in rank_groups(output):
        encoders = [MatrixEncoder(module.n, module.k) for _ in ranks]
        for first, last in encoders[0].blocks():
            rows = joined_rows(slices, first, last, sources, reader)
            for rank, encoder in zip(ranks, encoders):
                encoder.feed(rows[:, columns_of(output, rank)])
        for rank, encoder in zip(ranks, encoders):
            try:
                shards[rank] = CompressedShard(*encoder.finish())
            except TooLargeError:
                return None
    return [shard for shard in shards if shard is not None]
