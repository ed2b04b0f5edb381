"""Damaged tiles that get as far into the decoder as they can: their checksums are set to what they decode to."""

from __future__ import annotations

import numpy as np

from w8a8sc_tool.codec import CodecError, EncodedMatrix, MatrixDecoder, encode_matrix
from w8a8sc_tool.codec.format import COMPRESSED, ENGINES, PACKET_BYTES, PAYLOAD_UNIT, STREAM_UNIT
from w8a8sc_tool.codec.shares import SHARE_STRIDE

from .weights import runs, sparse

Outcome = tuple[str, np.ndarray]


def coded_tiles(seed: int) -> list[EncodedMatrix]:
    """Matrices of one coded tile, low-sparse and high-sparse: wide, sparse, with runs, of one value, small."""
    full = (128, 256)
    weights = [sparse(full, seed, zeros, sigma, 0.01) for zeros, sigma in ((0.4, 3), (0.9, 3), (0, 0.7), (0, 4))]
    weights += [runs(full, seed, mean) for mean in (3, 10, 70)]
    weights += [sparse(shape, seed, 0.5, 3.0, 0.02) for shape in ((16, 32), (32, 64), (112, 224))]
    weights += [np.full(full, 5, np.int8)]
    tiles = [encode_matrix(weight, sparsity=sparsity) for weight in weights for sparsity in ("low", "high")]
    return [tile for tile in tiles if int(tile.index.view(np.uint64)[0]) & COMPRESSED]


def damaged(payload: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Bits flipped, anywhere or near the end; a packet replaced, or by another one of the tile."""
    out: np.ndarray = payload.copy()
    data = out.view(np.uint8)
    packets = data.reshape(-1, PACKET_BYTES)
    way = int(chance.integers(5))
    if way < 3:
        end = min(len(data), 512) if way == 2 else len(data)
        for position in len(data) - 1 - chance.integers(0, end, int(chance.choice([1, 1, 1, 2, 3, 20]))):
            data[position] ^= 1 << int(chance.integers(8))
    elif way == 3:
        same = np.full(PACKET_BYTES, chance.choice([0x00, 0xFF, 0x24, 0x92]), np.uint8)
        packets[chance.integers(len(packets))] = (
            same if chance.random() < 0.5 else chance.integers(0, 256, PACKET_BYTES)
        )
    else:
        to, source = chance.integers(len(packets), size=2)
        packets[to] = packets[source]
    return out


def decoded(tile: EncodedMatrix, payload: np.ndarray, *, plain: bool) -> Outcome:
    """The error message, empty if there is none, and what was decoded."""
    return _decoded(tile, payload, plain)[:2]


def _decoded(tile: EncodedMatrix, payload: np.ndarray, plain: bool) -> tuple[str, np.ndarray, MatrixDecoder]:
    decoder = MatrixDecoder(tile.index, tile.info, weight_bytes=payload.nbytes, plain=plain)
    out = np.zeros((decoder.tiling.n, decoder.tiling.k), np.int8)
    try:
        decoder.decode(decoder.block(0, 1), payload, out)
    except CodecError as error:
        return str(error), out, decoder
    return "", out, decoder


def repair_checksums(tile: EncodedMatrix, payload: np.ndarray) -> None:
    """Set the checksums of all engines that decode to what they decode to."""
    data = payload.view(np.uint8)
    for _ in range(ENGINES):
        error, _, decoder = _decoded(tile, payload, True)
        if "checksum" not in error:
            return
        engine = int(error.partition("engine ")[2].partition(":")[0])
        share = decoder._scratch[engine * SHARE_STRIDE :][: int(data[1]) * PAYLOAD_UNIT]
        data[engine * STREAM_UNIT + 4] = np.bitwise_xor.reduce(share[1::2])
        data[engine * STREAM_UNIT + 5] = np.bitwise_xor.reduce(share[0::2])
