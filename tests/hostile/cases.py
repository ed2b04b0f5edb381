"""What a case is, and the changes that cases are made of."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

DESCRIPTION = "quant_model_description.json"
MANIFEST = "w8a8sc_manifest.json"
RANK_0, RANK_1 = (f"model-rank-{rank}-part-0.safetensors" for rank in (0, 1))


@dataclass(frozen=True)
class Case:
    """harmless: it may also be taken as it is."""

    name: str
    of: Literal["checkpoint", "directory", "preset", "batch"]
    make: Callable[[Path], object]
    harmless: bool = False


def weights(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[0]


def change_header_of(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite a header and keep the bytes behind it."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    content = json.loads(data[8 : 8 + length])
    change(content)
    write_header(path, json.dumps(content).encode(), data[8 + length :])


def write_header(path: Path, header: bytes, body: bytes = b"", length: int | None = None) -> None:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + body)


def first_entry(content: dict[str, Any]) -> dict[str, Any]:
    return next(entry for name, entry in content.items() if name != "__metadata__")


def renamed(name: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        old = next(key for key in content if key.endswith("up_proj.weight"))
        content[name] = content.pop(old)

    return change


def text(name: str, text: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)


def in_json(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return make


def in_turn(*changes: Callable[[Path], object]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for change in changes:
            change(folder)

    return make


def removed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def index(value: object) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": value}))


def linked(name: str, target: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return make


def sparse(name: str, size: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        path = folder / name if name else weights(folder)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.truncate(size)

    return make


def of_header(name: str, change: Callable[[dict[str, Any]], object]) -> Case:
    return Case(f"header: {name}", "checkpoint", lambda folder: change_header_of(weights(folder), change))


def raw_header(name: str, header: bytes, body: bytes = b"", length: int | None = None) -> Case:
    return Case(f"header: {name}", "checkpoint", lambda folder: write_header(weights(folder), header, body, length))


def shift(content: dict[str, Any], by: int) -> None:
    entry = first_entry(content)
    entry["data_offsets"] = [offset + by for offset in entry["data_offsets"]]


def large_header(folder: Path) -> None:
    """As large as a header may be, and nothing but small objects."""
    write_header(weights(folder), b"{" + b",".join(b'"%d":{}' % n for n in range(900_000)) + b"}")
