"""Directories whose manifest has the right digest and lies, or that have none: whoever makes one makes the digest."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3

from .cases import (
    DESCRIPTION,
    MANIFEST,
    RANK_0,
    RANK_1,
    Case,
    change_header_of,
    in_json,
    in_turn,
    removed,
    text,
    weights,
)


def weights_link(folder: Path) -> None:
    (folder / RANK_0).symlink_to(folder.parent / "rank")


def _hash(data: bytes) -> str:
    return "blake3:" + blake3(data).hexdigest()


def _canonical(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, sort_keys=True, indent=1, ensure_ascii=True) + "\n").encode()


def _reseal(folder: Path, content: dict[str, Any]) -> None:
    """Write a manifest with the digest that belongs to it: whoever makes a manifest can do that."""
    content["digest"] = _hash(_canonical({**content, "digest": ""}))
    (folder / MANIFEST).write_bytes(_canonical(content))


def _sealed(name: str, change: Callable[[dict[str, Any]], object], *, harmless: bool = False) -> Case:
    def make(folder: Path) -> None:
        content = json.loads((folder / MANIFEST).read_text())
        change(content)
        _reseal(folder, content)

    return Case(f"sealed: {name}", "directory", make, harmless)


def _rehashed(name: str, change: Callable[[Path], object], *, harmless: bool = False) -> Case:
    """Files are changed, and the manifest made true of them."""

    def make(folder: Path) -> None:
        change(folder)
        content = json.loads((folder / MANIFEST).read_text())
        for rank in content["ranks"]:
            _describe_rank(rank, (folder / rank["file"]).read_bytes())
        for entry in content["files"]:
            data = (folder / entry["file"]).read_bytes()
            entry.update(size=len(data), hash=_hash(data))
        _reseal(folder, content)

    return Case(f"rehashed: {name}", "directory", make, harmless)


def _describe_rank(rank: dict[str, Any], data: bytes) -> None:
    start = 8 + struct.unpack("<Q", data[:8])[0]
    known = {tensor["name"]: tensor for tensor in rank["tensors"]}
    other = {"quantization": "FLOAT", "ratio": None, "fallback": None}
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    rank.update(size=len(data), header_bytes=start, header_hash=_hash(data[:start]), tensors=[])
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = (start + offset for offset in entry["data_offsets"])
        location = {"begin": begin, "end": end, "hash": _hash(data[begin:end])}
        tensor = known.get(name, other) | {"name": name, "dtype": entry["dtype"], "shape": entry["shape"]} | location
        rank["tensors"].append(tensor)


def _without_manifest(name: str, change: Callable[[Path], object], *, harmless: bool = False) -> Case:
    return Case(f"no manifest: {name}", "directory", in_turn(removed(MANIFEST), change), harmless)


def _model(name: str, model: str) -> Case:
    return _sealed(f"a model {name}", lambda c: c.update(model=model))


def _absolute_model(folder: Path) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    content["model"] = str(folder.parent / "escaped")
    _reseal(folder, content)


def _rank(name: str, number: int = 0, /, **changes: object) -> Case:
    return _sealed(f"a rank {name}", lambda c: c["ranks"][number].update(changes))


def _split(content: dict[str, Any]) -> None:
    """Every rank's last tensor in a file of its own, as it could be."""
    ranks, content["format_version"] = content["ranks"], 2
    content["ranks"] = []
    for rank in ranks:
        tensor = rank["tensors"].pop()
        nbytes = tensor["end"] - tensor["begin"]
        rank["size"] = tensor["begin"]
        moved = {**tensor, "begin": 64, "end": 64 + nbytes}
        part = {**rank, "file": rank["file"].replace("part-0", "part-1"), "size": 64 + nbytes}
        content["ranks"] += [rank, {**part, "header_bytes": 64, "tensors": [moved]}]


def _parts(name: str, change: Callable[[dict[str, Any]], object]) -> Case:
    def both(content: dict[str, Any]) -> None:
        _split(content)
        change(content)

    return _sealed(f"parts: {name}", both)


def _file(name: str, /, **changes: object) -> Case:
    return _sealed(f"a file {name}", lambda c: c["files"][0].update(changes))


