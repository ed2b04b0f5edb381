"""The format's constants and code tables. docs/format.md says what each means and how it is known.

Fractals and tiles: sections 3 and 4. Engines, payload unit: 5 and 12. Dictionary sizes: 6. Codes: 7. Packets: 8.
Header: 9.
"""

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
STREAM_UNIT: Final = 32  # bytes: streams are padded to these, and woven
PACKET_BYTES: Final = 8
PACKET_BITS: Final = 8 * PACKET_BYTES
PACKET_WINDOW: Final = 64  # input bytes that one packet may encode
PAYLOAD_UNIT: Final = 128  # lengths and offsets in the index count these
INDEX_ENTRY_BYTES: Final = 8
LENGTH_BITS: Final = 0x1FF  # of an index entry: the payload's length
COMPRESSED: Final = 1 << 15  # and whether the tile is coded

END_MARK: Final = 503
END_BITS: Final = 9
ESCAPE: Final = 15  # 4 bits, before the 8 bits of a byte outside the dictionary
LONGEST_CODE: Final = 12  # bits: an escape and its byte


class Mode(NamedTuple):
    """The codes of one sparsity (docs/format.md, section 7): W8A8SC uses low, W16A16SC uses high.

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

GROUP_UNITS: Final = LONGEST_CODE // 3  # units of 3 bits that the decoder looks at in one step


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


def whole_codes(mode: Mode) -> npt.NDArray[np.int64]:
    """int64 [m, 4]: value, units of 3 bits, dictionary rank, bytes; for every code but escape and end mark."""
    codes = [(value, bits // 3, rank, 1) for rank, (value, bits) in enumerate(mode.codes, 1)]
    codes += [(value, bits // 3, 0, count) for count, (value, bits) in mode.runs.items()]
    return np.array(codes, np.int64)


def group_sizes(mode: Mode) -> npt.NDArray[np.uint16]:
    """uint16 [4096]: 256 * bytes emitted + bits used, of the codes that the decoder takes from 12 bits in one step.

    A group is as many whole codes as there are, with two exceptions in high-sparse mode: it does not end with codes of
    single common bytes, which is what the zeros behind a packet's 64 bytes look like; and bytes other than the common
    one come within its first 8. Size 0 is for the plain decoder to look at: the end mark, codes that do not exist, and
    twelve equal bits, which are what the end of a full packet looks like.
    """
    # By the number of bits looked at: sizes, and how far the bytes other than the common one reach.
    sizes = [np.zeros(8**units, np.uint16) for units in range(GROUP_UNITS + 1)]
    reach = [np.zeros(8**units, np.uint16) for units in range(GROUP_UNITS + 1)]
    for units in range(1, GROUP_UNITS + 1):
        for value, used, rank, count in whole_codes(mode).tolist():
            if used > units:
                continue
            rest, extent = sizes[units - used], reach[units - used]
            fits = (extent == 0) | (count + extent <= 8)
            alone = mode is HIGH and count == 1 and rank == 0  # counts only if something follows
            own_size = 256 * count + 3 * used
            taken = np.where(fits & (rest > 0), rest + np.uint16(own_size), 0 if alone else own_size)
            own = 1 if rank else 0
            sizes[units][value :: 8**used] = taken
            reach[units][value :: 8**used] = np.where(fits & (extent > 0), extent + count, own)
    whole = sizes[GROUP_UNITS]
    single, used = mode.runs[1]
    whole[single :: 1 << used] = np.where(whole[single :: 1 << used] == 0, 256 + used, whole[single :: 1 << used])
    whole[ESCAPE::16] = 256 + LONGEST_CODE
    whole[[0, -1]] = 0
    return whole
