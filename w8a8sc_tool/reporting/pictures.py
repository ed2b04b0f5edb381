"""The report's pictures. Whatever they show is in a table, too: they are for seeing it at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..io.amounts import size
from ..jobs.inspect import ModuleRow
from ..serving import Estimate
from ..text import one_line
from .figures import Map, PerToken, State, state_of
from .svg import INK, PAPER, PLAIN, inline

_STEPS: Final = 8  # colours of ratios that can be told apart
_LONGEST_NAME: Final = 28  # characters of a name beside an axis
_LONGEST_TITLE: Final = 300  # characters of what a cell says when it is pointed at
_GIB: Final = 1 << 30
# Okabe and Ito's colours, which are told apart with any eyes, on light and on dark.
_HUES: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8a8a", "#b0a000")
_WIDTH: Final = 9.6  # inches
_TICK: Final = 22  # of a layer's number, at least every so many layers


@dataclass(frozen=True)
class Scale:
    """Colours of ratios: `bounds` are the edges of their ranges, one more than there are colours."""

    bounds: tuple[float, ...]
    colours: tuple[str, ...]
    inks: tuple[str, ...]

    def number(self, ratio: float) -> int:
        """Which colour a ratio has."""
        inside = sum(ratio >= bound for bound in self.bounds[1:-1])
        return min(inside, len(self.colours) - 1)

    @property
    def digits(self) -> int:
        """Decimals that tell its bounds apart."""
        step = min(high - low for low, high in zip(self.bounds, self.bounds[1:]))
        return max(2, math.ceil(-math.log10(step) + 1e-9))


def scale_of(ratios: Iterable[float]) -> Scale | None:
    """A scale over ratios in round steps, from dark for the smallest to light for the largest; None without any."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex
    from matplotlib.ticker import MaxNLocator

    values = list(ratios)
    if not values:
        return None
    low, high = min(values), max(values)
    if high - low < 0.01:
        low, high = low - 0.01, high + 0.01
    bounds = [float(bound) for bound in MaxNLocator(_STEPS, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
    count = len(bounds) - 1
    palette = [colormaps["viridis"](0.08 + 0.88 * number / max(1, count - 1)) for number in range(count)]
    inks = tuple("#000" if _luminance(colour) > 0.18 else "#fff" for colour in palette)
    return Scale(tuple(bounds), tuple(map(to_hex, palette)), inks)


def _luminance(colour: Sequence[float]) -> float:
    """Relative luminance by WCAG 2.2, of which contrast is reckoned; black and white are as good at 0.18."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def shortened(name: str) -> str:
    """A name that fits beside an axis, on one line; its end tells modules apart."""
    name = one_line(name)
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"


def map_picture(content: Map, scale: Scale | None, letters: Mapping[State, str], name: str, label: str) -> str:
    """Layers from left to right, modules from top to bottom: a colour for a ratio, a letter for what has none."""
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    count = len(content.layers)
    figure = Figure(figsize=(min(_WIDTH, 3.2 + 0.3 * count), 0.75 + 0.26 * len(content.columns)), layout="constrained")
    axes = figure.subplots()
    places = {column: number for number, column in enumerate(content.columns)}
    corners, colours, titles = [], [], []
    for x, layer in enumerate(content.layers):
        for column, y in places.items():
            row = content.cells.get((layer, column))
            if row is None:
                continue
            state = state_of(row)
            corners.append([(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)])
            colours.append(PLAIN if state or scale is None else scale.colours[scale.number(row.ratio or 0)])
            titles.append(one_line(f"layer {layer}, {column[:80]}: {spoken(row)}"[:_LONGEST_TITLE]))
            if state is not None:
                axes.text(x + 0.5, y + 0.5, letters[state], ha="center", va="center", fontsize=7)
    cells = PolyCollection(corners, facecolors=colours, edgecolors=PAPER, linewidths=0.8, clip_on=False)
    cells.set_gid("cells")
    axes.add_collection(cells)
    axes.set(xlim=(0, max(1, count)), ylim=(max(1, len(places)), 0), xlabel="layer")
    axes.set_yticks([y + 0.5 for y in places.values()], [shortened(column) for column in places])
    step = max(1, -(-count // _TICK))
    axes.set_xticks([x + 0.5 for x in range(0, count, step)], [str(layer) for layer in content.layers[::step]])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return inline(figure, name, label, {"cells": titles})


def spoken(row: ModuleRow) -> str:
    """What a module is, in words."""
    state = state_of(row)
    if state is None:
        return f"{row.quantization}, ratio {row.ratio:.3f}"
    tried = f" (ratio {row.ratio:.3f})" if row.ratio is not None else ""
    return f"{state.quantization}, {state.reason}{tried}"


def _bars(count: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, 1.0 + 0.36 * count), layout="constrained")
    axes = figure.subplots()
    axes.set_axisbelow(True)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    return figure, axes


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)), fontsize=8)


def _stacked(axes: Any, labels: Sequence[str], parts: Mapping[str, Sequence[float]]) -> None:
    """Bars side by side from left to right, one row per label."""
    left: list[float] = [0] * len(labels)
    for number, (part, values) in enumerate(parts.items()):
        hue = _HUES[number % len(_HUES)]
        axes.barh(range(len(labels)), values, left=left, height=0.62, color=hue, label=one_line(part)[:60])
        left = [start + value for start, value in zip(left, values)]
    axes.set_yticks(range(len(labels)), labels)


def _in_bytes(axes: Any, of: str) -> None:
    """The axis in whichever unit gives it numbers that can be read."""
    unit, factor = ("GB", 1e9) if axes.get_xlim()[1] >= 1e9 else ("MB", 1e6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / factor:g}")
    axes.set_xlabel(f"{unit}, {of}")


def groups_picture(labels: Sequence[str], groups: Mapping[str, Sequence[int]], name: str) -> str:
    """Bytes by group, a bar per subject."""
    figure, axes = _bars(len(labels))
    _stacked(axes, labels, groups)
    _in_bytes(axes, "all ranks")
    _legend(figure, axes)
    return inline(figure, name, "Bytes by type of module; the numbers are in the table below")


def tokens_picture(labels: Sequence[str], tokens: Sequence[PerToken], tps: Sequence[int], name: str) -> str:
    """Bytes that a chip reads for a token, before and after."""
    figure, axes = _bars(2 * len(labels))
    before = [token.before / tp for token, tp in zip(tokens, tps)]
    after = [token.after / tp for token, tp in zip(tokens, tps)]
    for offset, values, hue, label in ((-0.2, before, _HUES[6], "uncompressed"), (0.2, after, _HUES[0], "as it is")):
        axes.barh([number + offset for number in range(len(values))], values, height=0.36, color=hue, label=label)
        for number, value in enumerate(values):
            axes.text(value, number + offset, f"  {size(value)}", va="center", fontsize=8)
    axes.set_yticks(range(len(labels)), labels)
    axes.margins(x=0.12)
    _in_bytes(axes, "per token and chip")
    _legend(figure, axes)
    return inline(figure, name, "Bytes of weights read per token and chip; the numbers are in the table below")


def memory_picture(labels: Sequence[str], estimates: Sequence[Estimate], name: str) -> str:
    """What a chip's memory holds while it serves, a bar per size, with and without the plugin."""
    figure, axes = _bars(len(labels))
    parts = {
        "weights": [item.weights for item in estimates],
        "second copy of embeddings": [item.embedding_copies for item in estimates],
        "activations (estimated)": [item.activations for item in estimates],
        "KV cache": [item.kv_cache for item in estimates],
    }
    _stacked(axes, labels, {part: [value / _GIB for value in values] for part, values in parts.items()})
    chip = max(item.chip for item in estimates) / _GIB
    axes.axvline(chip, color=INK, linewidth=1.2, linestyle="--", label="memory of the chip")
    axes.set(xlabel="GiB per chip", xlim=(0, chip * 1.05))
    _legend(figure, axes)
    return inline(figure, name, "Memory of a chip while it serves; the numbers are in the table below")
