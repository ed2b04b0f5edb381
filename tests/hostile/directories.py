"""Directories whose manifest shows that something was changed, or that have none."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from .cases import (
    DESCRIPTION,
    MANIFEST,
    Case,
    change_header_of,
    in_json,
    in_turn,
    large_header,
    linked,
    removed,
    shift,
    sparse,
    text,
    weights,
)


def info_lies(folder: Path) -> None:
    """An info tensor that claims a matrix of 2^60 columns."""
    path = weights(folder)
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    content = json.loads(data[8 : 8 + length])
    begin = next(entry for name, entry in content.items() if name.endswith(".info"))["data_offsets"][0]
    struct.pack_into("<q", data, 8 + length + begin + 16, 2**60)
    path.write_bytes(data)


DIRECTORIES = [
    Case("manifest: edited", "directory", in_json(MANIFEST, lambda c: c.update(model="other"))),
    Case("manifest: a name that climbs", "directory", in_json(MANIFEST, lambda c: c["ranks"][0].update(file="../x"))),
    Case("manifest: nested deeply", "directory", text(MANIFEST, '{"options":' * 100_000)),
    Case("manifest: a list", "directory", text(MANIFEST, "[]")),
    Case("manifest: huge numbers", "directory", in_json(MANIFEST, lambda c: c.update(tensor_parallel_size=10**30))),
    Case("manifest: another version", "directory", in_json(MANIFEST, lambda c: c.update(format_version=3))),
    Case("manifest: a sparse file", "directory", sparse(MANIFEST, 1 << 40)),
    Case("manifest: a link", "directory", linked(MANIFEST, "/etc/hostname")),
    Case("manifest: a device", "directory", linked(MANIFEST, "/dev/zero")),
    Case("directory: a header that lies", "directory", lambda f: change_header_of(weights(f), lambda c: shift(c, 16))),
    Case("directory: a very large header", "directory", large_header),
    Case("directory: a rank that is a device", "directory", lambda f: linked(weights(f).name, "/dev/zero")(f)),
    Case(
        "directory: a rank of a huge number",
        "directory",
        lambda f: (f / "model-rank-999999-part-0.safetensors").write_bytes(weights(f).read_bytes()),
    ),
    Case(
        "no manifest, and a rank of a huge number",
        "directory",
        in_turn(removed(MANIFEST), lambda f: weights(f).rename(f / "model-rank-999999-part-0.safetensors")),
    ),
    Case("no manifest, an info that lies", "directory", in_turn(removed(MANIFEST), info_lies), harmless=True),
    Case("no manifest, no description", "directory", in_turn(removed(MANIFEST), removed(DESCRIPTION)), harmless=True),
]
