"""What a layout is made of: runtime modules, the tensors each has per rank, and the source tensors they come from."""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

Conversion = Literal["float16", "float32", "int8", "int32", "scale_bits", "offset", "ones", "zeros"]
"""How a source tensor becomes an output tensor.

float16: F16, BF16 or F32 to F16, overflow is an error. int8, int32: as they are. scale_bits: a float32 deq_scale
becomes int64 with the float's bits in the low half, an int64 stays. offset: a floating integral value to int8.
float32: F16, BF16 or F32 to F32. ones, zeros: constants, without a source.
"""

# The types that can be compressed, and what they are then: in a directory, a compressed layer is described by that.
COMPRESSED: Final = {"W8A8S": "W8A8SC", "W16A16S": "W16A16SC"}
UNCOMPRESSED: Final = {after: before for before, after in COMPRESSED.items()}

FLOATING: Final = ("F16", "BF16", "F32")


class Slice(msgspec.Struct, frozen=True):
    """What a rank takes of one source tensor: rows [first_row, last_row), and of those columns [first, last).

    Tensors that are not two-dimensional have one column per element of the rest of their shape. last_column 0 means all
    columns.
    """

    source: str
    first_row: int
    last_row: int
    first_column: int = 0
    last_column: int = 0

    @property
    def rows(self) -> int:
        return self.last_row - self.first_row


class Source(msgspec.Struct, frozen=True):
    """A tensor that the checkpoint must have: its allowed dtypes and its shape."""

    name: str
    dtypes: tuple[str, ...]
    shape: tuple[int, ...]


class Output(msgspec.Struct, frozen=True):
    """One tensor of every rank's state: dtype and shape (equal on all ranks) and what each rank joins along rows.

    If the slices of a rank have fewer rows than the shape, zeros follow. leading: how many dimensions the rows run
    over: two of a stack of matrices.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    conversion: Conversion
    slices: tuple[tuple[Slice, ...], ...]
    leading: int = 1

    @property
    def rows(self) -> int:
        return math.prod(self.shape[: self.leading])

    @property
    def columns(self) -> int:
        """Elements of a row."""
        return math.prod(self.shape[self.leading :])


class Member(msgspec.Struct, frozen=True):
    """A checkpoint module that is, or is joined into, a linear layer: its name and its rows n."""

    name: str
    n: int


class Module(msgspec.Struct, frozen=True):
    """A runtime module with its tensors on every rank.

    quantization: type of the layer in the checkpoint. n, k: sizes of a rank's weight, 0 where there is none that could
    be compressed. layer: number of the decoder layer, -1 outside of them.
    """

    name: str
    kind: Literal["linear", "norm", "gemma_norm", "embedding", "constant", "whole", "dealt", "experts"]
    layer: int
    quantization: str
    outputs: tuple[Output, ...]
    sources: tuple[Source, ...]
    members: tuple[Member, ...] = ()
    n: int = 0
    k: int = 0

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of the weight: the columns of the int8 matrix that the codec sees."""
        return self.k * (2 if self.quantization == "W16A16S" else 1)

    @property
    def sparsity(self) -> Literal["low", "high"]:
        """How the codec codes the weight."""
        return "high" if self.quantization == "W16A16S" else "low"

    @property
    def weight(self) -> Output:
        return next(output for output in self.outputs if output.name.endswith(".weight"))
