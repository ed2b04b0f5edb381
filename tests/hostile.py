"""Checkpoints, directories, presets and batch files made to mislead. Each case changes a copy of a good one."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from blake3 import blake3

PRESET = "preset.yaml"
BATCH = "batch.yaml"

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


def _header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite a header and keep the bytes behind it."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    content = json.loads(data[8 : 8 + length])
    change(content)
    _with_header(path, json.dumps(content).encode(), data[8 + length :])


def _with_header(path: Path, header: bytes, body: bytes = b"", length: int | None = None) -> None:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + body)


def _first(content: dict[str, Any]) -> dict[str, Any]:
    return next(entry for name, entry in content.items() if name != "__metadata__")


def _renamed(name: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        old = next(key for key in content if key.endswith("up_proj.weight"))
        content[name] = content.pop(old)

    return change


def _text(name: str, text: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)


def _json(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return make


def _index(value: object) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": value}))


def _linked(name: str, target: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return make


def _sparse(name: str, size: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        path = folder / name if name else weights(folder)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.truncate(size)

    return make


def _of_header(name: str, change: Callable[[dict[str, Any]], object]) -> Case:
    return Case(f"header: {name}", "checkpoint", lambda folder: _header(weights(folder), change))


def _raw(name: str, header: bytes, body: bytes = b"", length: int | None = None) -> Case:
    return Case(f"header: {name}", "checkpoint", lambda folder: _with_header(weights(folder), header, body, length))


def _shift(content: dict[str, Any], by: int) -> None:
    entry = _first(content)
    entry["data_offsets"] = [offset + by for offset in entry["data_offsets"]]


def _large_header(folder: Path) -> None:
    """As large as a header may be, and nothing but small objects."""
    _with_header(weights(folder), b"{" + b",".join(b'"%d":{}' % n for n in range(900_000)) + b"}")


HEADERS = [
    _of_header("offsets overlap", lambda c: _shift(c, -8)),
    _of_header("offsets leave a gap", lambda c: _shift(c, 8)),
    _of_header("negative offsets", lambda c: _first(c).update(data_offsets=[-8, 0])),
    _of_header("offsets beyond 64 bits", lambda c: _first(c).update(data_offsets=[2**64, 2**64 + 8])),
    _of_header(
        "offsets beyond the end", lambda c: _first(c).update(data_offsets=[0, 2**40], dtype="I8", shape=[2**40])
    ),
    _of_header("offsets that are floats", lambda c: _first(c).update(data_offsets=[0.0, 8.0])),
    _of_header("offsets that are true and false", lambda c: _first(c).update(data_offsets=[False, True])),
    _of_header("offsets the wrong way round", lambda c: _first(c)["data_offsets"].reverse()),
    _of_header("three offsets", lambda c: _first(c)["data_offsets"].append(9)),
    _of_header("a dtype nobody knows", lambda c: _first(c).update(dtype="I7")),
    _of_header("a dtype that is a list", lambda c: _first(c).update(dtype=["I8"])),
    _of_header("a shape that overflows", lambda c: _first(c).update(shape=[2**40, 2**40])),
    _of_header("a shape of many dimensions", lambda c: _first(c).update(shape=[1] * 10_000)),
    _of_header("a negative shape", lambda c: _first(c).update(shape=[-1, -1])),
    _of_header("a shape that disagrees with the bytes", lambda c: _first(c).update(shape=[3])),
    _of_header("a huge integer", lambda c: _first(c).update(shape=[10**4000])),
    _of_header("metadata that is a list", lambda c: c.update(__metadata__=[])),
    _of_header("metadata of numbers", lambda c: c.update(__metadata__={"a": 1})),
    _of_header("a name that climbs", _renamed("../../etc/passwd")),
    _of_header("an absolute name", _renamed("/etc/passwd")),
    _of_header("a name with NUL", _renamed("a\0b")),
    _of_header("a name of 10 kB", _renamed("x" * 10_000)),
    _of_header("an empty name", _renamed("")),
    _of_header("a name of line ends", _renamed("a\n\r\x1b[2J")),
    _of_header("a name with lone surrogates", _renamed("\ud800")),
    _raw("duplicate names", b'{"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},' * 1 + b'"a":{}}', b"x"),
    _raw("many duplicate names", b"{" + b",".join([b'"a":1'] * 300_000 + [b'"%d":1' % n for n in range(99)]) + b"}"),
    _raw("not UTF-8", b'{"\xff\xfe":{}}'),
    _raw("nested deeply", b"[" * 500_000),
    _raw("objects nested deeply", b'{"a":' * 200_000),
    _raw("NaN", b'{"a":NaN}'),
    _raw("not an object", b"[1,2,3]"),
    _raw("nothing", b""),
    _raw("a length of 2^63", b"{}", length=2**63),
    _raw("a length of 2^64 - 1", b"{}", length=2**64 - 1),
    _raw("a length beyond the end", b"{}", length=1 << 30),
    Case("header: very large", "checkpoint", _large_header),
    Case("weights: a sparse file of 2 TB", "checkpoint", _sparse("", 2 << 40)),
    Case("weights: truncated", "checkpoint", _sparse("", 5000)),
    Case("weights: empty", "checkpoint", _sparse("", 0)),
    Case("weights: a device", "checkpoint", lambda f: _linked(weights(f).name, "/dev/zero")(f)),
    Case("weights: a link to itself", "checkpoint", lambda f: _linked(weights(f).name, weights(f).name)(f)),
    Case("weights: a pipe", "checkpoint", lambda f: (weights(f).rename(f / "x"), os.mkfifo(f / "a.safetensors"))),
    Case("weights: a folder", "checkpoint", lambda f: (weights(f).rename(f / "x"), (f / "a.safetensors").mkdir())),
]

CHECKPOINTS = [
    Case("index: points outside", "checkpoint", _index({"a": "../outside/secret.safetensors"})),
    Case("index: an absolute path", "checkpoint", _index({"a": "/etc/passwd.safetensors"})),
    Case("index: not a name", "checkpoint", _index({"a": 7})),
    Case("index: NUL", "checkpoint", _index({"a": "a\0.safetensors"})),
    Case("index: a file that is not there", "checkpoint", _index({"a": "b.safetensors"})),
    Case("index: a list", "checkpoint", _index(["a"])),
    Case("index: nested deeply", "checkpoint", _text("model.safetensors.index.json", "[" * 100_000)),
    Case("index: a link in a loop", "checkpoint", _linked("a.safetensors.index.json", "a.safetensors.index.json")),
    Case("index: a device", "checkpoint", _linked("a.safetensors.index.json", "/dev/zero")),
    Case("description: a list", "checkpoint", _text(DESCRIPTION, "[]")),
    Case("description: nested deeply", "checkpoint", _text(DESCRIPTION, '{"a":' * 100_000)),
    Case("description: not UTF-8", "checkpoint", _text(DESCRIPTION, b"\xff\xfe{}")),
    Case("description: duplicate keys", "checkpoint", _text(DESCRIPTION, '{"a":"FLOAT","a":"W8A8S"}')),
    Case("description: a type nobody knows", "checkpoint", _json(DESCRIPTION, lambda c: c.update({"a.weight": "X"}))),
    Case("description: a tensor that is not there", "checkpoint", _json(DESCRIPTION, lambda c: c.update(b="FLOAT"))),
    Case("description: a 10 kB name", "checkpoint", _json(DESCRIPTION, lambda c: c.update({"x" * 10**4: "FLOAT"}))),
    Case("description: a link that leads outside", "checkpoint", _linked(DESCRIPTION, "/etc/hostname")),
    Case("description: a device", "checkpoint", _linked(DESCRIPTION, "/dev/zero")),
    Case("description: a sparse file", "checkpoint", _sparse(DESCRIPTION, 1 << 40)),
    Case("description: huge numbers", "checkpoint", _text(DESCRIPTION, '{"a":' + "9" * 100_000 + "}")),
    Case("config: a list", "checkpoint", _text("config.json", "[]")),
    Case("config: sizes beyond reason", "checkpoint", _json("config.json", lambda c: c.update(hidden_size=2**62))),
    Case("config: a size of 0", "checkpoint", _json("config.json", lambda c: c.update(num_attention_heads=0))),
    Case("config: sizes that are text", "checkpoint", _json("config.json", lambda c: c.update(vocab_size="1"))),
    Case("config: a million layers", "checkpoint", _json("config.json", lambda c: c.update(num_hidden_layers=10**6))),
    Case("config: infinity", "checkpoint", _json("config.json", lambda c: c.update(hidden_size=float("inf")))),
    Case("config: another architecture", "checkpoint", _json("config.json", lambda c: c.update(architectures=["X"]))),
    Case("config: a sparse file", "checkpoint", _sparse("config.json", 1 << 40)),
    Case("config: a device", "checkpoint", _linked("config.json", "/dev/zero")),
    Case("code beside the weights", "checkpoint", _text("modeling_qwen3.py", "open('touched', 'w')"), harmless=True),
    Case(
        "a pickle beside the weights",
        "checkpoint",
        _text("a.bin", b"cos\nsystem\n(S'touch touched'\ntR."),
        harmless=True,
    ),
]

DIRECTORIES = [
    Case("manifest: edited", "directory", _json(MANIFEST, lambda c: c.update(model="other"))),
    Case("manifest: a name that climbs", "directory", _json(MANIFEST, lambda c: c["ranks"][0].update(file="../x"))),
    Case("manifest: nested deeply", "directory", _text(MANIFEST, '{"options":' * 100_000)),
    Case("manifest: a list", "directory", _text(MANIFEST, "[]")),
    Case("manifest: huge numbers", "directory", _json(MANIFEST, lambda c: c.update(tensor_parallel_size=10**30))),
    Case("manifest: another version", "directory", _json(MANIFEST, lambda c: c.update(format_version=2))),
    Case("manifest: a sparse file", "directory", _sparse(MANIFEST, 1 << 40)),
    Case("manifest: a link", "directory", _linked(MANIFEST, "/etc/hostname")),
    Case("manifest: a device", "directory", _linked(MANIFEST, "/dev/zero")),
    Case("directory: a header that lies", "directory", lambda f: _header(weights(f), lambda c: _shift(c, 16))),
    Case("directory: a very large header", "directory", _large_header),
    Case("directory: a rank that is a device", "directory", lambda f: _linked(weights(f).name, "/dev/zero")(f)),
    Case(
        "directory: a rank of a huge number",
        "directory",
        lambda f: (f / "model-rank-999999-part-0.safetensors").write_bytes(weights(f).read_bytes()),
    ),
    Case(
        "no manifest, and a rank of a huge number",
        "directory",
        lambda f: ((f / MANIFEST).unlink(), weights(f).rename(f / "model-rank-999999-part-0.safetensors")),
    ),
    Case(
        "no manifest, an info that lies", "directory", lambda f: ((f / MANIFEST).unlink(), _info_lies(f)), harmless=True
    ),
    Case(
        "no manifest, no description",
        "directory",
        lambda f: ((f / MANIFEST).unlink(), (f / DESCRIPTION).unlink()),
        harmless=True,
    ),
]


def _info_lies(folder: Path) -> None:
    """An info tensor that claims a matrix of 2^60 columns."""
    path = weights(folder)
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    content = json.loads(data[8 : 8 + length])
    begin = next(entry for name, entry in content.items() if name.endswith(".info"))["data_offsets"][0]
    struct.pack_into("<q", data, 8 + length + begin + 16, 2**60)
    path.write_bytes(data)


# ----------------------------------------------------------------------------- manifests whose digest is right, and lie


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
        place = {"begin": begin, "end": end, "hash": _hash(data[begin:end])}
        tensor = known.get(name, other) | {"name": name, "dtype": entry["dtype"], "shape": entry["shape"]} | place
        rank["tensors"].append(tensor)


def _without_manifest(name: str, change: Callable[[Path], object], *, harmless: bool = False) -> Case:
    return Case(f"no manifest: {name}", "directory", lambda f: ((f / MANIFEST).unlink(), change(f)), harmless)


def _model(name: str, model: str) -> Case:
    return _sealed(f"a model {name}", lambda c: c.update(model=model))


def _absolute_model(folder: Path) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    content["model"] = str(folder.parent / "escaped")
    _reseal(folder, content)


def _rank(name: str, number: int = 0, /, **changes: object) -> Case:
    return _sealed(f"a rank {name}", lambda c: c["ranks"][number].update(changes))


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
    return lambda folder: _header(weights(folder), change)


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
    return _rehashed(f"config: {name}", _json("config.json", lambda c: c.update(changes)))


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
    _sealed("a tensor missing", lambda c: c["ranks"][1]["tensors"].pop()),
    _sealed("a tensor twice", lambda c: c["ranks"][1]["tensors"].append(c["ranks"][1]["tensors"][0])),
    _sealed("another architecture", lambda c: c.update(architecture="LlamaForCausalLM")),
    _sealed("an architecture that climbs", lambda c: c.update(architecture="../x")),
    _sealed("a tool of control characters", lambda c: c.update(tool_version="1\x1b[2J")),
    _sealed("a codec of version 0", lambda c: c.update(codec_version=0)),
    _sealed("a source that is no hash", lambda c: c.update(source="../x")),
    _sealed("another format", lambda c: c.update(format_version=2, tool_version="9.0")),
    _rehashed("info of another shape with as many tiles", _info(lambda v: _set(v, 3, v[3] - 1))),
    _rehashed("info of 2^60 columns", _info(lambda v: _set(v, 2, 2**60))),
    _rehashed("info of negative rows", _info(lambda v: _set(v, 3, -1))),
    _rehashed("info of bytes", _change_header(_info_of_bytes)),
    _rehashed("rows and columns exchanged", _change_header(_rows_swapped)),
    _rehashed("a tensor of another name", _change_header(lambda c: c.update(x=c.pop("model.norm.weight")))),
    _rehashed("a compressed layer described as W8A8S", _described),
    _rehashed("a description without types", _text(DESCRIPTION, "{}")),
    _config("another architecture", architectures=["LlamaForCausalLM"]),
    _config("sizes beyond reason", hidden_size=2**62),
    _config("other sizes", intermediate_size=1024),
    _config("another number of layers", num_hidden_layers=1),
    _config("a vocabulary that is a text", vocab_size="1"),
    _config("what takes the description's place", quantization_config={}),
    _rehashed("config: not JSON", _text("config.json", "[" * 100_000)),
    _rehashed("a tokenizer that is none", _text("tokenizer.json", "{}"), harmless=True),
    _rehashed("settings of a tokenizer, nested deeply", _text("tokenizer_config.json", "[" * 100_000), harmless=True),
    _rehashed("a rank that is a link", lambda f: (weights(f).rename(f.parent / "rank"), weights_link(f))),
]

UNSEALED = [
    _without_manifest("no config", lambda f: (f / "config.json").unlink()),
    _without_manifest("a config of another model", _json("config.json", lambda c: c.update(num_hidden_layers=1))),
    _without_manifest("a config nested deeply", _text("config.json", "[" * 100_000)),
    _without_manifest("a description nested deeply", _text(DESCRIPTION, '{"a":' * 100_000)),
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
    _without_manifest("a rank that is a folder", lambda f: (weights(f).unlink(), (f / RANK_0).mkdir())),
]


def weights_link(folder: Path) -> None:
    (folder / RANK_0).symlink_to(folder.parent / "rank")


PRESETS = [
    Case("preset: aliases that multiply", "preset", _text(PRESET, "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n")),
    Case(
        "preset: a Python object", "preset", _text(PRESET, "name: !!python/object/apply:os.system ['touch touched']\n")
    ),
    Case("preset: nested deeply", "preset", _text(PRESET, "name: " + "[" * 30_000)),
    Case("preset: a key twice", "preset", _text(PRESET, "name: a\nname: b\n")),
    Case("preset: keys nobody knows", "preset", _text(PRESET, "name: a\nshell: rm\n")),
    Case("preset: a list", "preset", _text(PRESET, "- a\n")),
    Case("preset: wrong types", "preset", _text(PRESET, "name: [a]\nmax_ratio: many\n")),
    Case("preset: binary", "preset", _text(PRESET, bytes(range(256)))),
    Case("preset: too large", "preset", _text(PRESET, "name: a\n" + "# x\n" * 100_000)),
    Case("preset: a merge key", "preset", _text(PRESET, "<<: {name: a}\nname: b\nmax_ratio: 7\n")),
    Case(
        "preset: patterns without end",
        "preset",
        _text(PRESET, "name: a\nkeep: ['" + "*a" * 5000 + "b']\n"),
        harmless=True,
    ),
    Case("preset: a device", "preset", _linked(PRESET, "/dev/zero")),
]

BATCHES = [
    Case("batch: aliases that multiply", "batch", _text(BATCH, "a: &a [x,x]\njobs: [*a,*a]\n")),
    Case("batch: a Python object", "batch", _text(BATCH, "jobs: !!python/object/apply:os.system ['touch touched']\n")),
    Case("batch: nested deeply", "batch", _text(BATCH, "jobs: " + "[" * 30_000)),
    Case("batch: a million jobs", "batch", _text(BATCH, "jobs:\n" + "- {model: a}\n" * 1_000_000)),
    Case("batch: shell in a path", "batch", _text(BATCH, 'jobs: [{model: "$(touch touched)"}]\n')),
    Case(
        "batch: a model that is a device",
        "batch",
        lambda f: (_linked("device", "/dev/zero")(f), _text(BATCH, "jobs: [{model: device}]\n")(f)),
    ),
    Case("batch: sizes beyond reason", "batch", _text(BATCH, f"jobs: [{{model: ., tp: [{10**30}]}}]\n")),
]

CASES = [*HEADERS, *CHECKPOINTS, *DIRECTORIES, *SEALED, *UNSEALED, *PRESETS, *BATCHES]


def commands(folder: Path, output: Path) -> list[list[str]]:
    """Every command that takes a directory, given one. output: where those write that write."""
    more = ["-j", "1", "-o", str(output)]
    path = str(folder)
    return [
        ["verify", path, "-j", "1"],
        ["verify", path, "--quick"],
        ["inspect", path],
        ["compare", path, path, "-j", "1"],
        ["reshard", path, "--tp", "1", *more],
        ["decompress", path, *more],
        ["decompress", path, "--checkpoint", "-o", str(output)],
        ["serve", path, "--print"],
        ["serve", path, "--container"],
        ["fit", path],
        ["generate", path, "--token-ids", "1", "--max-new-tokens", "1"],
    ]
