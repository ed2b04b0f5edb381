"""The executor: eleven arguments, the same bytes as the codec, errors that say what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from w8a8sc_tool.backends.msmodelslim.executor import run
from w8a8sc_tool.codec import Sparsity, decode_matrix, encode_matrix
from w8a8sc_tool.errors import InputError, UsageError

from ...codec.weights import sparse


def fractals(weight: np.ndarray) -> np.ndarray:
    """A weight in the order in which msmodelslim writes it: [K1, N1, 16, 32]."""
    n1, k1 = -(-weight.shape[0] // 16), -(-weight.shape[1] // 32)
    padded = np.zeros((n1 * 16, k1 * 32), np.int8)
    padded[: weight.shape[0], : weight.shape[1]] = weight
    ordered: np.ndarray = padded.reshape(n1, 16, k1, 32).transpose(2, 0, 1, 3)
    return ordered


@pytest.mark.parametrize(("kind", "sparsity"), [("0", "low"), ("1", "high")])
@pytest.mark.parametrize("shape", [(128, 320), (192, 512), (100, 90)])
def test_files_hold_what_the_codec_makes(tmp_path: Path, kind: str, sparsity: Sparsity, shape: tuple[int, int]) -> None:
    weight = sparse(shape, 3, 0.4, 3.0, 0.01)
    nz = fractals(weight)
    nz.tofile(tmp_path / "in")
    names = [str(tmp_path / name) for name in ("in", "out", "index", "info")]
    run([str(nz.shape[0]), str(nz.shape[1]), "1", "1", "1", kind, "0", *names])
    padded = encode_matrix(
        np.ascontiguousarray(np.pad(weight, [(0, -weight.shape[0] % 16), (0, -weight.shape[1] % 32)])),
        sparsity=sparsity,
    )
    assert (tmp_path / "out").read_bytes() == padded.weight.tobytes()
    assert (tmp_path / "index").read_bytes() == padded.index.tobytes()
    assert np.fromfile(tmp_path / "info", np.uint32).tolist() == [8, 8, padded.weight.nbytes]
    info = np.array([8, 8, shape[1], shape[0], 1], np.int64)
    decoded = decode_matrix(padded.weight, padded.index, info)
    np.testing.assert_array_equal(decoded, weight)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["1", "2"], UsageError, "2 arguments, 11 are wanted"),
        (["x", "8", "1", "1", "1", "0", "0", "i", "o", "x", "y"], UsageError, "K1 x"),
        (["1", "8", "1", "1", "1", "7", "0", "i", "o", "x", "y"], UsageError, "TYPE 7"),
        (["1", "8", "1", "1", "1", "0", "0", "/none", "o", "x", "y"], InputError, "no such file"),
    ],
)
def test_mistakes(arguments: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run(arguments)


def test_a_file_of_another_size(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"123")
    with pytest.raises(InputError, match="3 bytes are not 1 x 8 fractals"):
        run(["1", "8", "1", "1", "1", "0", "0", str(tmp_path / "in"), *["/dev/null"] * 3])


def test_as_a_program() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "w8a8sc_tool.backends.msmodelslim.executor"], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "11 are wanted" in result.stderr
