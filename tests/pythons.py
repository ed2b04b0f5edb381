"""The Pythons that tests start beside their own."""

from __future__ import annotations

import sys
from pathlib import Path

# What a virtual environment was made with; before 3.11, sys._base_executable is the environment's own.
BASE = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
