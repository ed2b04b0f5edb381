"""Decoded weights, kept within a memory budget: on a CPU a weight is decoded once, not once per token."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from torch import Tensor

DEFAULT_BUDGET: Final = 8 << 30  # bytes; who knows the machine sets `budget`


class DecodedWeights:
    """The most recently used decoded weights, by the memory of their compressed form."""

    def __init__(self, budget: int = DEFAULT_BUDGET) -> None:
        self.budget = budget
        self.bytes = 0
        self.decodings = 0
        # The compressed tensors are kept too, so that their memory cannot be given to others.
        self._kept: OrderedDict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = OrderedDict()

    def get(self, weight: Tensor, index: Tensor, decode: Callable[[], Tensor]) -> Tensor:
        """The decoded form of a compressed weight."""
        key = (weight.data_ptr(), weight.numel())
        entry = self._kept.get(key)
        if entry is not None:
            self._kept.move_to_end(key)
            return entry[2]
        value = decode()
        self.decodings += 1
        size = value.numel()
        while self._kept and self.bytes + size > self.budget:
            _, (_, _, oldest) = self._kept.popitem(last=False)
            self.bytes -= oldest.numel()
        if size <= self.budget:
            self._kept[key] = (weight, index, value)
            self.bytes += size
        return value

    def clear(self) -> None:
        self._kept.clear()
        self.bytes = 0
