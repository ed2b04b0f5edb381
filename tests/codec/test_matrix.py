"""encode_matrix and decode_matrix: every matrix survives, and the bytes are those of the plain encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w8a8sc_tool.codec import MatrixDecoder, MatrixEncoder, TooLargeError, decode_matrix, encode_matrix
from w8a8sc_tool.codec.format import Sparsity

from . import reference
from .weights import matrices, runs, sparse

SPARSITIES = st.sampled_from(["low", "high"])


@settings(max_examples=300, deadline=None)
@given(matrices(), SPARSITIES, st.sampled_from(["tile", "matrix"]))
def test_round_trip(weight: np.ndarray, sparsity: Sparsity, dictionary: str) -> None:
    try:
        encoded = encode_matrix(weight, sparsity=sparsity, dictionary=dictionary)  # type: ignore[arg-type]
    except TooLargeError:
        assert weight.shape[0] > 128
        return
    assert encoded.weight.nbytes % 128 == 0
    decoded = decode_matrix(encoded.weight, encoded.index, encoded.info, sparsity=sparsity, canonical=True)
    np.testing.assert_array_equal(decoded, weight)


@settings(max_examples=40, deadline=None)
@given(matrices(), SPARSITIES, st.booleans())
def test_same_bytes_as_the_plain_encoder(weight: np.ndarray, sparsity: Sparsity, matrix: bool) -> None:
    expected, index = reference.encode(weight, high=sparsity == "high", matrix=matrix)
    try:
        encoded = encode_matrix(weight, sparsity=sparsity, dictionary="matrix" if matrix else "tile")
    except TooLargeError:
        assert len(expected) > 512 * -(-weight.shape[0] // 16) * -(-weight.shape[1] // 32)
        return
    assert encoded.weight.tobytes() == expected
    assert encoded.index.tobytes() == index


@pytest.mark.parametrize("sparsity", ["low", "high"])
@pytest.mark.parametrize("mean", [1, 3, 20, 200])
def test_runs_are_coded_as_by_the_plain_encoder(sparsity: Sparsity, mean: int) -> None:
    weight = runs((128, 512), mean, mean)
    expected, _ = reference.encode(weight, high=sparsity == "high")
    assert encode_matrix(weight, sparsity=sparsity).weight.tobytes() == expected


def test_an_empty_wide_scope_does_not_matter() -> None:
    # All tiles narrow: the dictionary of the full ones is counted over nothing.
    weight = sparse((64, 96), 5, 0.3, 3.0, 0.05)
    expected, _ = reference.encode(weight, matrix=True)
    assert encode_matrix(weight, dictionary="matrix").weight.tobytes() == expected


@pytest.mark.parametrize("block_bytes", [1, 40_000, 1 << 30])
@pytest.mark.parametrize("shape", [(128, 256), (300, 520), (129, 64), (16, 1000)])
def test_blocks_of_any_size_give_the_same_bytes(shape: tuple[int, int], block_bytes: int) -> None:
    weight = sparse(shape, 1, 0.3, 3.0, 0.01)
    whole = encode_matrix(weight)
    encoder = MatrixEncoder(*shape)
    for first, last in encoder.blocks(block_bytes):
        encoder.feed(weight[first:last])
    pieces, index, info = encoder.finish()
    assert np.concatenate(pieces).tobytes() == whole.weight.tobytes()
    assert index.tobytes() == whole.index.tobytes()
    decoder = MatrixDecoder(index, info, weight_bytes=whole.weight.nbytes)
    out = np.empty(shape, np.int8)
    for block in decoder.blocks(block_bytes):
        payload = whole.weight[block.first_byte : block.last_byte]
        decoder.decode(block, payload, out[block.first_row : block.last_row])
    np.testing.assert_array_equal(out, weight)


def test_a_cut_along_k_needs_no_copy() -> None:
    weight = sparse((256, 1024), 2, 0.3, 3.0, 0.01)
    encoder = MatrixEncoder(256, 512)
    for first, last in encoder.blocks():
        encoder.feed(weight[first:last, 512:])
    pieces, _, _ = encoder.finish()
    cut = encode_matrix(np.ascontiguousarray(weight[:, 512:]))
    assert np.concatenate(pieces).tobytes() == cut.weight.tobytes()


def test_tiles_do_not_depend_on_their_neighbours() -> None:
    weight = sparse((256, 512), 3, 0.3, 3.0, 0.01)
    whole = encode_matrix(weight)
    parts = [encode_matrix(np.ascontiguousarray(weight[r : r + 128])).weight.tobytes() for r in (0, 128)]
    assert whole.weight.tobytes() == b"".join(parts)


def test_read_only_and_misaligned_arrays() -> None:
    weight = sparse((100, 300), 4, 0.3, 3.0, 0.01)
    expected = encode_matrix(weight)
    memory = b"x" + weight.tobytes()
    other = np.frombuffer(memory, np.int8, offset=1).reshape(weight.shape)
    assert not other.flags.writeable
    encoded = encode_matrix(other)
    assert encoded.weight.tobytes() == expected.weight.tobytes()
    weight_at_odd, index_at_odd = (
        np.frombuffer(b"x" + array.tobytes(), np.int8, offset=1) for array in (encoded.weight, encoded.index)
    )
    out = np.empty(weight.nbytes + 1, np.int8)[1:].reshape(weight.shape)
    assert decode_matrix(weight_at_odd, index_at_odd, encoded.info, out=out) is out
    np.testing.assert_array_equal(out, weight)


@pytest.mark.parametrize(
    ("weight", "error"),
    [
        (np.zeros((4, 4), np.uint8), TypeError),
        (np.zeros(4, np.int8), TypeError),
        ([[1]], TypeError),
        (np.zeros((4, 8), np.int8)[:, ::2], ValueError),
        (np.zeros((4, 8), np.int8).T, ValueError),
        (np.zeros((0, 8), np.int8), ValueError),
    ],
)
def test_what_is_not_such_a_matrix_is_refused(weight: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        encode_matrix(weight)  # type: ignore[arg-type]


def test_unknown_options_are_refused() -> None:
    weight = np.zeros((4, 4), np.int8)
    with pytest.raises(ValueError, match="sparsity"):
        encode_matrix(weight, sparsity="medium")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dictionary"):
        encode_matrix(weight, dictionary="model")  # type: ignore[arg-type]
    encoded = encode_matrix(weight)
    with pytest.raises(ValueError, match="out must be"):
        decode_matrix(encoded.weight, encoded.index, encoded.info, out=np.empty((4, 5), np.int8))
    locked = np.empty((4, 4), np.int8)
    locked.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        decode_matrix(encoded.weight, encoded.index, encoded.info, out=locked)


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.setflags(write=False)
    return array


@pytest.mark.parametrize(
    "out",
    [
        np.empty((16, 32), np.int16),
        np.empty((16, 64), np.int8)[:, ::2],
        np.empty((32, 16), np.int8).T,
        _read_only(np.empty((16, 32), np.int8)),
        np.empty((16, 31), np.int8),
    ],
    ids=["int16", "every other column", "columns first", "read only", "too small"],
)
def test_rows_are_decoded_only_into_memory_that_is_theirs(out: npt.NDArray[Any]) -> None:
    encoded = encode_matrix(np.zeros((16, 32), np.int8))
    decoder = MatrixDecoder(encoded.index, encoded.info, weight_bytes=encoded.weight.nbytes)
    (block,) = decoder.blocks()
    with pytest.raises(ValueError, match=r"out (must be writable int8|does not have)"):
        decoder.decode(block, encoded.weight, out)


@pytest.mark.parametrize("dictionary", [np.zeros(32, np.uint8), np.zeros(36, np.int64)], ids=["short", "int64"])
def test_a_dictionary_of_another_form_is_refused(dictionary: npt.NDArray[Any]) -> None:
    """It would be read beyond its end, or as other bytes."""
    with pytest.raises(ValueError, match=r"uint8 \[36\]"):
        MatrixEncoder(16, 32, sparsity="high").use_dictionaries(dictionary, dictionary)


def test_a_matrix_that_outgrows_its_consumers_is_refused() -> None:
    noise = np.random.default_rng(0).integers(-128, 128, (192, 256)).astype(np.int8)
    with pytest.raises(TooLargeError):
        encode_matrix(noise)  # 12 rows of fractals: the last tile overlaps and is stored raw
    assert encode_matrix(noise[:128].copy()).weight.nbytes == 128 * 256


def test_blocks_out_of_order_are_refused() -> None:
    encoder = MatrixEncoder(256, 256)
    with pytest.raises(ValueError, match="0 tiles were fed, 2"):
        encoder.finish()
    with pytest.raises(ValueError, match="block from row 0"):
        encoder.feed(np.zeros((100, 256), np.int8))
    with pytest.raises(ValueError, match="contiguous"):
        encoder.feed(np.zeros((128, 512), np.int8)[:, ::2])


def test_overlap_of_the_last_tile_is_not_read() -> None:
    """Positions that repeat the neighbour may hold anything: a decoder takes nothing from them."""
    weight = sparse((192, 256), 6, 0.3, 3.0, 0.01)
    other = weight.copy()
    other[64:128] = 5  # the rows that the last tile repeats
    encoded, changed = encode_matrix(weight), encode_matrix(other)
    lengths = [int(entry) & 511 for entry in encoded.index.view(np.uint64)]
    first = encoded.weight[: 128 * lengths[0]]
    last = changed.weight[128 * (int(changed.index.view(np.uint64)[0]) & 511) :]
    index = np.array(
        [encoded.index.view(np.uint64)[0], (len(last) // 128) | 1 << 15 | lengths[0] << 32], np.uint64
    ).view(np.int8)
    decoded = decode_matrix(np.concatenate([first, last]), index, encoded.info)
    np.testing.assert_array_equal(decoded, weight)
