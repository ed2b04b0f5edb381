"""A picture of memory against max-model-len."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import MissingError, UsageError, WorkError
from ..io import reading
from .memory import Estimate, mask_peak_bytes

_POINTS = 100
_GB = 1 << 30


def plot(estimates: Sequence[Estimate], path: Path) -> None:
    """Draw one panel per tensor-parallel size to a PNG or SVG file.

    What is allocated at each max-model-len, against what is there, and where the limits are. Raises MissingError
    without matplotlib, UsageError for other kinds of files.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"{path} is neither a .png nor a .svg file")
    reading.check_can_create(path)
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingError("matplotlib is not installed", remedy="pip install 'w8a8sc[report]'")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 4.0 * len(estimates)), 5), layout="constrained")
    panels = figure.subplots(1, len(estimates), squeeze=False, sharey=True)[0]
    for panel, estimate in zip(panels, estimates):
        _panel(panel, estimate)
    panels[0].set_ylabel("GiB per chip")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    try:
        figure.savefig(path)
    except OSError as error:
        raise WorkError(f"cannot be written ({error.strerror})", str(path), "choose another file") from None


def _panel(panel: Any, estimate: Estimate) -> None:
    """What is allocated, one on top of the other, and what a single sequence needs of the KV cache."""
    largest = max(estimate.largest_len(compressed_masks=True), estimate.wanted_len or 0, 2048)
    lengths = [largest * step // _POINTS for step in range(_POINTS + 1)]
    fixed = estimate.weights + estimate.embedding_copies + estimate.activations
    bottom = [0.0] * len(lengths)
    for label, values in (
        ("weights", [estimate.weights + estimate.embedding_copies] * len(lengths)),
        ("activations (estimated)", [estimate.activations] * len(lengths)),
        ("KV cache", [estimate.kv_cache] * len(lengths)),
        ("masks while they are built", [mask_peak_bytes(length, compressed=False) for length in lengths]),
    ):
        top = [low + value / _GB for low, value in zip(bottom, values)]
        panel.fill_between(lengths, bottom, top, label=label, alpha=0.7, linewidth=0)
        bottom = top
    sequence = [(fixed + length * estimate.kv_per_token) / _GB for length in lengths]
    panel.plot(lengths, sequence, color="black", linestyle=":", label="of the KV cache, one sequence")
    panel.axhline(estimate.chip / _GB, color="black", label="memory of the chip")
    for compressed, style in ((False, "--"), (True, ":")):
        label = f"largest max-model-len{', compressed masks' if compressed else ''}"
        panel.axvline(estimate.largest_len(compressed_masks=compressed), color="red", linestyle=style, label=label)
    panel.set_title(f"TP {estimate.tp}: up to {estimate.largest_len(compressed_masks=False)} tokens")
    panel.set_xlabel("max-model-len")
    panel.set_ylim(0, estimate.chip / _GB * 1.15)
