"""Rotary position embeddings: the angles by which queries and keys turn, position by position."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..checkpoint.rope import Rope


def frequencies(rope: Rope, size: int) -> Tensor:
    """Radians per position of each pair of a head of `size` elements: float32 [size / 2].

    Long wavelengths of a llama3 rotation are stretched by its factor, and those in between by a share of it.
    """
    plain = rope.theta ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)
    if rope.llama3 is None:
        return plain
    factor, low, high, length = rope.llama3
    turns = length * plain / (2 * math.pi)  # in the length that the model was first trained for
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return plain * (kept + (1 - kept) / factor)


def rotations(rope: Rope, size: int, room: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin for positions 0 to room - 1: float16 [room, size], halves repeated."""
    angles = torch.outer(torch.arange(room, dtype=torch.float32), frequencies(rope, size))
    both = torch.cat((angles, angles), dim=-1)
    return both.cos().half().to(device), both.sin().half().to(device)