def _option(name: str, /, **changes: object) -> Case:
    return _sealed(f"options: {name}", lambda c: c["options"].update(changes))


def _layer(name: str, /, **changes: object) -> Case:
    return _sealed(f"a layer {name}", lambda c: _compressed(c).update(changes))


def _compressed(content: dict[str, Any]) -> dict[str, Any]:
    return next(layer for layer in content["layers"] if layer["quantization"] == "W8A8SC")


def _tensor(name: str, /, **changes: object) -> Case:
    return _sealed(f"a tensor {name}", lambda c: c["ranks"][1]["tensors"][2].update(changes))


def _norm(content: dict[str, Any]) -> dict[str, Any]:
    return next(tensor for tensor in content["ranks"][1]["tensors"] if tensor["name"] == "model.norm.weight")


def _all_w8a8s(content: dict[str, Any]) -> None:
    """The layers say that nothing is compressed, and so do their tensors."""
    for entry in [*content["layers"], *(tensor for rank in content["ranks"] for tensor in rank["tensors"])]:
        if entry["quantization"] == "W8A8SC":
            entry.update(quantization="W8A8S", ratio=None)


def _info(change: Callable[[list[int]], object]) -> Callable[[Path], None]:
    """The first info tensor of rank 0: k at 2, n at 3."""

    def make(folder: Path) -> None:
        path = weights(folder)
        data = bytearray(path.read_bytes())
        start = 8 + struct.unpack("<Q", data[:8])[0]
        content = json.loads(data[8:start])
        begin = start + next(entry for name, entry in content.items() if name.endswith(".info"))["data_offsets"][0]
        values = list(struct.unpack_from("<5q", data, begin))
        change(values)
        struct.pack_into("<5q", data, begin, *values)
        path.write_bytes(data)

    return make


def _set(values: list[int], position: int, value: int) -> None:
    values[position] = value


def _change_header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda folder: change_header_of(weights(folder), change)


def _info_of_bytes(content: dict[str, Any]) -> None:
    next(entry for name, entry in content.items() if name.endswith(".info")).update(dtype="I8", shape=[40])


def _rows_swapped(content: dict[str, Any]) -> None:
    entry = next(entry for name, entry in content.items() if len(entry.get("shape", ())) == 2)
    entry["shape"].reverse()


def _described(folder: Path) -> None:
    """A compressed layer's members are described as uncompressed."""
    content = json.loads((folder / DESCRIPTION).read_text())
    for name in ("gate_proj", "up_proj"):
        content[f"model.layers.0.mlp.{name}.weight"] = "W8A8S"
    (folder / DESCRIPTION).write_text(json.dumps(content))


def _config(name: str, /, **changes: object) -> Case:
    return _rehashed(f"config: {name}", in_json("config.json", lambda c: c.update(changes)))


