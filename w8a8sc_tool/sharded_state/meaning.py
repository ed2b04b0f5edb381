"""Whether what a manifest says can be: names that are names, ranks that are there once, layers and tensors that agree.

A digest says that a manifest is as it was written, not who wrote it. So everything that later code counts on is checked
here, once, for every command; what the layout of the model demands beyond that, verify knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, get_args

from ..checkpoint.beside import LEVELS
from ..checkpoint.description import TYPES
from ..errors import Problem
from ..io.folders import MANIFEST, RANK_FILE
from ..io.names import is_inside, is_plain
from ..io.safetensors import DTYPES, LARGEST_HEADER, is_count
from ..layouts import UNCOMPRESSED
from ..planning import Fallback
from ..planning.options import from_document
from .rank_file import file_name

if TYPE_CHECKING:
    from .manifest import LayerEntry, Manifest, RankFileEntry, TensorEntry

_HASH: Final = re.compile(r"blake3:[0-9a-f]{64}")

_FALLBACKS: Final = (None, *get_args(Fallback))
_LARGEST_SIZE: Final = 1 << 24  # no dimension of a layer comes near
_LARGEST_RATIO: Final = 16.0  # a tile that does not compress takes little more than its own size
_MOST: Final = 20  # problems that are worth reading
_REMEDY: Final = "w8a8sc never writes such a manifest: do not use the directory"


def problems_of(manifest: Manifest, where: str) -> list[Problem]:
    """What in a manifest cannot be, the first of it; nothing of its directory is looked at."""
    # No more are looked for than are told: every layer may be wrong on every rank, which would be any number of them.
    problems = [Problem(statement, where, _REMEDY) for statement in islice(_statements(manifest, where), _MOST)]
    return problems or from_document(manifest.options, _made_by(manifest, where))[1]


def format_of(files_per_rank: int) -> int:
    """The format of a manifest: 1 if every rank has one file, 2 if it has several, which 1 knows nothing of."""
    return 1 if files_per_rank == 1 else 2


def _made_by(manifest: Manifest, where: str) -> str:
    return f"{where} (by w8a8sc {manifest.tool_version})"


def _statements(manifest: Manifest, where: str) -> Iterator[str]:
    if not is_plain(manifest.model):
        yield f"model is {manifest.model[:80]!r}, which is no name of a folder"
    for key in ("tool", "tool_version", "architecture"):
        if not is_plain(getattr(manifest, key)):
            yield f"{key} is {getattr(manifest, key)[:80]!r}"
    if not 0 < manifest.codec_version < 1 << 31:
        yield f"codec_version is {manifest.codec_version}"
    if not _HASH.fullmatch(manifest.source):
        yield "source is not a hash"
    yield from _side_files(manifest)
    layers = {layer.name: layer for layer in manifest.layers}
    if len(layers) != len(manifest.layers):
        yield "a layer is listed twice"
    for layer in manifest.layers:
        yield from _layer(layer, may_compress=manifest.options.get("compress") is not False)
    tp, count = manifest.tensor_parallel_size, max(1, manifest.files_per_rank)
    numbers = [file.rank for file in manifest.rank_files]
    if numbers != [rank for rank in range(tp) for _ in range(count)]:
        yield f"ranks are {str(numbers)[:80]}, not 0 to {tp - 1}, each with as many files"
        return
    if manifest.format_version != format_of(count):
        yield f"format_version is {manifest.format_version}, and a rank has {count} files"
    first = [{tensor.name for tensor in file.tensors} for file in manifest.rank_files[:count]]
    for rank in range(tp):
        files = manifest.rank_files[rank * count : (rank + 1) * count]
        yield from (f"rank {rank}: {statement}" for statement in _rank(files, layers))
        if [{tensor.name for tensor in file.tensors} for file in files] != first:
            yield f"rank {rank} has other tensors than rank 0"


def _side_files(manifest: Manifest) -> Iterator[str]:
    names = [entry.file for entry in manifest.files]
    for entry in manifest.files:
        if not is_inside(entry.file, LEVELS) or entry.file == MANIFEST or RANK_FILE.fullmatch(entry.file):
            yield f"{entry.file[:80]!r} is no name of a file beside the ranks'"
        if not is_count(entry.size) or not _HASH.fullmatch(entry.hash):
            yield f"{entry.file[:80]!r} has no size or no hash"
    if len(set(names)) != len(names):
        yield "a file is listed twice"


def _layer(layer: LayerEntry, *, may_compress: bool) -> Iterator[str]:
    name = layer.name[:80]
    if not (0 < layer.n <= _LARGEST_SIZE and 0 < layer.k <= _LARGEST_SIZE):
        yield f"layer {name!r} is {layer.n} by {layer.k}"
    if layer.quantization not in TYPES or layer.fallback not in _FALLBACKS or not _is_ratio(layer.ratio):
        yield f"layer {name!r} has a type, fallback or ratio that does not exist"
    elif layer.quantization in UNCOMPRESSED and (layer.ratio is None or layer.fallback or not may_compress):
        yield f"layer {name!r} is compressed and is not"


def _is_ratio(ratio: float | None) -> bool:
    return ratio is None or 0 < ratio <= _LARGEST_RATIO


def _rank(files: Sequence[RankFileEntry], layers: dict[str, LayerEntry]) -> Iterator[str]:
    """files: the rank's, in the order of their parts."""
    for part, file in enumerate(files):
        name = file_name(file.rank, part)
        if file.file != name:
            yield f"its file is {file.file[:80]!r}, not {name}"
        yield from _file(file, layers)
    listed = [tensor for file in files for tensor in file.tensors]
    tensors = {tensor.name: tensor for tensor in listed}
    if len(tensors) != len(listed):
        yield "a tensor is listed twice"
    for layer in layers.values():
        yield from _parts(layer, tensors)


