"""The format's constants and code tables: docs/format.md says what each means and how it was established."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Sparsity = Literal["low", "high"]

FRACTAL_ROWS: Final = 16
FRACTAL_COLUMNS: Final = 32
FRACTAL_BYTES: Final = FRACTAL_ROWS * FRACTAL_COLUMNS
TILE_FRACTALS: Final = 8  # per side
TILE_ROWS: Final = TILE_FRACTALS * FRACTAL_ROWS
TILE_COLUMNS: Final = TILE_FRACTALS * FRACTAL_COLUMNS
TILE_BYTES: Final = TILE_ROWS * TILE_COLUMNS

ENGINES: Final = 4
HEADER_BYTES: Final = 40
PACKET_BYTES: Final = 8
PACKET_WINDOW: Final = 64  # input bytes that one packet may encode
PAYLOAD_UNIT: Final = 128  # lengths and offsets in the index count these
INDEX_ENTRY_BYTES: Final = 8

END_MARK: Final = 503  # 9 bits
ESCAPE: Final = 15  # 4 bits, before the 8 bits of a byte outside the dictionary


class Mode(NamedTuple):
    """The codes of one sparsity: W8A8SC uses low, W16A16SC uses high.

    `codes` holds (value, bits) for dictionary rank 1, 2, ...; `runs` holds (value, bits) by the number of common bytes
    that a code stands for.
    """

    name: Sparsity
    header: int
    dictionary_size: int
    codes: tuple[tuple[int, int], ...]
    runs: dict[int, tuple[int, int]]


_SIX = (37, 21, 53, 13, 45, 29, 61, 3, 35, 19, 51, 11, 43, 27, 59, 7, 39)
_NINE = (23, 279, 151, 407, 87, 343, 215, 471, 55, 311, 183, 439, 119, 375)

LOW: Final = Mode(
    name="low",
    header=0xA8,
    dictionary_size=36,
    codes=((2, 3), (6, 3), (1, 3), (5, 6), *((c, 6) for c in _SIX), *((c, 9) for c in _NINE)),
    runs={1: (0, 3), 2: (4, 3)},
)
HIGH: Final = Mode(
    name="high",
    header=0x88,
    dictionary_size=34,
    codes=((1, 3), *((c, 6) for c in _SIX), *((c, 9) for c in (*_NINE, 247))),
    runs={1: (0, 3), 2: (4, 3), 3: (2, 3), 4: (6, 3), 9: (5, 6)},
)
MODES: Final[dict[Sparsity, Mode]] = {"low": LOW, "high": HIGH}

# What the next 9 bits of a packet begin with.
INVALID: Final = 0
RANK: Final = 1  # argument: dictionary rank, 1 or more
RUN: Final = 2  # argument: number of common bytes
ESCAPED: Final = 3  # 12 bits in all
END: Final = 4


def escape_codes() -> npt.NDArray[np.uint16]:
    """uint16 [256]: the 12-bit code of every byte when it is outside the dictionary."""
    reversed_bits = [int(f"{byte:08b}"[::-1], 2) for byte in range(256)]
    return np.array([ESCAPE + 16 * value for value in reversed_bits], dtype=np.uint16)


def decoding_table(mode: Mode) -> npt.NDArray[np.uint8]:
    """uint8 [512, 3]: for the next 9 bits (first bit lowest) the kind of the first code, its argument, its bits."""
    table = np.zeros((512, 3), dtype=np.uint8)
    entries = [(value, bits, RANK, rank) for rank, (value, bits) in enumerate(mode.codes, 1)]
    entries += [(value, bits, RUN, count) for count, (value, bits) in mode.runs.items()]
    entries += [(ESCAPE, 4, ESCAPED, 0), (END_MARK, 9, END, 0)]
    for value, bits, kind, argument in entries:
        table[value :: 1 << bits] = (kind, argument, 12 if kind == ESCAPED else bits)
    return table


def group_table(mode: Mode) -> npt.NDArray[np.uint8]:
    """uint8 [512, 8]: all complete dictionary and run codes among the next 9 bits, as the decoder emits them.

    Columns 0 to 5 hold dictionary ranks (0 for a common byte), column 6 how many there are, column 7 the bits used.
    0 bits: the first code is an escape, the end mark or invalid. A group ends before a run that does not fit.
    """
    first = decoding_table(mode)
    table = np.zeros((512, 8), dtype=np.uint8)
    for start in range(512):
        ranks: list[int] = []
        used = 0
        while used < 9:
            kind, argument, bits = (int(value) for value in first[start >> used])
            new = [argument] if kind == RANK else [0] * argument if kind == RUN else None
            if new is None or used + bits > 9 or len(ranks) + len(new) > 6:
                break
            ranks += new
            used += bits
        table[start, : len(ranks)] = ranks
        table[start, 6:] = (len(ranks), used)
    return table
