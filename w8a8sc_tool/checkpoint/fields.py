"""Values of a JSON object by key: each of its type, or a problem that names the key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from ..errors import Problem

_LARGEST_SIZE: Final = 1 << 24  # no dimension of a model comes near


class Fields:
    """The keys of an object with the defaults of a class; `problems` collects what is wrong with their values."""

    def __init__(self, content: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> None:
        self.content, self._defaults, self._where = content, defaults, where
        self.problems: list[Problem] = []

    def get(self, key: str) -> Any:
        """The value as it stands, the class's default if the key is absent."""
        return self.content.get(key, self._defaults.get(key))

    def default(self, key: str, otherwise: Any = None) -> Any:
        """What the key's absence means."""
        return self._defaults.get(key, otherwise)

    def size(self, key: str, null: int | None = None) -> int:
        """A whole number above 0. null: what a null means, if anything."""
        value = self.get(key)
        if value is None and null is not None:
            return null
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LARGEST_SIZE:
            self._refuse(key, value, "a size above 0")
            return 1
        return value

    def number(self, key: str) -> float:
        """A finite number above 0; null means the default."""
        value = self.get(key)
        value = self._defaults.get(key) if value is None else value
        if isinstance(value, (int, float)) and is_number(value) and value > 0:
            return float(value)
        self._refuse(key, value, "a number above 0")
        return 1.0

    def switch(self, key: str) -> bool:
        """True or false; null is false."""
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            self._refuse(key, value, "true or false")
        return value is True

    def mapping(self, key: str) -> dict[str, Any]:
        """An object; null is an empty one."""
        value = self.get(key)
        if value is not None and not isinstance(value, dict):
            self._refuse(key, value, "an object")
        return value if isinstance(value, dict) else {}

    def refuse(self, text: str, remedy: str = "") -> None:
        """Note a problem with the file."""
        self.problems.append(Problem(text, self._where, remedy))

    def _refuse(self, key: str, value: object, wanted: str) -> None:
        if key not in self.content:
            return self.refuse(f"{key} is missing, {wanted} is wanted")
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        return self.refuse(f"{key} is {shown[:40]}, {wanted} is wanted")


def is_number(value: object) -> bool:
    """Whether a JSON value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf
