"""`w8a8sc-executor`: a drop-in for the program that msmodelslim starts for each tensor, on the native codec.

msmodelslim calls it with eleven arguments: K1 N1 1 1 1 TYPE 0 IN OUT INDEX INFO. K1 and N1 count fractals of 32 columns
and 16 rows; TYPE is 0 for W8A8S (low-sparse) and 1 for W16A16S (high-sparse); IN is the weight in fractal order as raw
int8 [K1, N1, 16, 32]; OUT and INDEX receive int8, INFO uint32: tiling n, tiling k, compressed bytes. (Read from
msmodelslim 26.1.0, pytorch/weight_compression/compress_utils.py and compress_tools.py.)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import numpy as np

from ...codec import CodecError, encode_matrix
from ...codec.format import FRACTAL_BYTES, FRACTAL_COLUMNS, FRACTAL_ROWS, TILE_FRACTALS
from ...errors import InputError, UsageError, W8A8SCError
from ...io import files, reading

USAGE: Final = "w8a8sc-executor K1 N1 1 1 1 TYPE 0 IN OUT INDEX INFO"
_SPARSITY: Final = {"0": "low", "1": "high"}


def run(arguments: list[str]) -> None:
    """Compress one weight; raises UsageError or InputError."""
    if len(arguments) != 11:
        raise UsageError(f"{len(arguments)} arguments, 11 are wanted", remedy=USAGE)
    k1, n1, *_, sparsity, _, source, out, index, info = arguments
    if sparsity not in _SPARSITY or not (k1.isdecimal() and n1.isdecimal() and int(k1) and int(n1)):
        raise UsageError(f"K1 {k1}, N1 {n1} or TYPE {sparsity} makes no sense", remedy=USAGE)
    data = np.frombuffer(b"".join(reading.pieces(Path(source), 64 << 20)), np.int8)
    rows, columns = int(n1), int(k1)
    if data.nbytes != rows * columns * FRACTAL_BYTES:
        raise InputError(f"{data.nbytes} bytes are not {columns} x {rows} fractals", source)
    fractals = data.reshape(columns, rows, FRACTAL_ROWS, FRACTAL_COLUMNS)
    weight = np.ascontiguousarray(fractals.transpose(1, 2, 0, 3)).reshape(rows * FRACTAL_ROWS, -1)
    encoded = encode_matrix(weight, sparsity="high" if sparsity == "1" else "low")
    tiling = np.array([TILE_FRACTALS, TILE_FRACTALS, encoded.weight.nbytes], np.uint32)
    for path, content in ((out, encoded.weight), (index, encoded.index), (info, tiling)):
        files.write_plain(Path(path), content.tobytes())


def main() -> None:
    try:
        run(sys.argv[1:])
    except W8A8SCError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (CodecError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
