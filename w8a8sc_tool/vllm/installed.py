"""Which versions of this package a Python has: two of them would register one load format."""

from __future__ import annotations

import importlib.metadata

from .._version import VERSION


def other_versions() -> list[str]:
    """All versions, this one first, if there are several; else nothing."""
    versions = {VERSION: None} | {d.version: None for d in importlib.metadata.distributions(name="w8a8sc")}
    return list(versions) if len(versions) > 1 else []
