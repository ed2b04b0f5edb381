"""Installed distributions as Python finds them: user site, system packages and PYTHONPATH included."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Sequence


def version_of(package: str, import_path: Sequence[str] | None = None) -> str | None:
    """The version of the distribution that comes first on the import path (default: this Python's); None without one.

    Names are compared as PEP 503 normalizes them: torch_npu is torch-npu.
    """
    for distribution in importlib.metadata.distributions(path=list(sys.path if import_path is None else import_path)):
        if _normalized(distribution.metadata["Name"] or "") == _normalized(package):
            return distribution.version
    return None


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