SEALED = [
    _model("that climbs", "../escaped"),
    Case("sealed: a model that is an absolute path", "directory", _absolute_model),
    _model("that climbs further down", "a/../../escaped"),
    _model("that is a folder's", "a/b"),
    _model("without a name", ""),
    _model("that is here", "."),
    _model("that is above", ".."),
    _model("with NUL", "a\0b"),
    _model("of control characters", "a\n\x1b[2J"),
    _model("with a lone surrogate", "\ud800"),
    _model("that looks like an option", "-rf"),
    _model("of 10 kB", "x" * 10_000),
    _rank("of another number", rank=7),
    _rank("of a negative number", rank=-1),
    _rank("of a number that is there", 1, rank=0),
    _rank("whose file is the other's", file="model-rank-1-part-0.safetensors"),
    _rank("whose file is another part", file="model-rank-0-part-1.safetensors"),
    _rank("whose file climbs", file="../x"),
    _rank("whose file is an absolute path", file="/etc/passwd"),
    _rank("without a header", header_bytes=0),
    _rank("with a header beyond reason", header_bytes=2**62),
    _rank("of no size", size=0),
    _rank("without a hash", header_hash=""),
    _rank("without tensors", tensors=[]),
    _sealed("ranks in another order", lambda c: c["ranks"].reverse()),
    _sealed("a rank twice", lambda c: c["ranks"].append(c["ranks"][0])),
    _sealed("a rank that is not listed", lambda c: c["ranks"].pop()),
    _sealed("no ranks", lambda c: c.update(ranks=[])),
    _sealed("a size without its ranks", lambda c: c.update(tensor_parallel_size=4)),
    _sealed("a smaller size", lambda c: c.update(tensor_parallel_size=1)),
    _sealed("a size of 0", lambda c: c.update(tensor_parallel_size=0)),
    _sealed("a negative size", lambda c: c.update(tensor_parallel_size=-2)),
    _sealed("a size beyond reason", lambda c: c.update(tensor_parallel_size=10**9)),
    _file("that climbs", file="../../etc/passwd"),
    _file("that is an absolute path", file="/etc/passwd"),
    _file("with NUL", file="a\0b"),
    _file("that is the manifest", file=MANIFEST),
    _file("that is a rank's", file="model-rank-0-part-0.safetensors"),
    _file("that is a part which is not listed", file="model-rank-0-part-7.safetensors"),
    _file("of a negative size", size=-1),
    _file("of a size beyond 64 bits", size=2**63),
    _file("without a hash", hash="blake3:00"),
    _sealed("a file twice", lambda c: c["files"].append(c["files"][0])),
    _option("a release that is not there yet", target="0.30"),
    _option("a release of control characters", target="\x1b[2J"),
    _option("a release that is a list", target=["0.18"]),
    _option("patterns that are a text", keep="x"),
    _option("a ratio above 1", max_ratio=7.0),
    _option("a ratio that is a text", max_ratio="many"),
    _option("one that nobody knows", shell="rm"),
    _option("nothing was compressed", compress=False),
    _sealed("options: none", lambda c: c.update(options={}), harmless=True),
    _sealed("a layer that is not there", lambda c: c["layers"].append({**_compressed(c), "name": "a"})),
    _sealed("a layer twice", lambda c: c["layers"].append(_compressed(c))),
    _sealed("a layer missing", lambda c: c["layers"].remove(_compressed(c))),
    _sealed("no layers", lambda c: c.update(layers=[])),
    _sealed("all layers W8A8S", _all_w8a8s),
    _layer("without rows", n=0),
    _layer("of rows beyond reason", n=2**62),
    _layer("of negative columns", k=-1),
    _layer("of other columns", k=64),
    _layer("of another type", quantization="W8A8S"),
    _layer("of a type nobody knows", quantization="X"),
    _layer("without a ratio", ratio=None),
    _layer("of a negative ratio", ratio=-1.0),
    _layer("of an endless ratio", ratio=1e300),
    _layer("that fell back", fallback="shape"),
    _layer("that fell back for no reason", fallback="because"),
    _tensor("that begins elsewhere", begin=0),
    _tensor("that ends elsewhere", end=2**62),
    _tensor("of a negative place", begin=-8, end=-1),
    _tensor("of a dtype nobody knows", dtype="I7"),
    _tensor("of a shape that overflows", shape=[2**40, 2**40]),
    _tensor("of a negative shape", shape=[-1, -1]),
    _tensor("of another name", name="../../x"),
    _tensor("without a hash", hash="blake3:"),
    _tensor("of another type", quantization="W8A8_DYNAMIC"),
    _sealed("a norm that is quantized", lambda c: _norm(c).update(quantization="W8A8_DYNAMIC")),
    _sealed("a norm that is compressed", lambda c: _norm(c).update(quantization="W8A8SC", ratio=0.5)),
    _sealed("a tensor missing", lambda c: c["ranks"][1]["tensors"].pop()),
    _sealed("a tensor twice", lambda c: c["ranks"][1]["tensors"].append(c["ranks"][1]["tensors"][0])),
    _sealed("another architecture", lambda c: c.update(architecture="LlamaForCausalLM")),
    _sealed("an architecture that climbs", lambda c: c.update(architecture="../x")),
    _sealed("a tool of control characters", lambda c: c.update(tool_version="1\x1b[2J")),
    _sealed("a codec of version 0", lambda c: c.update(codec_version=0)),
    _sealed("a source that is no hash", lambda c: c.update(source="../x")),
    _sealed("another format", lambda c: c.update(format_version=3, tool_version="9.0")),
    _sealed("the format of several files, and one", lambda c: c.update(format_version=2)),
    _parts("files that are not there", lambda c: None),
    _parts("the format of one file", lambda c: c.update(format_version=1)),
    _parts("a gap", lambda c: [c["ranks"][n].update(file=f"model-rank-{n // 2}-part-2.safetensors") for n in (1, 3)]),
    _parts("in another order", lambda c: c["ranks"].insert(0, c["ranks"].pop(1))),
    _parts("rank by rank", lambda c: c["ranks"].insert(1, c["ranks"].pop(2))),
    _parts("one too few", lambda c: c["ranks"].pop()),
    _parts(
        "one rank with more", lambda c: c["ranks"].append({**c["ranks"][3], "file": "model-rank-1-part-2.safetensors"})
    ),
    _parts("a file twice", lambda c: c["ranks"][1].update(file=c["ranks"][0]["file"])),
    _parts(
        "a tensor twice",
        lambda c: c["ranks"][1].update(tensors=[{**c["ranks"][1]["tensors"][0], "name": "lm_head.weight"}]),
    ),
    _parts("other tensors on the other rank", lambda c: c["ranks"][3]["tensors"][0].update(name="x")),
    _rehashed("info of another shape with as many tiles", _info(lambda v: _set(v, 3, v[3] - 1))),
    _rehashed("info of 2^60 columns", _info(lambda v: _set(v, 2, 2**60))),
    _rehashed("info of negative rows", _info(lambda v: _set(v, 3, -1))),
    _rehashed("info of bytes", _change_header(_info_of_bytes)),
    _rehashed("rows and columns exchanged", _change_header(_rows_swapped)),
    _rehashed("a tensor of another name", _change_header(lambda c: c.update(x=c.pop("model.norm.weight")))),
    _rehashed("a compressed layer described as W8A8S", _described),
    _rehashed("a description without types", text(DESCRIPTION, "{}")),
    _config("another architecture", architectures=["LlamaForCausalLM"]),
    _config("sizes beyond reason", hidden_size=2**62),
    _config("other sizes", intermediate_size=1024),
    _config("another number of layers", num_hidden_layers=1),
    _config("a vocabulary that is a text", vocab_size="1"),
    _config("what takes the description's place", quantization_config={}),
    _rehashed("config: not JSON", text("config.json", "[" * 100_000)),
    _rehashed("a tokenizer that is none", text("tokenizer.json", "{}"), harmless=True),
    _rehashed("settings of a tokenizer, nested deeply", text("tokenizer_config.json", "[" * 100_000), harmless=True),
    _rehashed("a rank that is a link", in_turn(lambda f: weights(f).rename(f.parent / "rank"), weights_link)),
]

