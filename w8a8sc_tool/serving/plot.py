"""A picture of memory against max-model-len."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import MissingError, UsageError, WorkError
from .memory import Estimate, mask_peak_bytes

_POINTS = 100
_GB = 1 << 30


def plot(estimates: Sequence[Estimate], path: Path) -> None:
    """Draw one panel per tensor-parallel size to a PNG or SVG file.

    What is allocated for a sequence of each length, against what is there: the KV cache of one sequence and the masks
    on top of the weights. Raises MissingError without matplotlib, UsageError for other kinds of files.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"{path} is neither a .png nor a .svg file")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingError("matplotlib is not installed", remedy="pip install 'w8a8sc[plot]'")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(estimates), 4), layout="constrained")
    panels = figure.subplots(1, len(estimates), squeeze=False, sharey=True)[0]
    for panel, estimate in zip(panels, estimates):
        _panel(panel, estimate)
    panels[0].set_ylabel("GiB per chip")
    panels[0].legend(loc="lower right", fontsize="small")
    try:
        figure.savefig(path)
    except OSError as error:
        raise WorkError(f"cannot be written ({error.strerror})", str(path), "choose another file") from None


def _panel(panel: Any, estimate: Estimate) -> None:
    largest = max(estimate.largest_len(compressed_masks=True), estimate.wanted_len or 0, 1024)
    lengths = [1024 + (min(largest, estimate.longest_position) - 1024) * step // _POINTS for step in range(_POINTS + 1)]
    fixed = estimate.weights + estimate.embedding_copies + estimate.activations
    cache = [length * estimate.kv_per_token for length in lengths]
    masks = [mask_peak_bytes(length, compressed=False) for length in lengths]
    bottom = [0.0] * len(lengths)
    for label, values in (
        ("weights", [estimate.weights + estimate.embedding_copies] * len(lengths)),
        ("activations (estimated)", [estimate.activations] * len(lengths)),
        ("KV cache of one sequence", cache),
        ("masks while built, not compressed", masks),
    ):
        top = [low + value / _GB for low, value in zip(bottom, values)]
        panel.fill_between(lengths, bottom, top, label=label, alpha=0.7)
        bottom = top
    panel.axhline(estimate.chip / _GB, color="black", label="memory of the chip")
    panel.axhline((fixed + estimate.kv_cache) / _GB, color="black", linestyle=":", label="end of the KV cache")
    for compressed, style in ((False, "--"), (True, "-.")):
        length = estimate.largest_len(compressed_masks=compressed)
        label = f"largest, masks {'' if compressed else 'not '}compressed"
        panel.axvline(length, color="red", linestyle=style, label=label)
    panel.set_title(f"TP {estimate.tp}")
    panel.set_xlabel("max-model-len")
    panel.set_ylim(0, estimate.chip / _GB * 1.15)
