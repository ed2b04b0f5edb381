"""The bar in a terminal. tqdm takes a while to import, so this is imported only where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from tqdm import tqdm

from ..io.amounts import size
from .meter import Meter

_SMALLEST_BAR: Final = 4


class Bar:
    """A bar in the last line of a terminal, as wide as it is, with as much beside it as there is room for."""

    def __init__(self, stream: Any, say: Callable[[str], None]) -> None:
        """stream: does not fail."""
        self._stream = stream
        self._say = say
        self._bar: _Tqdm | None = None

    def begin(self, meter: Meter) -> None:
        options: dict[str, Any] = {"leave": False, "dynamic_ncols": True, "miniters": 1}
        self._bar = _Tqdm(meter, total=max(1, meter.total), file=self._stream, **options)

    def stage(self, meter: Meter) -> None:
        if self._bar is not None:
            self._bar.refresh()

    def advance(self, meter: Meter) -> None:
        if self._bar is not None:
            self._bar.update(min(meter.done, meter.total) - self._bar.n)

    def end(self, meter: Meter) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        self._say(line)
        if self._bar is not None:
            self._bar.refresh()


class _Tqdm(tqdm):  # type: ignore[type-arg]
    """Tqdm's bar, with texts of ours."""

    monitor_interval = 0  # no thread of its own: every stage and piece of work is shown when it comes

    def __init__(self, meter: Meter, **options: Any) -> None:
        self._meter = meter
        super().__init__(**options)

    @property
    def format_dict(self) -> Any:
        values = super().format_dict
        left, right, bar = _layout(self._meter, values["ncols"] or 80)
        # Values, not parts of the format: names may have braces.
        texts = {"left": left, "right": right}
        return {**values, **texts, "bar_format": f"{{left}}{'|{bar}|' if bar else ''}{{right}}"}


def _layout(meter: Meter, columns: int) -> tuple[str, str, bool]:
    """The texts to the left and right of the bar, and whether there is room for one."""
    left = f"{meter.stage} {meter.share:4.0%} "
    room = columns - 1 - len(left)  # a full last column makes some terminals begin a new line
    for right in _right(meter):
        if len(right) + 2 + _SMALLEST_BAR <= room:
            return left, right, True
        if right and len(right) <= room:
            return left, right.lstrip(), False
    return left[: max(0, columns - 1)], "", False


def _right(meter: Meter) -> Iterator[str]:
    """From everything to nothing."""
    texts = meter.texts()
    amounts = f"{size(meter.done)} of {size(meter.total)}"
    yield " " + ", ".join([amounts, *texts.values()])
    for dropped in ("ratio", "rate"):
        with suppress(KeyError):
            del texts[dropped]
            yield " " + ", ".join([amounts, *texts.values()])
    yield f" {texts.get('left', amounts)}"
    yield ""