def _file(file: RankFileEntry, layers: dict[str, LayerEntry]) -> Iterator[str]:
    if not 0 < file.header_bytes <= LARGEST_HEADER or not _HASH.fullmatch(file.header_hash):
        yield "its header has no size or no hash"
    end = file.header_bytes
    for tensor in sorted(file.tensors, key=lambda tensor: tensor.begin):
        if tensor.begin != end or not _is_tensor(tensor):
            yield f"{tensor.name[:80]!r} is no tensor of that dtype, shape and place"
            return
        end = tensor.end
        yield from _of_layer(tensor, layers.get(tensor.name.rpartition(".")[0]))
    if end != file.size:
        yield f"its tensors end at byte {end}, its file at {file.size}"


def _is_tensor(tensor: TensorEntry) -> bool:
    if tensor.dtype not in DTYPES or not all(map(is_count, (*tensor.shape, tensor.end))):
        return False
    nbytes = DTYPES[tensor.dtype].itemsize
    for size in tensor.shape:
        nbytes *= size
    return tensor.end - tensor.begin == nbytes and _HASH.fullmatch(tensor.hash) is not None


def _of_layer(tensor: TensorEntry, layer: LayerEntry | None) -> Iterator[str]:
    """A tensor says the same of its layer as the layer does; one that belongs to none, as experts', is as it was."""
    own = tensor.quantization if tensor.quantization in TYPES - UNCOMPRESSED.keys() else "FLOAT"
    quantization, fallback = (layer.quantization, layer.fallback) if layer else (own, None)
    if (tensor.quantization, tensor.fallback) != (quantization, fallback):
        yield f"{tensor.name[:80]!r} has another type or fallback than its layer"
    compressed_weight = quantization in UNCOMPRESSED and tensor.name.endswith(".weight")
    if (tensor.ratio is not None) != compressed_weight or not _is_ratio(tensor.ratio):
        yield f"{tensor.name[:80]!r} has a ratio and is not compressed, or the other way round"


def _parts(layer: LayerEntry, tensors: dict[str, TensorEntry]) -> Iterator[str]:
    """The tensors that a layer's type demands: a weight of its size, or payload, index and info in its place."""
    weight, index, info = (tensors.get(f"{layer.name}.{leaf}") for leaf in ("weight", "index", "info"))
    if layer.quantization not in UNCOMPRESSED:
        if weight is None or weight.shape != [layer.n, layer.k] or index is not None or info is not None:
            yield f"layer {layer.name[:80]!r} has no weight of {layer.n} by {layer.k}"
        return
    if weight is None or index is None or info is None:
        yield f"layer {layer.name[:80]!r} lacks its weight, index or info"
        return
    forms = [(tensor.dtype, len(tensor.shape)) for tensor in (weight, index, info)]
    row_bytes = layer.k * (2 if layer.quantization == "W16A16SC" else 1)
    if forms != [("I8", 1), ("I8", 1), ("I64", 1)] or info.shape != [5] or weight.shape[0] > layer.n * row_bytes:
        yield f"layer {layer.name[:80]!r} has a weight, index or info of another form"
