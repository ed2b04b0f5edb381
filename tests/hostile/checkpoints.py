"""Checkpoints: headers that lie, and everything beside the weights."""

from __future__ import annotations

import os
from pathlib import Path

from .cases import (
    DESCRIPTION,
    Case,
    first_entry,
    in_json,
    in_turn,
    index,
    large_header,
    linked,
    of_header,
    raw_header,
    renamed,
    shift,
    sparse,
    text,
    weights,
)


def weights_aside(folder: Path) -> None:
    weights(folder).rename(folder / "x")


HEADERS = [
    of_header("offsets overlap", lambda c: shift(c, -8)),
    of_header("offsets leave a gap", lambda c: shift(c, 8)),
    of_header("negative offsets", lambda c: first_entry(c).update(data_offsets=[-8, 0])),
    of_header("offsets beyond 64 bits", lambda c: first_entry(c).update(data_offsets=[2**64, 2**64 + 8])),
    of_header(
        "offsets beyond the end", lambda c: first_entry(c).update(data_offsets=[0, 2**40], dtype="I8", shape=[2**40])
    ),
    of_header("offsets that are floats", lambda c: first_entry(c).update(data_offsets=[0.0, 8.0])),
    of_header("offsets that are true and false", lambda c: first_entry(c).update(data_offsets=[False, True])),
    of_header("offsets the wrong way round", lambda c: first_entry(c)["data_offsets"].reverse()),
    of_header("three offsets", lambda c: first_entry(c)["data_offsets"].append(9)),
    of_header("a dtype nobody knows", lambda c: first_entry(c).update(dtype="I7")),
    of_header("a dtype that is a list", lambda c: first_entry(c).update(dtype=["I8"])),
    of_header("a shape that overflows", lambda c: first_entry(c).update(shape=[2**40, 2**40])),
    of_header("a shape of many dimensions", lambda c: first_entry(c).update(shape=[1] * 10_000)),
    of_header("a negative shape", lambda c: first_entry(c).update(shape=[-1, -1])),
    of_header("a shape that disagrees with the bytes", lambda c: first_entry(c).update(shape=[3])),
    of_header("a huge integer", lambda c: first_entry(c).update(shape=[10**4000])),
    of_header("metadata that is a list", lambda c: c.update(__metadata__=[])),
    of_header("metadata of numbers", lambda c: c.update(__metadata__={"a": 1})),
    of_header("a name that climbs", renamed("../../etc/passwd")),
    of_header("an absolute name", renamed("/etc/passwd")),
    of_header("a name with NUL", renamed("a\0b")),
    of_header("a name of 10 kB", renamed("x" * 10_000)),
    of_header("an empty name", renamed("")),
    of_header("a name of line ends", renamed("a\n\r\x1b[2J")),
    of_header("a name with lone surrogates", renamed("\ud800")),
    raw_header("duplicate names", b'{"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},' * 1 + b'"a":{}}', b"x"),
    raw_header(
        "many duplicate names", b"{" + b",".join([b'"a":1'] * 300_000 + [b'"%d":1' % n for n in range(99)]) + b"}"
    ),
    raw_header("not UTF-8", b'{"\xff\xfe":{}}'),
    raw_header("nested deeply", b"[" * 500_000),
    raw_header("objects nested deeply", b'{"a":' * 200_000),
    raw_header("NaN", b'{"a":NaN}'),
    raw_header("not an object", b"[1,2,3]"),
    raw_header("nothing", b""),
    raw_header("a length of 2^63", b"{}", length=2**63),
    raw_header("a length of 2^64 - 1", b"{}", length=2**64 - 1),
    raw_header("a length beyond the end", b"{}", length=1 << 30),
    Case("header: very large", "checkpoint", large_header),
    Case("weights: a sparse file of 2 TB", "checkpoint", sparse("", 2 << 40)),
    Case("weights: truncated", "checkpoint", sparse("", 5000)),
    Case("weights: empty", "checkpoint", sparse("", 0)),
    Case("weights: a device", "checkpoint", lambda f: linked(weights(f).name, "/dev/zero")(f)),
    Case("weights: a link to itself", "checkpoint", lambda f: linked(weights(f).name, weights(f).name)(f)),
    Case("weights: a pipe", "checkpoint", in_turn(weights_aside, lambda f: os.mkfifo(f / "a.safetensors"))),
    Case("weights: a folder", "checkpoint", in_turn(weights_aside, lambda f: (f / "a.safetensors").mkdir())),
]

