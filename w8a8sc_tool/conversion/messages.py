"""What a conversion and its workers tell each other: units of work and what came of them."""

from __future__ import annotations

from typing import Final

import msgspec

from ..io.safetensors import TensorInfo
from ..planning import Fallback, PlannedModule

DAMAGE_REMEDY: Final = "check disk and memory of this machine, then run the command again with resume=False"

RankTensor = tuple[int, str]
"""A tensor of a directory: rank and name."""

Offsets = dict[int, dict[RankTensor, int]]
"""Where to write, by directory: bytes from the start of the rank's file that the module is in."""

Hashes = dict[int, dict[RankTensor, str]]
"""Hashes of what has been written, by directory."""


class Unit(msgspec.Struct, frozen=True):
    """A module to be made, at every tensor-parallel size at once.

    planned: its plan, by number of the directory. parts: which of a rank's files its tensors are in, likewise. offsets:
    of its tensors of known size, but for those too small to have an offset before their file is finished.
    """

    name: str
    planned: dict[int, PlannedModule]
    parts: dict[int, int]
    offsets: Offsets

    @property
    def source_bytes(self) -> int:
        return next(iter(self.planned.values())).source_bytes

    @property
    def compress(self) -> bool:
        """Whether any of its tensors has to wait for its offset."""
        return any(planned.compress for planned in self.planned.values())


class ModuleResult(msgspec.Struct, frozen=True):
    """What came of a module in one directory.

    hashes: of the tensors written so far; small: bytes of those that have no offset yet; for a compressed weight:
    variable, the tensors that wait for offsets (per rank), and ratios, one per rank.
    """

    hashes: dict[RankTensor, str]
    small: dict[RankTensor, bytes]
    variable: tuple[tuple[TensorInfo, ...], ...] = ()
    ratios: tuple[float, ...] = ()
    fallback: Fallback | None = None

    @property
    def ratio(self) -> float | None:
        """The ratio over all ranks."""
        return sum(self.ratios) / len(self.ratios) if self.ratios else None

    @property
    def held_bytes(self) -> int:
        """Bytes that wait in the worker for their offsets."""
        return 0 if self.fallback else sum(tensor.nbytes for rank in self.variable for tensor in rank)


class UnitResult(msgspec.Struct, frozen=True):
    """What came of a unit: by directory, and the hashes of its source tensors."""

    modules: dict[int, ModuleResult]
    sources: dict[str, str]

    @property
    def held_bytes(self) -> int:
        return sum(module.held_bytes for module in self.modules.values())
