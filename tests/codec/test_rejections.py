"""What a decoder must reject, each with a typed error that names tile and cause."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from w8a8sc_tool.codec import (
    CodecError,
    EncodedMatrix,
    IndexEntryError,
    MatrixDecoder,
    MatrixError,
    TileError,
    decode_matrix,
    encode_matrix,
)

from . import reference
from .weights import sparse

WEIGHT = sparse((192, 320), 0, 0.4, 3.0, 0.01)
SMALL = sparse((64, 64), 4, 0.6, 3.0, 0.02)
ODD = sparse((140, 40), 12, 0.5, 2.0, 0.02)


def encoded(weight: np.ndarray = WEIGHT, sparsity: str = "low") -> EncodedMatrix:
    return encode_matrix(weight, sparsity=sparsity)  # type: ignore[arg-type]


def decode(matrix: EncodedMatrix, **changes: object) -> np.ndarray:
    """Decode a matrix, by way of `MatrixDecoder.check` too, which has to say the same of it."""
    tensors = {"weight": matrix.weight, "index": matrix.index, "info": matrix.info} | changes
    options = {key: tensors.pop(key) for key in ("sparsity", "strict", "canonical") if key in tensors}
    arguments = tensors["weight"], tensors["index"], tensors["info"]
    try:
        result = decode_matrix(*arguments, **options)  # type: ignore[arg-type]
    except TileError as error:
        with pytest.raises(TileError) as checked:
            check(*arguments, **options)
        assert str(checked.value) == str(error)
        raise
    check(*arguments, **options)
    return result


def check(weight: Any, index: Any, info: Any, sparsity: Any = None, **rules: Any) -> None:
    decoder = MatrixDecoder(index, info, weight_bytes=weight.nbytes, sparsity=sparsity)
    for block in decoder.blocks():
        decoder.check(block, weight[block.first_byte : block.last_byte], **rules)


def entries(matrix: EncodedMatrix) -> np.ndarray:
    copied: np.ndarray = matrix.index.view(np.uint64).copy()
    return copied


# ------------------------------------------------------------------------------------------------ types and matrix


@pytest.mark.parametrize("key", ["weight", "index"])
@pytest.mark.parametrize("change", [lambda a: a.view(np.uint8), lambda a: a.reshape(1, -1), lambda a: a.tolist()])
def test_types_of_weight_and_index(key: str, change: object) -> None:
    matrix = encoded()
    with pytest.raises(MatrixError, match=key):
        decode(matrix, **{key: change(getattr(matrix, key))})  # type: ignore[operator]


@pytest.mark.parametrize("info", [np.array([8, 8, 320, 192], np.int64), np.array([8, 8, 320, 192, 1], np.int32), None])
def test_type_of_info(info: object) -> None:
    with pytest.raises(MatrixError, match=r"int64 \[5\]"):
        decode(encoded(), info=info)


@pytest.mark.parametrize(
    "info", [[8, 8, 320, 192, 0], [4, 8, 320, 192, 1], [8, 7, 320, 192, 1], [8, 8, 0, 192, 1], [8, 8, 320, -1, 1]]
)
def test_values_of_info(info: list[int]) -> None:
    with pytest.raises(MatrixError, match="info"):
        decode(encoded(), info=np.array(info, np.int64))


def test_sizes_are_checked_before_they_are_allocated() -> None:
    for huge in (2**62, 2**40):
        with pytest.raises(MatrixError):
            decode(encoded(), info=np.array([8, 8, huge, huge, 1], np.int64))
    with pytest.raises(MatrixError, match="index has"):
        decode(encoded(), info=np.array([8, 8, 30000, 30000, 1], np.int64))


def test_length_of_the_index() -> None:
    with pytest.raises(MatrixError, match="24 bytes"):
        decode(encoded(), index=encoded().index[:-8])


def test_bytes_left_over() -> None:
    matrix = encoded()
    with pytest.raises(MatrixError, match="its tiles"):
        decode(matrix, weight=np.concatenate([matrix.weight, np.zeros(128, np.int8)]))


def test_weight_too_short() -> None:
    matrix = encoded()
    with pytest.raises(IndexEntryError, match="tile 3: the payload ends beyond"):
        decode(matrix, weight=matrix.weight[:-128])


@pytest.mark.parametrize("bit", [*range(9, 15), *range(16, 32)])
def test_reserved_bits_of_the_index(bit: int) -> None:
    index = entries(encoded())
    index[2] |= np.uint64(1 << bit)
    with pytest.raises(IndexEntryError, match="tile 2: reserved"):
        decode(encoded(), index=index.view(np.int8))


def test_lengths_in_the_index() -> None:
    index = entries(encoded())
    index[1] &= np.uint64(~511 & 2**64 - 1)
    with pytest.raises(IndexEntryError, match="tile 1: .*length 0"):
        decode(encoded(), index=index.view(np.int8))
    index = entries(encoded())
    index[1] |= np.uint64(511)
    with pytest.raises(IndexEntryError, match="tile 1: .*longer than the tile"):
        decode(encoded(), index=index.view(np.int8))


def test_offsets_in_the_index() -> None:
    index = entries(encoded())
    index[2] += np.uint64(1 << 32)
    with pytest.raises(IndexEntryError, match="tile 2: .*does not begin"):
        decode(encoded(), index=index.view(np.int8))


def test_bypass_length() -> None:
    noise = np.random.default_rng(0).integers(-128, 128, (128, 256)).astype(np.int8)
    matrix = encoded(noise)
    index = entries(matrix)
    index[0] -= np.uint64(1)
    with pytest.raises(TileError, match="tile 0.*bypass"):
        decode(matrix, index=index.view(np.int8), weight=matrix.weight[:-128])


@pytest.mark.parametrize("shape", [(100, 256), (128, 250)])
def test_padding_outside_of_the_matrix(shape: tuple[int, int]) -> None:
    full = sparse((128, 256), 1, 0.4, 3.0, 0.01)
    info = np.array([8, 8, shape[1], shape[0], 1], np.int64)
    shape_n1 = -(-shape[0] // 16) * 16
    matrix = encoded(full[:shape_n1].copy())
    with pytest.raises(TileError, match="outside of the matrix"):
        decode(matrix, info=info)
    loose = decode(matrix, info=info, strict=False)
    np.testing.assert_array_equal(loose, full[: shape[0], : shape[1]])


def test_the_callers_sparsity() -> None:
    for mine, other in (("low", "high"), ("high", "low")):
        with pytest.raises(TileError, match="tile 0.*other sparsity"):
            decode(encoded(sparsity=mine), sparsity=other)
        decode(encoded(sparsity=mine))
    with pytest.raises(ValueError, match="sparsity"):
        decode(encoded(), sparsity="medium")


# --------------------------------------------------------------------------------------------------------- the tile


class Tile:
    """A matrix of one tile, taken apart into its streams."""

    def __init__(self, high: bool = False, weight: np.ndarray | None = None) -> None:
        self.high = high
        self.weight = sparse((128, 256), 9, 0.4, 3.0, 0.01) if weight is None else weight
        matrix = encoded(self.weight, "high" if high else "low")
        assert int(entries(matrix)[0]) >> 15 & 1
        self.info = matrix.info
        payload = matrix.weight.tobytes()
        self.streams = [
            bytearray(b"".join(payload[i + 32 * e : i + 32 * e + 32] for i in range(0, len(payload), 128)))
            for e in range(4)
        ]

    def decode(self, pad: int = 0, *, canonical: bool = False) -> np.ndarray:
        payload = reference.weave([bytes(stream) + bytes(pad) for stream in self.streams])
        index = np.array([len(payload) // 128 | 1 << 15], np.uint64).view(np.int8)
        return decode_matrix(np.frombuffer(payload, np.int8), index, self.info, canonical=canonical)

    def replace_stream(self, engine: int, packets: list[str], tail: bytes = b"") -> None:
        """Packets as strings of 64 bits, first bit first, behind the header as it is."""
        body = b"".join(int(p.ljust(64, "0")[::-1], 2).to_bytes(8, "little") for p in packets) + tail
        length = max(len(stream) for stream in self.streams)
        self.streams[engine] = (self.streams[engine][:40] + body).ljust(length, b"\0")

    def rejects(self, cause: str, pad: int = 0) -> None:
        with pytest.raises(TileError, match=cause) as error:
            self.decode(pad)
        assert error.value.tile == 0
        assert error.value.engine in range(4)


def test_taking_apart_and_joining_is_sound() -> None:
    for high in (False, True):
        tile = Tile(high)
        np.testing.assert_array_equal(tile.decode(canonical=True), tile.weight)


@pytest.mark.parametrize("high", [False, True])
def test_first_header_byte(high: bool) -> None:
    tile = Tile(high)
    for stream in tile.streams:
        stream[0] = 0xA9
    tile.rejects("neither A8")
    tile = Tile(high)
    tile.streams[2][0] ^= 1
    tile.rejects("headers of the four engines differ")


@pytest.mark.parametrize("length", [0, 63, 65, 255])
def test_length_in_the_header(length: int) -> None:
    tile = Tile()
    for stream in tile.streams:
        stream[1] = length
    tile.rejects("length in the stream header")


def test_reserved_header_bytes_of_high_mode() -> None:
    for byte in (2, 3):
        tile = Tile(high=True)
        for stream in tile.streams:
            stream[byte] = 1
        tile.rejects("bytes 2 and 3")


@pytest.mark.parametrize("high", [False, True])
def test_repeated_dictionary_entries(high: bool) -> None:
    tile = Tile(high)
    for stream in tile.streams:
        stream[39] = stream[38]
    tile.rejects("names a byte twice")


@pytest.mark.parametrize("position", [1, 2, 3, *range(6, 40)])
def test_headers_must_agree(position: int) -> None:
    tile = Tile()
    tile.streams[3][position] ^= 0x40
    tile.rejects("differ")


@pytest.mark.parametrize("position", [4, 5])
def test_checksum(position: int) -> None:
    tile = Tile()
    tile.streams[1][position] ^= 1
    tile.rejects("checksum")


def test_stream_that_ends_early() -> None:
    tile = Tile()
    tile.streams = [stream[: len(stream) // 2 // 32 * 32] for stream in tile.streams]
    tile.rejects("ends before it has yielded")


def test_end_mark_that_comes_early() -> None:
    tile = Tile()
    tile.replace_stream(0, [reference.bits(503, 9)])
    tile.rejects("end mark comes before")


def test_run_beyond_the_packets_window() -> None:
    tile = Tile(high=True)
    tile.replace_stream(1, [reference.bits(5, 6) * 8])  # 72 bytes
    tile.rejects("a run goes beyond")


def test_run_beyond_the_tile() -> None:
    tile = Tile(weight=np.zeros((16, 32), np.int8))
    pairs = reference.bits(4, 3)
    # 127 bytes in six packets of 42 bits at most, then a pair where one byte is left.
    packets = [(pairs * 21).ljust(64, "1")] * 3 + [reference.bits(0, 3) + pairs]
    tile.replace_stream(0, packets)
    tile.rejects("a run goes beyond")


def test_code_that_does_not_exist() -> None:
    tile = Tile()
    tile.replace_stream(2, [(reference.bits(0, 3) + reference.bits(247, 9)).ljust(64, "1")])
    tile.rejects("a code that does not exist")


def test_packet_tail() -> None:
    tile = Tile()
    # 60 bits of codes; the four bits behind them are neither a code nor all ones.
    tile.replace_stream(0, [reference.bits(0, 3) * 20 + "1110"])
    tile.rejects("unused end of a packet")
    tile = Tile(high=True)
    # 64 bytes, then something other than zeros.
    tile.replace_stream(0, [(reference.bits(5, 6) * 7 + reference.bits(0, 3)).ljust(63, "0") + "1"])
    tile.rejects("unused end of a packet")


def test_missing_end_mark() -> None:
    tile = Tile(weight=np.zeros((16, 32), np.int8))
    packets = [(reference.bits(4, 3) * 21).ljust(64, "1")] * 3 + [reference.bits(4, 3)]
    tile.replace_stream(0, packets)
    tile.rejects("end mark is missing")


def test_bytes_behind_the_end_mark() -> None:
    tile = Tile()
    tile.streams[0][-1] = 1
    with pytest.raises(TileError, match="behind the end mark|end mark is missing"):
        tile.decode()


def test_payload_longer_than_its_streams() -> None:
    Tile().rejects("longer than its longest stream", pad=32)


def test_not_errors_unless_canonical() -> None:
    """An escape for a byte of the dictionary is readable, but no encoder would write it."""
    share = bytes([1]) + bytes(127)
    weight = np.frombuffer(b"".join(share[i : i + 64] for i in (0, 64) for _ in range(4)), np.int8).reshape(16, 32)
    tile = Tile(weight=weight.copy())
    dictionary = reference.dictionary_of(share * 4, 36)
    codes = "1111" + f"{1:08b}" + reference.bits(0, 3) + reference.bits(4, 3) * 63
    packets = [codes[:60].ljust(64, "1"), codes[60:123].ljust(64, "1"), codes[123:186].ljust(64, "1")]
    rest = codes[186:]
    assert dictionary[1] == 1 and len(rest) + 9 <= 64
    tile.replace_stream(0, [*packets, rest + reference.bits(503, 9)])
    np.testing.assert_array_equal(tile.decode(), weight)
    with pytest.raises(TileError, match="an encoder would not have written"):
        tile.decode(canonical=True)


# ------------------------------------------------------------------------------------------------------ any damage


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["low", "high"]), st.data())
def test_damage_is_a_codec_error_or_goes_unnoticed(sparsity: str, data: st.DataObject) -> None:
    """Detection is not complete; what matters is that nothing else happens: no other exception, no hang."""
    matrix = encoded(sparsity=sparsity)
    weight, index = matrix.weight.copy(), matrix.index.copy()
    for _ in range(data.draw(st.integers(1, 4))):
        target = weight if data.draw(st.integers(0, 9)) else index
        target[data.draw(st.integers(0, len(target) - 1))] ^= np.int8(data.draw(st.integers(-128, 127)))
    try:
        decoded = decode(matrix, weight=weight, index=index, sparsity=sparsity, canonical=data.draw(st.booleans()))
    except CodecError:
        return
    assert decoded.shape == WEIGHT.shape


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["low", "high"]), st.booleans(), st.data())
def test_damage_is_rejected_as_the_plain_decoder_does(sparsity: str, strict: bool, data: st.DataObject) -> None:
    """Both accept the same tensors, and make the same of them: docs/format.md, section 13, is what the kernels do."""
    matrix = encoded(ODD, sparsity)
    weight, index, info = bytearray(matrix.weight), bytearray(matrix.index), matrix.info.tolist()
    for _ in range(data.draw(st.integers(1, 2))):
        target = weight if data.draw(st.integers(0, 9)) else index
        target[data.draw(st.integers(0, len(target) - 1))] ^= data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):  # one that does not matter unless the checksum does not
        info[3] -= data.draw(st.integers(0, 2))
    try:
        expected = reference.decode(bytes(weight), bytes(index), info, high=sparsity == "high", strict=strict)
    except reference.Rejected:
        expected = None
    tensors = {"weight": np.frombuffer(weight, np.int8), "index": np.frombuffer(index, np.int8)}
    try:
        decoded = decode(matrix, **tensors, info=np.array(info, np.int64), sparsity=sparsity, strict=strict)
    except CodecError:
        assert expected is None
    else:
        assert expected is not None
        np.testing.assert_array_equal(decoded, expected)


PACKETS = st.one_of(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**63 - 1).map(lambda bits: bits | 1 << 63),
    # Sparse, dense, with long ends of ones and of zeros: what full packets and complete windows look like.
    st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 63)).map(lambda p: p[0] & ((1 << p[1]) - 1)),
    st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 63)).map(lambda p: p[0] | (1 << 64) - (1 << p[1])),
    st.lists(st.sampled_from(["000", "001", "010", "011", "101", "110", "101001", "1111"]), min_size=8).map(
        lambda codes: int("".join(codes)[:64].ljust(64, "0")[::-1], 2)
    ),
)


@settings(max_examples=800, deadline=None)
@given(st.booleans(), st.integers(0, 3), st.integers(0, 1000), st.lists(PACKETS, min_size=1, max_size=3))
def test_any_packet_is_decoded_as_the_plain_decoder_does(high: bool, engine: int, start: int, words: list[int]) -> None:
    """The kernels decode several codes at once and four engines at a time; that changes the meaning of no packet."""
    tile = Tile(high, SMALL)
    stream = tile.streams[engine]
    packets = (len(stream) - 40) // 8
    begin = 40 + 8 * (start % max(1, packets - len(words)))
    for number, word in enumerate(words):
        stream[begin + 8 * number : begin + 8 * number + 8] = word.to_bytes(8, "little")
    agree(tile, engine)


def agree(tile: Tile, engine: int) -> bytes | None:
    """Check that kernel and plain decoder say the same of a stream, whose checksum is set to what it decodes to."""
    stream = tile.streams[engine]
    expected = None
    for _ in range(2):  # the second time with the checksum of what came of the first
        try:
            expected = reference.decode_stream(bytes(stream), 1024, tile.high)
        except reference.Rejected as error:
            if error.share is None:
                break
            stream[4:6] = reference.checksum(error.share)
    try:
        decoded = tile.decode()
    except TileError as error:
        assert expected is None or error.cause == "the payload is longer than its longest stream needs"
    else:
        assert reference.deal(reference.tiles_of(decoded)[0][0])[engine] == expected
    return expected


@settings(max_examples=400, deadline=None)
@given(st.booleans(), st.integers(0, 3), st.integers(0, 2**32))
def test_streams_that_no_encoder_writes(high: bool, engine: int, seed: int) -> None:
    """Codes chosen at random are valid too, whatever is best: short runs, escapes for anything, packets not filled."""
    random = np.random.default_rng(seed)
    tile = Tile(high, SMALL)
    packets, total = [], 0
    codes = [(reference.bits(*code), n) for n, code in (reference.HIGH_RUNS if high else reference.LOW_RUNS)]
    codes += [(reference.bits(*code), 1) for code in (reference.HIGH_CODES if high else reference.LOW_CODES)]
    codes += [("1111" + f"{byte:08b}", 1) for byte in range(256)]
    weights = 2.0 ** -np.minimum([len(code) for code, _ in codes], random.integers(10, 14))
    weights /= weights.sum()
    while total < 1024:
        packet, produced = "", 0
        while total + produced < 1024 and produced < 64:
            code, count = codes[random.choice(len(codes), p=weights)]
            if produced + count > 64 or total + produced + count > 1024:
                code, count = "000", 1
            if len(packet) + len(code) > 64:
                if 64 - len(packet) < 12:
                    break
                code, count = "000", 1
            packet += code
            produced += count
        total += produced
        if total == 1024:
            break
        packets.append(packet.ljust(64, "0" if produced == 64 else "1"))
    if len(packet) <= 55:
        tile.replace_stream(engine, [*packets, packet + reference.bits(503, 9)])
    else:
        tile.replace_stream(engine, [*packets, packet.ljust(64, "1")], b"\xf7\x01")
    assume(max(map(len, tile.streams)) <= 1024)
    for other in tile.streams:
        other.extend(bytes(max(map(len, tile.streams)) - len(other)))
    assert agree(tile, engine) is not None


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 256), st.booleans())
def test_random_bytes_as_a_tile(seed: int, units: int, plausible: bool) -> None:
    random = np.random.default_rng(seed)
    payload = random.integers(-128, 128, 128 * units).astype(np.int8)
    if plausible:  # a header that is accepted, and noise behind it
        good = Tile()
        for engine in range(4):
            head = bytes(good.streams[engine][:64])
            payload[32 * engine : 32 * engine + 32] = np.frombuffer(head[:32], np.int8)
            if units > 1:
                payload[128 + 32 * engine : 128 + 32 * engine + 8] = np.frombuffer(head[32:40], np.int8)
    index = np.array([units | 1 << 15], np.uint64).view(np.int8)
    with pytest.raises(TileError):
        decode_matrix(payload, index, np.array([8, 8, 256, 128, 1], np.int64))


def test_errors_travel_between_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(TileError("cause", tile=3, engine=1)))
    assert (type(error), str(error)) == (TileError, "tile 3, engine 1: cause")


def test_a_block_of_the_wrong_size_is_refused() -> None:
    matrix = encoded()
    decoder = MatrixDecoder(matrix.index, matrix.info, weight_bytes=matrix.weight.nbytes)
    block = next(decoder.blocks())
    with pytest.raises(ValueError, match="block's size"):
        decoder.decode(block, matrix.weight[:-128], np.empty((192, 320), np.int8))
