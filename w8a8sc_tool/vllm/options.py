"""The loader's options: `--model-loader-extra-config '{"verify": "sizes"}'`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, get_args, get_type_hints

from ..errors import UsageError

_FLAG: Final = "--model-loader-extra-config"


@dataclass(frozen=True)
class Options:
    """allocate: a compressed weight's own length, or its matrix's as sharded_state does. verify: against the manifest.

    embedding_copies: keep both layouts that vLLM Ascend makes of embeddings and lm_head, or only the one that is used.
    """

    allocate: Literal["exact", "full"] = "exact"
    verify: Literal["hashes", "sizes"] = "hashes"
    embedding_copies: Literal["keep", "drop"] = "keep"

    @classmethod
    def parse(cls, content: Any) -> Options:
        """The options out of vLLM's dictionary; raises UsageError for names and values that do not exist."""
        if content is not None and not isinstance(content, dict):
            raise UsageError(f"{_FLAG} is {type(content).__name__}", remedy="give a JSON object, or leave it out")
        known = {field.name: get_args(get_type_hints(cls)[field.name]) for field in fields(cls)}
        for name, value in (content or {}).items():
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                hint = f"{near[0]} may be meant; " if near else ""
                remedy = f"{hint}known are {', '.join(known)}"
                raise UsageError(f"{_FLAG} has no option {str(name)[:40]!r} with --load-format w8a8sc", remedy=remedy)
            if value not in known[name]:
                remedy = f"give {' or '.join(known[name])}"
                raise UsageError(f"{_FLAG}: {name} cannot be {str(value)[:40]!r}", remedy=remedy)
        return cls(**(content or {}))
