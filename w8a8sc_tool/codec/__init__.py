"""The compressed weight format W8A8SC (and W16A16SC) of Ascend 310P, which docs/format.md, sections 1 to 16, describes.

An int8 matrix [n, k] (n output, k input features; a float16 one viewed as bytes) becomes three numpy arrays and back:

    weight  int8 [c]          payloads of all tiles, c a multiple of 128
    index   int8 [8 * tiles]  an entry of 8 bytes for each tile
    info    int64 [5]         8, 8, k, n, 1

`encode_matrix` and `decode_matrix` do it at once, `MatrixEncoder` and `MatrixDecoder` in blocks of rows, so that
neither side need be in memory whole. Equal input gives equal bytes: of every version with the same codec version, on
every machine, in blocks of any size.

Memory. Inputs are read, never written or kept; they may be read-only and unaligned. Results are new arrays of their
own, except `out`, which stays the caller's and is what `decode_matrix` returns; after an error its content is
undefined. Parts that `EncodedTiles.part` and `MatrixDecoder.tiles` return are views.

Threads. The functions may be called from any number of threads; kernels release the interpreter's lock. A MatrixEncoder
or MatrixDecoder has scratch memory and belongs to one thread at a time.

Errors. Compressed tensors that break the format, whatever their bytes, raise a CodecError that names tile, engine and
cause, and cause no access out of range. A matrix that would outgrow its consumers raises TooLargeError. An argument of
the wrong kind is a TypeError or ValueError. What decoding can not find: docs/format.md, section 13.

Kernels. numba compiles them when the first matrix is encoded or decoded, which takes half a minute and one line on
standard error, and they are kept on disk; from then on they are loaded without numba. Importing this room does nothing.
`ensure_compiled` compiles ahead.

Files in reading order: format (constants, codes), tables (what follows from them), tiling (sections 3 and 4), shares
(5), dictionary (6), streams (7, 9 to 11), then the encoder: encode with a plain coder and one by vectors for each mode,
and the symbols that the latter begin with; the decoder: decode, decode_packets (every rule, 8 and 13), decode_groups
(the same, fast), causes (what is wrong with a tile); matrix (12), provenance (what a compressed weight shows of its
encoder); float16, which codes nothing. Below them intrinsics and vectors, what numba lacks, jit, which compiles, and
kernels and kernel_cache, which load and keep what is compiled. What kernels are made of is imported by `kernels` alone,
and only to compile it. They import nothing of the package.
"""

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
    "CODEC_VERSION": "format",
    "Sparsity": "format",
    "Tiling": "tiling",
}

if TYPE_CHECKING:
    from .errors import CodecError as CodecError
    from .errors import IndexEntryError as IndexEntryError
    from .errors import MatrixError as MatrixError
    from .errors import TileError as TileError
    from .errors import TooLargeError as TooLargeError
    from .format import CODEC_VERSION as CODEC_VERSION
    from .format import Sparsity as Sparsity
    from .matrix import DecodedBlock as DecodedBlock
    from .matrix import EncodedMatrix as EncodedMatrix
    from .matrix import EncodedTiles as EncodedTiles
    from .matrix import MatrixDecoder as MatrixDecoder
    from .matrix import MatrixEncoder as MatrixEncoder
    from .matrix import decode_matrix as decode_matrix
    from .matrix import encode_matrix as encode_matrix
    from .tiling import Tiling as Tiling

__all__ = [*_PUBLIC, "ensure_compiled"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def ensure_compiled() -> None:
    """Compile the kernels unless that is done, so that processes started next only load them.

    Without a folder to keep them, every process has to compile its own.
    """
    from . import kernel_cache, kernels

    if kernel_cache.kept_in() is None and kernel_cache.writable_folder() is not None:
        kernels.load()