CHECKPOINTS = [
    Case("index: points outside", "checkpoint", index({"a": "../outside/secret.safetensors"})),
    Case("index: an absolute path", "checkpoint", index({"a": "/etc/passwd.safetensors"})),
    Case("index: not a name", "checkpoint", index({"a": 7})),
    Case("index: NUL", "checkpoint", index({"a": "a\0.safetensors"})),
    Case("index: a file that is not there", "checkpoint", index({"a": "b.safetensors"})),
    Case("index: a list", "checkpoint", index(["a"])),
    Case("index: nested deeply", "checkpoint", text("model.safetensors.index.json", "[" * 100_000)),
    Case("index: a link in a loop", "checkpoint", linked("a.safetensors.index.json", "a.safetensors.index.json")),
    Case("index: a device", "checkpoint", linked("a.safetensors.index.json", "/dev/zero")),
    Case("description: a list", "checkpoint", text(DESCRIPTION, "[]")),
    Case("description: nested deeply", "checkpoint", text(DESCRIPTION, '{"a":' * 100_000)),
    Case("description: not UTF-8", "checkpoint", text(DESCRIPTION, b"\xff\xfe{}")),
    Case("description: duplicate keys", "checkpoint", text(DESCRIPTION, '{"a":"FLOAT","a":"W8A8S"}')),
    Case("description: a type nobody knows", "checkpoint", in_json(DESCRIPTION, lambda c: c.update({"a.weight": "X"}))),
    Case("description: a tensor that is not there", "checkpoint", in_json(DESCRIPTION, lambda c: c.update(b="FLOAT"))),
    Case("description: a 10 kB name", "checkpoint", in_json(DESCRIPTION, lambda c: c.update({"x" * 10**4: "FLOAT"}))),
    Case("description: a link that leads outside", "checkpoint", linked(DESCRIPTION, "/etc/hostname")),
    Case("description: a device", "checkpoint", linked(DESCRIPTION, "/dev/zero")),
    Case("description: a sparse file", "checkpoint", sparse(DESCRIPTION, 1 << 40)),
    Case("description: huge numbers", "checkpoint", text(DESCRIPTION, '{"a":' + "9" * 100_000 + "}")),
    Case("config: a list", "checkpoint", text("config.json", "[]")),
    Case("config: sizes beyond reason", "checkpoint", in_json("config.json", lambda c: c.update(hidden_size=2**62))),
    Case("config: a size of 0", "checkpoint", in_json("config.json", lambda c: c.update(num_attention_heads=0))),
    Case("config: sizes that are text", "checkpoint", in_json("config.json", lambda c: c.update(vocab_size="1"))),
    Case("config: a million layers", "checkpoint", in_json("config.json", lambda c: c.update(num_hidden_layers=10**6))),
    Case("config: infinity", "checkpoint", in_json("config.json", lambda c: c.update(hidden_size=float("inf")))),
    Case("config: another architecture", "checkpoint", in_json("config.json", lambda c: c.update(architectures=["X"]))),
    Case("config: a sparse file", "checkpoint", sparse("config.json", 1 << 40)),
    Case("config: a device", "checkpoint", linked("config.json", "/dev/zero")),
    Case("code beside the weights", "checkpoint", text("modeling_qwen3.py", "open('touched', 'w')"), harmless=True),
    Case(
        "a pickle beside the weights",
        "checkpoint",
        text("a.bin", b"cos\nsystem\n(S'touch touched'\ntR."),
        harmless=True,
    ),
]
