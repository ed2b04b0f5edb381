"""quant_model_description.json: the quantization type of every tensor, as msmodelslim writes it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..errors import InputError, Problem
from ..io import reading
from ..io.documents import parse_json, read_small

NAME: Final = "quant_model_description.json"
LEGACY_NAMES: Final = ("quant_model_description_w8a8s.json",)

# Keys that are not tensors. Keys nobody knows are told from tensors by their value, which is then no type, and carried
# over untouched.
META_KEYS: Final = frozenset(
    {
        "model_quant_type",
        "version",
        "group_size",
        "kv_cache_type",
        "kv_quant_type",
        "fa_quant_type",
        "reduce_quant_type",
        "metadata",
        "optional",
    }
)
TYPES: Final = frozenset(
    {
        *("FLOAT", "W8A8S", "W8A8", "W8A8_DYNAMIC", "W8A8_MIX", "W8A16", "W4A16", "W4A8_DYNAMIC"),
        *("W16A16S", "W8A8SC", "W16A16SC", "C8", "FAQuant", "NF4", "UNKNOWN"),
    }
)
_LARGEST: Final = 64 << 20


@dataclass(frozen=True)
class Description:
    """A parsed description: `types` by tensor name, `content` the whole file as it was, in its order."""

    path: Path
    types: dict[str, str] = field(default_factory=dict)
    content: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, path: Path) -> Description:
        """Read a description file; raises InputError if it is not an object of types."""
        content = parse_json(read_small(path, _LARGEST), str(path))
        types = {}
        for key, value in content.items():
            if key in META_KEYS:
                continue
            if isinstance(value, str) and value in TYPES:
                types[key] = value
            elif isinstance(value, str) and key.endswith((".weight", ".bias")):
                raise InputError(
                    f"unknown quantization type {value[:40]!r}", f"{path} ({key})", "types: " + ", ".join(sorted(TYPES))
                )
        return cls(path, types, content)

    def type_of(self, module: str) -> str | None:
        """The type of a linear layer, None if the description does not name its weight."""
        return self.types.get(f"{module}.weight")

    def of(self, tensors: Container[str]) -> Description:
        """The description of these tensors alone; keys that are no tensor's are carried over."""
        types = {name: kind for name, kind in self.types.items() if name in tensors}
        content = {key: value for key, value in self.content.items() if key not in self.types or key in types}
        return Description(self.path, types, content)

    @property
    def has_norm_bias(self) -> bool:
        """Whether vLLM gives every RMSNorm a bias: it does if any key contains norm.bias."""
        return any("norm.bias" in key for key in self.content)


def find(folder: Path) -> tuple[Path | None, list[Problem]]:
    """The description of a checkpoint folder."""
    for name in (NAME, *LEGACY_NAMES):
        if reading.exists(folder / name):
            return folder / name, []
    problem = Problem(
        "no quantization description", str(folder / NAME), "this is not a checkpoint that msmodelslim quantized"
    )
    return None, [problem]
