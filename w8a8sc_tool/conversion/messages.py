"""What a conversion and its workers tell each other: units of work and what came of them."""

from __future__ import annotations

import msgspec

from ..io.safetensors import TensorInfo
from ..planning import Fallback, PlannedModule

Key = tuple[int, int, str]  # directory, rank, tensor name


class Unit(msgspec.Struct, frozen=True):
    """A module to be made, at every tensor-parallel size at once: its plan by number of the directory."""

    name: str
    planned: dict[int, PlannedModule]

    @property
    def source_bytes(self) -> int:
        return next(iter(self.planned.values())).source_bytes

    @property
    def compress(self) -> bool:
        """Whether any of its tensors has to wait for a place in its file."""
        return any(planned.compress for planned in self.planned.values())


class Made(msgspec.Struct, frozen=True):
    """What came of a module in one directory.

    hashes: of the tensors written so far, by rank and name; small: bytes of those too small to have a place yet;
    for a compressed weight: variable, the tensors that need a place (per rank), and ratios, one per rank.
    """

    hashes: dict[tuple[int, str], str]
    small: dict[tuple[int, str], bytes]
    variable: tuple[tuple[TensorInfo, ...], ...] = ()
    ratios: tuple[float, ...] = ()
    fallback: Fallback | None = None

    @property
    def ratio(self) -> float | None:
        """The ratio over all ranks."""
        return sum(self.ratios) / len(self.ratios) if self.ratios else None

    @property
    def held_bytes(self) -> int:
        """Bytes that wait in the worker for their place."""
        return 0 if self.fallback else sum(tensor.nbytes for rank in self.variable for tensor in rank)


class Answer(msgspec.Struct, frozen=True):
    """What came of a unit: by directory, and the hashes of its source tensors."""

    made: dict[int, Made]
    sources: dict[str, str]

    @property
    def held_bytes(self) -> int:
        return sum(made.held_bytes for made in self.made.values())


class Claim(msgspec.Struct, frozen=True):
    """Bytes [begin, end) of a file that should have this hash."""

    path: str
    name: str
    begin: int
    end: int
    hash: str
