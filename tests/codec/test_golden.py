"""The vectors of docs/format.md, section 15: two made by the vendor's tool, the others by independent encoders."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from w8a8sc_tool.codec import CodecError, Sparsity, decode_matrix, encode_matrix

from . import reference
from .weights import formula, lcg

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
DOCUMENT = (ROOT / "docs" / "format.md").read_text()


def quad() -> np.ndarray:
    n, k = formula(192, 288)
    weight: np.ndarray = ((7 * n + k * k) % 23 - 11).astype(np.int8)
    return weight


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


# Name -> weight, sparsity, bytes of the compressed weight, SHA-256 of it and of the index.
VECTORS: dict[str, tuple[np.ndarray, Sparsity, int, str, str]] = {
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


def test_mixed_has_one_coded_and_one_bypass_tile() -> None:
    entries = encode_matrix(mixed()).index.view(np.uint64)
    assert [int(entry) >> 15 & 1 for entry in entries] == [1, 0]


def test_the_document_has_the_formulas_hashes() -> None:
    for _, _, size, weight_hash, index_hash in list(VECTORS.values())[2:]:
        assert f"| {size} | {weight_hash} {index_hash} |" in DOCUMENT


# --------------------------------------------------------------------------------------------------- the small files

FILES: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in json.loads((GOLDEN / "vectors.json").read_text())}
REJECTIONS: list[dict[str, Any]] = json.loads((GOLDEN / "rejections.json").read_text())


def tensors(name: str) -> tuple[bytes, bytes, list[int]]:
    entry = FILES[name]
    weight, index = ((GOLDEN / f"{name}.{tensor}").read_bytes() for tensor in ("weight", "index"))
    return weight, index, [8, 8, entry["k"], entry["n"], 1]


def matrix_of(name: str) -> np.ndarray:
    entry = FILES[name]
    data = bytes(entry["n"] * entry["k"]) if entry["input"] is None else (GOLDEN / entry["input"]).read_bytes()
    return np.frombuffer(data, np.int8).reshape(entry["n"], entry["k"])


@pytest.mark.parametrize("name", FILES)
def test_files(name: str) -> None:
    """The kernels and the plain encoder make them, both decoders read them, and the list and the document have them."""
    entry = FILES[name]
    weight, index, info = tensors(name)
    matrix = matrix_of(name)
    assert [hashlib.sha256(data).hexdigest() for data in (weight, index)] == [
        entry["weight_sha256"],
        entry["index_sha256"],
    ]
    encoded = encode_matrix(matrix, sparsity=entry["mode"])
    assert (encoded.weight.tobytes(), encoded.index.tobytes(), encoded.info.tolist()) == (weight, index, info)
    assert reference.encode(matrix, high=entry["mode"] == "high") == (weight, index)
    arrays = (np.frombuffer(weight, np.int8), np.frombuffer(index, np.int8), np.array(info, np.int64))
    np.testing.assert_array_equal(decode_matrix(*arrays, sparsity=entry["mode"], canonical=True), matrix)
    np.testing.assert_array_equal(reference.decode(weight, index, info, high=entry["mode"] == "high"), matrix)
    row = f"| `{name}` | {entry['source']} | {entry['mode']} [{entry['n']}, {entry['k']}] | {entry['weight_bytes']} |"
    assert len(weight) == entry["weight_bytes"] and f"{row} {entry['shows']} |" in DOCUMENT


def test_the_official_files_have_the_hashes_of_the_vendors_tool() -> None:
    for name, vector in (("official-low", VECTORS["vendor, low"]), ("official-high", VECTORS["vendor, high"])):
        assert (FILES[name]["weight_sha256"], FILES[name]["index_sha256"]) == vector[3:]


def test_what_the_files_show() -> None:
    """Each is at the edge that it is there for."""
    assert all((GOLDEN / f"{name}.weight").stat().st_size <= 10_000 for name in FILES)
    streams = {name: reference.unweave(tensors(name)[0]) for name in FILES}
    assert all(stream.rstrip(b"\0").endswith(b"\xf7\x01") for stream in streams["end-mark"])
    assert len(tensors("limit")[0]) == 512 and tensors("limit")[0][0] == 0xA8
    assert [int.from_bytes(tensors(name)[1], "little") >> 15 for name in ("limit", "bypass")] == [1, 0]
    for share in reference.deal(reference.tiles_of(matrix_of("bypass"))[0][0]):  # but for its end mark, it would fit
        whole, last = reference.packets_of(share, reference.dictionary_of(share * 4, 36), high=False)
        assert 40 + 8 * len(whole) < len(share) <= 40 + 8 * (len(whole) + 1) and len(last) >= 57
    heaps: list[int] = []
    counts = np.bincount(matrix_of("heap").view(np.uint8).ravel(), minlength=256)
    reference.unstable_sort([(value, int(count)) for value, count in enumerate(counts)], heaps)
    assert heaps == [224]
    nine, four = reference.bits(5, 6), reference.bits(6, 3)
    dictionary = list(streams["runs"][0][6:40])
    packets = [
        packet
        for share in reference.deal(reference.tiles_of(matrix_of("runs"))[0][0])
        for packet in reference.packets_of(share, dictionary, high=True)[0]
    ]
    assert any(packet.startswith(nine * 7) for packet in packets)
    assert any(packet[60:] == four + "1" for packet in packets) and any(packet[-1] == "0" for packet in packets)


def patched(data: bytes, patches: list[tuple[int, str]], size: int | None) -> bytes:
    changed = bytearray(data[: size or len(data)].ljust(size or len(data), b"\0"))
    for offset, text in patches:
        changed[offset : offset + len(text) // 2] = bytes.fromhex(text)
    return bytes(changed)


@pytest.mark.parametrize("case", REJECTIONS, ids=lambda case: f"{case['rule']}: {case['why']}")
def test_rejections(case: dict[str, Any]) -> None:
    weight, index, info = tensors(case["vector"])
    weight = patched(weight, case.get("weight", []), case.get("weight_bytes"))
    index = patched(index, case.get("index", []), case.get("index_bytes"))
    info = case.get("info", info)
    with pytest.raises(reference.Rejected) as rejected:
        reference.decode(weight, index, info, high=case["mode"] == "high")
    assert rejected.value.rule == case["rule"]
    arrays = (np.frombuffer(weight, np.int8), np.frombuffer(index, np.int8), np.array(info, np.int64))
    with pytest.raises(CodecError):
        decode_matrix(*arrays, sparsity=case["mode"])


def test_every_rule_of_the_document_has_a_rejection() -> None:
    rules = re.findall(r"^\| ([MITX]\d+) \|", DOCUMENT, re.MULTILINE)
    assert {case["rule"] for case in REJECTIONS} == set(rules) - {"M1"}  # types: tests/codec/test_rejections.py
