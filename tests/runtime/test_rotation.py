"""Rotations: how fast each pair of a head turns, plain and stretched as Llama 3.1's, and where it stops to matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from w8a8sc_tool.checkpoint.rope import Rope
from w8a8sc_tool.runtime.rotation import frequencies, rotations

LLAMA3 = Rope(
    500000.0,
    "llama3",
    parameters={
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
)


def plainly(rope: Rope, size: int) -> list[float]:
    """Pair by pair, in float64: short wavelengths as they are, long ones `factor` times as long."""
    assert rope.llama3 is not None
    factor, low, high, length = rope.llama3
    made = []
    for pair in range(size // 2):
        frequency = rope.theta ** (-2 * pair / size)
        wavelength = 2 * math.pi / frequency
        if wavelength < length / high:
            made.append(frequency)
        elif wavelength > length / low:
            made.append(frequency / factor)
        else:
            share = (length / wavelength - low) / (high - low)
            made.append((1 - share) * frequency / factor + share * frequency)
    return made


@pytest.mark.parametrize("size", [64, 128])
def test_llama3_stretches_long_wavelengths(size: int) -> None:
    stretched = torch.from_numpy(frequencies(LLAMA3, size))
    torch.testing.assert_close(stretched.double(), torch.tensor(plainly(LLAMA3, size)).double(), rtol=1e-5, atol=0)
    ratio = stretched / torch.from_numpy(frequencies(Rope(500000.0), size))
    assert ratio[0] == 1 and abs(ratio[-1] - 1 / 8) < 1e-6
    assert ((ratio > 0.13) & (ratio < 0.99)).sum() >= 2  # the pairs in between


def test_cos_and_sin_by_position() -> None:
    cos, sin = rotations(Rope(10000.0), 8, 5, torch.device("cpu"))
    assert cos.shape == sin.shape == (5, 8) and cos.dtype == torch.float16
    assert torch.equal(cos[:, :4], cos[:, 4:])
    assert abs(float(sin[3, 1]) - math.sin(3 * 10000 ** (-2 / 8))) < 1e-3


def test_every_run_makes_the_same_table() -> None:
    """All values are those of float32 angles, rounded once: none depends on the order or place of a computation."""
    rope, size, room = Rope(1000000.0), 128, 80
    angles = np.outer(np.arange(room, dtype=np.float32), frequencies(rope, size))
    for table, function in zip(rotations(rope, size, room, torch.device("cpu")), (math.cos, math.sin)):
        exact = [[function(float(angle)) for angle in row] for row in angles]
        assert np.array_equal(table[:, : size // 2].numpy(), np.array(exact).astype(np.float16))


def test_as_transformers_does_it() -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {"rope_type": "llama3", **LLAMA3.parameters}
    config = transformers.LlamaConfig(rope_theta=500000.0, rope_scaling=scaling, hidden_size=256, num_attention_heads=2)
    theirs, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    torch.testing.assert_close(torch.from_numpy(frequencies(LLAMA3, 128)), theirs, rtol=1e-6, atol=0)
