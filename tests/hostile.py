"""Checkpoints, directories, presets and batch files made to mislead. Each case changes a copy of a good one."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

PRESET = "preset.yaml"
BATCH = "batch.yaml"

DESCRIPTION = "quant_model_description.json"
MANIFEST = "w8a8sc_manifest.json"


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

CASES = [*HEADERS, *CHECKPOINTS, *DIRECTORIES, *PRESETS, *BATCHES]
