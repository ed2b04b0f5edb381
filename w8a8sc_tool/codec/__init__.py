"""The compressed weight format W8A8SC (and W16A16SC) of Ascend 310P: docs/format.md describes it bit by bit."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Imported on first use: who only starts workers does not wait for the kernels.
_PUBLIC = {
    "CodecError": "errors",
    "IndexEntryError": "errors",
    "MatrixError": "errors",
    "TileError": "errors",
    "TooLargeError": "errors",
    "DecodedBlock": "matrix",
    "EncodedMatrix": "matrix",
    "EncodedTiles": "matrix",
    "MatrixDecoder": "matrix",
    "MatrixEncoder": "matrix",
    "decode_matrix": "matrix",
    "encode_matrix": "matrix",
    "Sparsity": "tables",
    "Tiling": "tiling",
}

if TYPE_CHECKING:
    from .errors import CodecError as CodecError
    from .errors import IndexEntryError as IndexEntryError
    from .errors import MatrixError as MatrixError
    from .errors import TileError as TileError
    from .errors import TooLargeError as TooLargeError
    from .matrix import DecodedBlock as DecodedBlock
    from .matrix import EncodedMatrix as EncodedMatrix
    from .matrix import EncodedTiles as EncodedTiles
    from .matrix import MatrixDecoder as MatrixDecoder
    from .matrix import MatrixEncoder as MatrixEncoder
    from .matrix import decode_matrix as decode_matrix
    from .matrix import encode_matrix as encode_matrix
    from .tables import Sparsity as Sparsity
    from .tiling import Tiling as Tiling

__all__ = [*_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
