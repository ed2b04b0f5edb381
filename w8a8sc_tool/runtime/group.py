"""The ranks of a tensor-parallel group, as far as a model needs them."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class Group(Protocol):
    """Which rank this is of how many, and the two operations that join their results."""

    rank: int
    size: int

    def sum(self, x: Tensor) -> Tensor:
        """The ranks' tensors added up."""

    def join(self, x: Tensor) -> Tensor:
        """The ranks' tensors side by side, along the last axis."""


class Alone:
    """A group of one."""

    rank = 0
    size = 1

    def sum(self, x: Tensor) -> Tensor:
        return x

    def join(self, x: Tensor) -> Tensor:
        return x


class Distributed:
    """One process per rank, through torch.distributed: gloo on a CPU, hccl on an NPU."""

    def __init__(self, rank: int, size: int, rendezvous: str, backend: str = "gloo") -> None:
        """rendezvous: a file that does not exist yet, the same for all ranks."""
        dist.init_process_group(backend, init_method=f"file://{rendezvous}", rank=rank, world_size=size)
        self.rank = rank
        self.size = size

    def sum(self, x: Tensor) -> Tensor:
        """float16, as on the device; on a CPU in the order of the ranks, so that every rank has the same bits."""
        if x.device.type != "cpu":
            dist.all_reduce(x)
            return x
        total, *others = self._all(x)
        for part in others:
            total = total + part
        return total

    def join(self, x: Tensor) -> Tensor:
        return torch.cat(self._all(x), dim=-1)

    def _all(self, x: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(x) for _ in range(self.size)]
        dist.all_gather(parts, x.contiguous())
        return parts