UNSEALED = [
    _without_manifest("no config", removed("config.json")),
    _without_manifest("a config of another model", in_json("config.json", lambda c: c.update(num_hidden_layers=1))),
    _without_manifest("a config nested deeply", text("config.json", "[" * 100_000)),
    _without_manifest("a description nested deeply", text(DESCRIPTION, '{"a":' * 100_000)),
    _without_manifest("a compressed layer described as W8A8S", _described),
    _without_manifest("a gap between ranks", lambda f: (f / RANK_1).rename(f / "model-rank-5-part-0.safetensors")),
    _without_manifest(
        "a rank in two parts", lambda f: (f / "model-rank-0-part-1.safetensors").write_bytes(weights(f).read_bytes())
    ),
    _without_manifest("info of another shape with as many tiles", _info(lambda v: _set(v, 3, v[3] - 1))),
    _without_manifest("info of negative rows", _info(lambda v: _set(v, 3, -1))),
    _without_manifest("info of bytes", _change_header(_info_of_bytes)),
    _without_manifest("rows and columns exchanged", _change_header(_rows_swapped)),
    _without_manifest(
        "a tensor whose name climbs", _change_header(lambda c: c.update({"../x": c.pop("model.norm.weight")}))
    ),
    _without_manifest("a rank that is empty", lambda f: weights(f).write_bytes(b"")),
    _without_manifest("a rank that is a folder", in_turn(removed(RANK_0), lambda f: (f / RANK_0).mkdir())),
]
