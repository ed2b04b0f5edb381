"""Fixed vectors: two made by the vendor's tool, the others by two independent encoders."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from w8a8sc_tool.codec import decode_matrix, encode_matrix

from .weights import formula, lcg


def quad() -> np.ndarray:
    n, k = formula(192, 288)
    return ((7 * n + k * k) % 23 - 11).astype(np.int8)


def sparse_quad() -> np.ndarray:
    n, k = formula(192, 288)
    return np.where((5 * n + k) % 4 == 0, quad(), 0).astype(np.int8)


def mixed() -> np.ndarray:
    n, k = formula(128, 512)
    x = lcg(512 * n + k)
    left = np.where(x // 65536 % 4 == 0, x // 1024 % 15 - 7, 0)
    return np.where(k < 256, left, x // 4096 % 256 - 128).astype(np.int8)


def escapes() -> np.ndarray:
    n, k = formula(160, 320)
    x = lcg(320 * n + k)
    return np.where(x // 65536 % 8 == 0, x // 256 % 256 - 128, 0).astype(np.int8)


VECTORS = {
    "vendor, low": (
        *(np.zeros((128, 320), np.int8), "low", 8320),
        "3a96289bf3511f36a1246f85bba9feb5e740ec8cb1fd08994eab9eaaccee14a6",
        "2b0bc7cc027b1bf178945e9f20705558fbec666360fe8b7e0a5846d62ceb62d4",
    ),
    "vendor, high": (
        *(np.zeros((64, 128), np.int8), "high", 1280),
        "df7c035a30e4ca22e64075a2f5b47cbc397031be1310a16c37b6cca9ffdd3cbd",
        "527389b0d48fec33ec7665c49bd6cb150d8e80afbe58715bf87fd8d3aa9bc415",
    ),
    "quad": (
        *(quad(), "low", 55040),
        "c6ed44951fa9e3848ca056e2c6c6f3769239d745f32f29896e5af5b8c4cc0298",
        "5ecde2a9b827a20f420c8064d131b41465b65b1b8907c39d8268b8112ee672da",
    ),
    "sparse quad": (
        *(sparse_quad(), "high", 22784),
        "b1bd43d118cf712a4fc5fed446f1ef55f1afcebb17dd8320096d74de29a0073d",
        "5f4f7767f5c64dcf3d0a5d103fd27d7bb39a7352ed446b2af0db353a580d9510",
    ),
    "mixed, low": (
        *(mixed(), "low", 43648),
        "5415e2d3600de64710b9adac6b67db063d6a2fd3ece8c839727fae75a0da2e30",
        "8e33b57aa0375930b674fc63a5622ababc34deee4a76d56163fa797f8db49f89",
    ),
    "mixed, high": (
        *(mixed(), "high", 42112),
        "a40fa290a28ee46d7911ee66c0edea284fbc5d1f97b78af37abb183b5967de54",
        "b1751240b9ebf1cbbe16c23504f99d567ac677a80815b91edeb6b205bc78ccc6",
    ),
    "escapes": (
        *(escapes(), "low", 30208),
        "de2e295f3bec478f69ae35d44f2b078e5f4c054da4bb7e63ada2fb496690675e",
        "812162dc59a455a6b8a4475b938b1f6b5694db101b22102acde3a642c1d81aca",
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_bytes_of_known_vectors(name: str) -> None:
    weight, sparsity, size, weight_hash, index_hash = VECTORS[name]
    encoded = encode_matrix(weight, sparsity=sparsity)
    assert encoded.weight.nbytes == size
    assert hashlib.sha256(encoded.weight.tobytes()).hexdigest() == weight_hash
    assert hashlib.sha256(encoded.index.tobytes()).hexdigest() == index_hash
    assert encoded.info.tolist() == [8, 8, weight.shape[1], weight.shape[0], 1]
    decoded = decode_matrix(encoded.weight, encoded.index, encoded.info, sparsity=sparsity, canonical=True)
    np.testing.assert_array_equal(decoded, weight)


def test_index_entries_of_the_vendors_vectors() -> None:
    assert encode_matrix(np.zeros((128, 320), np.int8)).index.tobytes().hex() == "33800000000000000e80000033000000"
    high = encode_matrix(np.zeros((64, 128), np.int8), sparsity="high")
    assert high.index.tobytes().hex() == "0a80000000000000"


def test_mixed_has_one_coded_and_one_bypass_tile() -> None:
    entries = encode_matrix(mixed()).index.view(np.uint64)
    assert [int(entry) >> 15 & 1 for entry in entries] == [1, 0]
