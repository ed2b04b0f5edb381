"""The safetensors container: reading with every number checked, and laying out a file that is written in pieces.

The safetensors library maps files into memory, where a file that shrinks kills the process, and can only write
tensors it holds all at once. So files are read here with pread, and written by whoever has the bytes; the format itself
(8 bytes of header length, a JSON header, the tensors without gaps) is the library's, and verify has it confirm files.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from ..errors import InputError
from . import lfs, reading
from .documents import parse_json
from .files import as_bytes

# numpy's type for each safetensors dtype that W8A8S checkpoints use. BF16, which numpy lacks, is read as its bits.
DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}

# The safetensors library takes headers of up to 100 MB, which would be gigabytes as Python objects. A tensor needs
# about 145 bytes of header, so this is room for 115,000 of them: Qwen3.6-35B-A3B has 92,806, each
# expert having its own.
LARGEST_HEADER: Final = 16 << 20
_LENGTH: Final = struct.Struct("<Q")
_LONGEST_NAME: Final = 1024
_MOST_DIMENSIONS: Final = 16


class TensorInfo(msgspec.Struct, frozen=True):
    """Where a tensor lies: dtype as safetensors spells it; bytes [begin, end) counted from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.begin


class StoredTensor(msgspec.Struct, frozen=True):
    """A tensor in a file, and the hash that its bytes should have (None: not known)."""

    path: str
    info: TensorInfo
    hash: str | None = None

    @property
    def where(self) -> str:
        """File and tensor, as messages name them."""
        return f"{self.path} ({self.info.name})"


def tensor_info(name: str, dtype: str, shape: Sequence[int]) -> TensorInfo:
    """A tensor whose place is not known yet: it begins at 0."""
    return TensorInfo(name, dtype, tuple(shape), 0, int(np.prod(shape, dtype=np.int64)) * DTYPES[dtype].itemsize)


class TensorFile:
    """A safetensors file, opened read-only, with its header checked."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises InputError, naming the file and the tensor, for anything the format does not allow."""
        self.path = Path(path)
        self._fd = reading.open_file(self.path)
        try:
            self.size = reading.size_of(self._fd, self.path)
            self.header = self._read_header()
            self.tensors = _parse_header(self.header, self.size, str(self.path))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def header_bytes(self) -> int:
        """Bytes before the first tensor: the length and the JSON header, its padding included."""
        return _LENGTH.size + len(self.header)

    def read_into(self, begin: int, target: npt.NDArray[Any]) -> None:
        """Fill a C-contiguous array with the bytes from `begin` on; raises WorkError if they are not there any more."""
        reading.read_at(self._fd, self.path, as_bytes(target), begin)

    def read(self, name: str) -> npt.NDArray[Any]:
        """A whole tensor, BF16 as its bits."""
        info = self.tensors[name]
        array = np.empty(info.shape, DTYPES[info.dtype])
        self.read_into(info.begin, array)
        return array

    def _read_header(self) -> bytes:
        where = str(self.path)
        if self.size < _LENGTH.size:
            raise InputError(f"{self.size} bytes are too few for a safetensors file", where, "copy it again")
        start = np.empty(min(self.size, lfs.LARGEST), np.uint8)
        self.read_into(0, start)
        lfs.refuse_pointer(start.tobytes(), where)
        (length,) = _LENGTH.unpack_from(start.tobytes())
        if length > min(LARGEST_HEADER, self.size - _LENGTH.size):
            raise InputError(
                f"the header claims {length} bytes, the file has {self.size}",
                where,
                "it is damaged or not a safetensors file; copy it again",
            )
        header = np.empty(length, np.uint8)
        self.read_into(_LENGTH.size, header)
        return header.tobytes()


def is_count(value: object) -> bool:
    """Whether a value from JSON is an integer of 0 or more that a 64-bit size can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _parse_header(header: bytes, size: int, where: str) -> dict[str, TensorInfo]:
    """The tensors of a file in the order of their bytes, which must fill it without gap or overlap."""
    content = parse_json(header, f"{where} (header)")
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InputError("__metadata__ is not an object of strings", f"{where} (header)")
    start = _LENGTH.size + len(header)
    tensors = sorted((_parse_entry(name, entry, start, where) for name, entry in content.items()), key=_position)
    expected = start
    for tensor in tensors:
        if tensor.begin != expected:
            raise InputError(
                f"the bytes of {tensor.name} begin at {tensor.begin}, those before end at {expected}",
                where,
                "the header is damaged; copy the file again",
            )
        expected = tensor.end
    if expected != size:
        raise InputError(
            f"the tensors end at byte {expected}, the file at {size}",
            where,
            "it is truncated or damaged; copy it again",
        )
    return {tensor.name: tensor for tensor in tensors}


def _position(tensor: TensorInfo) -> tuple[int, int]:
    return tensor.begin, tensor.end


def _parse_entry(name: str, entry: object, start: int, where: str) -> TensorInfo:
    entry_name = f"{where} (header, {name[:80]!r})"
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise InputError("not a tensor name", entry_name, "the header is damaged; copy the file again")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InputError("dtype, shape and data_offsets are wanted", entry_name, "the header is damaged")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InputError(f"dtype {str(dtype)[:40]!r} is not supported", entry_name)
    if not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS or not all(is_count(size) for size in shape):
        raise InputError("the shape is not a list of sizes", entry_name, "the header is damaged")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(is_count(offset) for offset in offsets):
        raise InputError("data_offsets are not two byte offsets", entry_name, "the header is damaged")
    begin, end = offsets
    nbytes = DTYPES[dtype].itemsize
    for size in shape:
        nbytes *= size
    if end - begin != nbytes:
        raise InputError(f"{dtype} {shape} takes {nbytes} bytes, its offsets span {end - begin}", entry_name, "damaged")
    return TensorInfo(name, dtype, tuple(shape), start + begin, start + end)


def header_for(tensors: Iterable[TensorInfo], length: int | None = None) -> bytes:
    """A file's first bytes: the header for tensors whose offsets count from the first tensor's first byte.

    length: the size of the result, reached by padding with spaces; None for the smallest that is a multiple of 8.
    """
    content = {
        tensor.name: {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [tensor.begin, tensor.end]}
        for tensor in tensors
    }
    text = json.dumps(content, separators=(",", ":")).encode()
    if length is None:
        length = _LENGTH.size + (len(text) + 7) // 8 * 8
    padding = length - _LENGTH.size - len(text)
    if padding < 0:
        raise ValueError(f"the header needs {-padding} bytes more than the {length} kept for it")
    return _LENGTH.pack(length - _LENGTH.size) + text + b" " * padding
