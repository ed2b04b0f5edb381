"""What follows from the codes of format.py: tables by which packets are coded and decoded."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .format import END_MARK, ESCAPE, HIGH, LONGEST_CODE, Mode

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
