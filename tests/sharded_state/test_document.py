"""docs/format.md, sections 23 and 24, read literally: a directory's files, without the package's readers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3

MANIFEST = "w8a8sc_manifest.json"
SIZES = {"I8": 1, "F16": 2, "I32": 4, "F32": 4, "I64": 8}


def hash_of(data: bytes) -> str:
    return "blake3:" + blake3(data).hexdigest()


def header_of(data: bytes) -> tuple[int, dict[str, Any]]:
    """How many bytes come before the tensors, and the header."""
    length = int.from_bytes(data[:8], "little")
    return 8 + length, json.loads(data[8 : 8 + length])


def test_rank_files(sealed: Callable[[int], Path]) -> None:
    """Section 23: known sizes first, then compressed layers, then what is no multiple of 8; all aligned, no gaps."""
    for path in sealed(2).glob("model-rank-*.safetensors"):
        data = path.read_bytes()
        start, header = header_of(data)
        end, parts = start, []
        for name, entry in header.items():
            begin, last = (start + offset for offset in entry["data_offsets"])
            assert begin == end and begin % SIZES[entry["dtype"]] == 0
            compressed = f"{name.rpartition('.')[0]}.index" in header and name.endswith((".weight", ".index", ".info"))
            parts.append(1 if compressed else 2 if (last - begin) % 8 else 0)
            end = last
        assert end == len(data)
        assert parts == sorted(parts) and set(parts) == {0, 1, 2}
        last_sizes = [SIZES[entry["dtype"]] for entry in list(header.values())[parts.index(2) :]]
        assert last_sizes == sorted(last_sizes, reverse=True)


def test_manifest(sealed: Callable[[int], Path]) -> None:
    """Section 24: canonical form, digest, and hashes that leave no byte of the directory out."""
    directory = sealed(2)
    text = (directory / MANIFEST).read_text()
    content = json.loads(text)

    def canonical(content: dict[str, Any]) -> str:
        return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=True) + "\n"

    assert text == canonical(content)
    assert content["digest"] == hash_of(canonical({**content, "digest": ""}).encode())
    covered = {MANIFEST}
    for rank in content["ranks"]:
        data = (directory / rank["file"]).read_bytes()
        start, header = header_of(data)
        assert (rank["size"], rank["header_bytes"]) == (len(data), start)
        assert rank["header_hash"] == hash_of(data[:start])
        assert [tensor["name"] for tensor in rank["tensors"]] == list(header)
        assert [tensor["end"] for tensor in rank["tensors"]][:-1] == [t["begin"] for t in rank["tensors"]][1:]
        assert all(tensor["hash"] == hash_of(data[tensor["begin"] : tensor["end"]]) for tensor in rank["tensors"])
        covered.add(rank["file"])
    for file in content["files"]:
        data = (directory / file["file"]).read_bytes()
        assert (file["size"], file["hash"]) == (len(data), hash_of(data))
        covered.add(file["file"])
    assert covered == {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_identity_of_a_source(tiny: Path, sealed: Callable[[int], Path]) -> None:
    """Section 24: a hash of the source's content, computed from its files."""
    described = ("config.json", "quant_model_description.json")
    tensors, files = [], []
    for path in sorted(tiny.iterdir()):
        data = path.read_bytes()
        if path.suffix == ".safetensors":
            start, header = header_of(data)
            for name, entry in header.items():
                if name != "__metadata__":
                    begin, end = (start + offset for offset in entry["data_offsets"])
                    tensors.append([name, entry["dtype"], entry["shape"], hash_of(data[begin:end])])
        elif path.name not in described and not path.name.endswith(".index.json"):
            files.append([path.name, len(data), hash_of(data)])
    config, description = (json.loads((tiny / name).read_text()) for name in described)
    content = {"tensors": sorted(tensors), "config": config, "description": description, "files": files}
    expected = hash_of(json.dumps(content, sort_keys=True).encode())
    assert json.loads((sealed(2) / MANIFEST).read_text())["source"] == expected
