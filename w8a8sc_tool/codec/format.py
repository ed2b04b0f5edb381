"""The format's constants and codes. docs/format.md says what each means and how it is known.

Fractals and tiles: sections 3 and 4. Engines, payload unit: 5 and 12. Dictionary sizes: 6. Codes: 7. Packets: 8.
Header: 9.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Sparsity = Literal["low", "high"]

CODEC_VERSION: Final = 1  # changes when the same weights would be coded to other bytes

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

# An index entry, a word of 64 bits (section 12).
INDEX_ENTRY_BYTES: Final = 8
LENGTH_BITS: Final = 0x1FF  # the payload's length
COMPRESSED: Final = 1 << 15  # whether the tile is coded
OFFSET_SHIFT: Final = 32  # the upper half: where the payload begins
RESERVED_BITS: Final = (1 << OFFSET_SHIFT) - 1 & ~(LENGTH_BITS | COMPRESSED)

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
