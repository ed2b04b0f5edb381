"""Which versions of this package a Python has: two of them would register one load format."""

from __future__ import annotations

import importlib.metadata

from .._version import VERSION


def other_versions() -> list[str]:
    """All versions, this one first, if there are several; else nothing."""
    found = {VERSION: None} | {d.version: None for d in importlib.metadata.distributions(name="w8a8sc")}
    return list(found) if len(found) > 1 else []
