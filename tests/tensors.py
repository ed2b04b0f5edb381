"""Reading and rewriting safetensors files in tests, with the real library or byte by byte."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from w8a8sc_tool.io.safetensors import DTYPES

Content = dict[str, tuple[str, list[int], bytes]]


def read(path: Path) -> Content:
    """Name -> dtype, shape, bytes."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    return {
        name: (e["dtype"], e["shape"], data[8 + length + e["data_offsets"][0] : 8 + length + e["data_offsets"][1]])
        for name, e in header.items()
        if name != "__metadata__"
    }


def write(path: Path, content: Content) -> None:
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape, data) in content.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    path.unlink(missing_ok=True)  # it may be read-only, as msmodelslim leaves weights
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in content.values()))


def array(entry: tuple[str, list[int], bytes]) -> np.ndarray:
    dtype, shape, data = entry
    return np.frombuffer(data, DTYPES[dtype]).reshape(shape)


def entry(dtype: str, values: np.ndarray) -> tuple[str, list[int], bytes]:
    return dtype, list(values.shape), values.astype(DTYPES[dtype]).tobytes()


def raw(path: Path, header: bytes, body: bytes = b"", length: int | None = None) -> Path:
    """A file with any header."""
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + body)
    return path
