"""Rotary position embeddings: the angles by which queries and keys turn, position by position."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..checkpoint.rope import Rope


def frequencies(rope: Rope, size: int) -> npt.NDArray[np.float32]:
    """Radians per position of each pair of a head of `size` elements: float32 [size / 2].

    Long wavelengths of a llama3 rotation are stretched by its factor, and those in between by a share of it.
    """
    plain = rope.theta ** (-np.arange(0, size, 2, dtype=np.float64) / size)
    if rope.llama3 is None:
        return plain.astype(np.float32)
    factor, low, high, length = rope.llama3
    turns = length * plain / (2 * math.pi)  # in the length that the model was first trained for
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return (plain * (kept + (1 - kept) / factor)).astype(np.float32)


def rotations(rope: Rope, size: int, room: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin for positions 0 to room - 1: float16 [room, size], halves repeated.

    Angles are float32 products, as vLLM's; their cos and sin are float64 until they are rounded. numpy computes them:
    torch 2.13 with MKL gives half of a table errors above 1e-4 if two threads make a process's first call of cos at
    the same moment (2 of 6000 processes).
    """
    angles = np.outer(np.arange(room, dtype=np.float32), frequencies(rope, size)).astype(np.float64)
    both = np.concatenate((angles, angles), axis=1)
    cos, sin = (torch.from_numpy(values.astype(np.float16)).to(device) for values in (np.cos(both), np.sin(both)))
    return cos, sin
