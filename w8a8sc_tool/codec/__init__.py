"""The compressed weight format W8A8SC (and W16A16SC) of Ascend 310P: docs/format.md describes it bit by bit."""

from .errors import CodecError, IndexEntryError, MatrixError, TileError, TooLargeError
from .matrix import (
    DecodedBlock,
    EncodedMatrix,
    EncodedTiles,
    MatrixDecoder,
    MatrixEncoder,
    decode_matrix,
    encode_matrix,
)
from .tables import Sparsity
from .tiling import Tiling

__all__ = [
    "CodecError",
    "DecodedBlock",
    "EncodedMatrix",
    "EncodedTiles",
    "IndexEntryError",
    "MatrixDecoder",
    "MatrixEncoder",
    "MatrixError",
    "Sparsity",
    "TileError",
    "Tiling",
    "TooLargeError",
    "decode_matrix",
    "encode_matrix",
]
