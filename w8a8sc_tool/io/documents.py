"""Text from files nobody vouches for: small files, JSON and YAML, each with its limits."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

from ..errors import InputError
from ..text import is_document
from . import lfs, reading

_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")  # the only way for one into JSON: UTF-8 has none


def read_small(path: Path, largest: int) -> bytes:
    """A file that must fit in memory, which a device, a pipe or a sparse giant does not."""
    data = reading.whole(path, largest)
    lfs.refuse_pointer(data, str(path))
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"the key {counts.most_common(1)[0][0][:80]!r} occurs twice")
    return mapping


def parse_json(text: bytes, where: str) -> dict[str, Any]:
    """A JSON object from a file nobody vouches for; raises InputError for anything else, duplicate keys included."""
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise InputError(f"not valid JSON ({reason})", where, "restore the original file") from None
    if not isinstance(content, dict):
        raise InputError(f"a JSON object is wanted, not {type(content).__name__}", where, "restore the original file")
    if _SURROGATE.search(text) and not is_document(content):
        raise InputError("not valid JSON (half of a surrogate pair)", where, "restore the original file")
    return content


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def parse_yaml(data: bytes, where: str) -> dict[str, Any]:
    """A YAML mapping from a file nobody vouches for; raises InputError for anything else."""
    import yaml  # not for whoever reads JSON alone

    from .plain_yaml import PlainLoader

    try:
        content = yaml.load(data.decode("utf-8"), PlainLoader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
        raise InputError(f"not valid YAML ({reason})", where) from None
    if not isinstance(content, dict):
        raise InputError(f"a mapping is wanted, not {type(content).__name__}", where)
    if not is_document(content):
        raise InputError("not valid YAML (half of a surrogate pair)", where)
    return content
