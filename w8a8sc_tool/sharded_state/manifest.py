"""w8a8sc_manifest.json: what a directory holds, byte by byte, in a form that can be checked."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from .._version import VERSION
from ..errors import InputError, refuse
from ..io import hashing, lfs, reading
from ..io.folders import MANIFEST, is_foreign_link
from ..layouts import UNCOMPRESSED
from ..planning import Options
from ..planning.options import from_document
from .meaning import problems_of

NAME: Final = MANIFEST
FORMATS: Final = (1, 2)  # meaning.format_of says which it is
LARGEST_TP: Final = 1024  # nobody has so many chips for one model
_LARGEST: Final = 64 << 20  # bytes; a tensor takes about 350 of them
_NO_DIGEST: Final = (
    b'\n "digest": "",\n'  # no text in JSON has line ends, and what is inside of something is indented more
)


class TensorEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor of a rank file: bytes [begin, end) counted from the start of the file, and their hash.

    quantization, fallback: of the layer it belongs to. ratio: of a compressed weight, (weight + index + info) / (n * k)
    on this rank.
    """

    name: str
    dtype: str
    shape: list[int]
    begin: int
    end: int
    hash: str
    quantization: str
    ratio: float | None = None
    fallback: str | None = None


class RankFileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rank's file: the hash of its first `header_bytes` bytes; the tensors' hashes cover all others."""

    rank: int
    file: str
    size: int
    header_bytes: int
    header_hash: str
    tensors: list[TensorEntry]


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Any other file of the directory, hashed whole."""

    file: str
    size: int
    hash: str


class LayerEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A linear layer as vLLM has it: its type, its ratio over all ranks if it was compressed or tried, its fallback.

    n, k: the size of a rank's weight.
    """

    name: str
    n: int
    k: int
    quantization: str
    ratio: float | None
    fallback: str | None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything there is to know about a sealed directory.

    ranks: their files, by rank and part. All ranks have as many, and the same tensors in each.
    """

    format_version: int
    tool: str
    tool_version: str
    codec_version: int
    model: str
    architecture: str
    tensor_parallel_size: int
    options: dict[str, str | float | bool | list[str] | None]
    source: str
    layers: list[LayerEntry]
    rank_files: list[RankFileEntry] = msgspec.field(name="ranks")
    files: list[FileEntry]
    digest: str = ""

    def to_bytes(self) -> bytes:
        """The canonical form, its digest included: the only form that `parse` accepts."""
        data = _canonical({**msgspec.to_builtins(self), "digest": ""})
        return data.replace(_NO_DIGEST, f'\n "digest": "{hashing.of_bytes(data)}",\n'.encode(), 1)

    @property
    def tensor_bytes(self) -> int:
        return sum(tensor.end - tensor.begin for file in self.rank_files for tensor in file.tensors)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file but the manifest itself, by name."""
        ranks = {file.file: file.size for file in self.rank_files}
        return ranks | {file.file: file.size for file in self.files}

    @property
    def total_bytes(self) -> int:
        """Bytes of all files but the manifest itself."""
        return sum(self.sizes.values())

    @property
    def rank_bytes(self) -> list[int]:
        """Bytes of each rank's files together."""
        return [sum(file.size for file in self._files_of(rank)) for rank in range(self.tensor_parallel_size)]

    @property
    def files_per_rank(self) -> int:
        return len(self.rank_files) // self.tensor_parallel_size

    def tensors_of(self, rank: int) -> list[TensorEntry]:
        """A rank's tensors, file by file."""
        return [tensor for file in self._files_of(rank) for tensor in file.tensors]

    def _files_of(self, rank: int) -> list[RankFileEntry]:
        return self.rank_files[rank * self.files_per_rank : (rank + 1) * self.files_per_rank]

    @property
    def weight_ratio(self) -> float | None:
        """Compressed size of the compressed layers' weights, relative to what they were; None if there are none."""
        layers = [layer for layer in self.layers if layer.quantization in UNCOMPRESSED]
        sizes = [layer.n * layer.k * (2 if layer.quantization == "W16A16SC" else 1) for layer in layers]
        compressed = sum((layer.ratio or 0) * size for layer, size in zip(layers, sizes))
        return compressed / sum(sizes) if sizes else None

    @property
    def compressed_share(self) -> float | None:
        """How much of all int8 weights, by their uncompressed size, was compressed; None if there are none."""
        layers = {layer.name: layer for layer in self.layers}
        int8 = [layer for layer in layers.values() if layer.quantization.startswith("W8A8")]
        compressed = sum(layer.n * layer.k for layer in int8 if layer.quantization in UNCOMPRESSED)
        others = (tensor for tensor in self.tensors_of(0) if tensor.name.rpartition(".")[0] not in layers)
        experts = sum(tensor.end - tensor.begin for tensor in others if tensor.dtype == "I8")
        total = sum(layer.n * layer.k for layer in int8) + experts
        return compressed / total if total else None

    @property
    def fallbacks(self) -> dict[str, int]:
        """Number of linear layers per fallback reason."""
        return dict(Counter(layer.fallback for layer in self.layers if layer.fallback))


class _Version(msgspec.Struct):
    """What all formats of a manifest have."""

    format_version: int
    tool_version: str = "unknown"


def _canonical(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def load(folder: Path) -> Manifest | None:
    """The manifest of a directory, None if it has none; raises InputError if it is not in canonical form."""
    path = folder / NAME
    if reading.link_status(path) is None:
        return None
    if is_foreign_link(path):
        raise InputError("not a regular file", str(path))
    return parse(reading.whole(path, _LARGEST), str(path))


@lru_cache(maxsize=4)  # a command asks for a directory's several times, and for those of a tree's sizes in turns
def parse(data: bytes, where: str) -> Manifest:
    """A manifest from its bytes, everything in it being what it can be.

    Raises InputError unless they are the canonical form with the right digest, and say nothing that cannot be.
    """
    lfs.refuse_pointer(data, where)
    remedy = "it was edited or damaged after it was sealed; restore it or convert again"
    try:
        version = msgspec.json.decode(data, type=_Version)
        if version.format_version not in FORMATS:
            raise InputError(
                f"manifest format {version.format_version}, of w8a8sc {version.tool_version[:40]!r}, is not supported",
                where,
                f"this is w8a8sc {VERSION}, which reads formats 1 to {FORMATS[-1]}: use the version that made it",
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # a ValueError from msgspec 0.21 on only
        raise InputError(f"not a manifest ({str(error)[:200]})", where, remedy) from None
    try:
        canonical = manifest.to_bytes()
    except ValueError:
        canonical = b""
    if not 0 < manifest.tensor_parallel_size <= LARGEST_TP:
        raise InputError(f"tensor-parallel size {manifest.tensor_parallel_size}", where, remedy)
    if canonical != data:
        raise InputError("its content does not match its own digest", where, remedy)
    refuse(problems_of(manifest, where))
    return manifest


def options_of(manifest: Manifest) -> Options:
    """The options a directory was made with, as a manifest that `parse` accepted has them."""
    return from_document(manifest.options, NAME)[0]


def schema() -> dict[str, Any]:
    """The JSON schema of a manifest, as docs/manifest.schema.json holds it."""
    document = msgspec.json.schema(Manifest)
    for definition in document["$defs"].values():  # docstrings, which Python leaves indented before 3.13
        definition["description"] = inspect.cleandoc(definition["description"])
    return document
