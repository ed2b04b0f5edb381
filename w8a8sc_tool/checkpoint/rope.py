"""Rotary position embeddings as config.json says them, in the layout of transformers 4 or of transformers 5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .fields import Fields, is_number

DEFAULT_THETA: Final = 10000.0  # PreTrainedConfig.default_theta of transformers 5, rope_theta of Qwen3Config in 4.57
_LAYER_TYPES: Final = ("full_attention", "sliding_attention", "chunked_attention", "linear_attention")

# Parameters of scaled types, which mean nothing to the default one.
_OF_SCALED_TYPES: Final = frozenset(
    {
        *("factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale"),
        *("mscale_all_dim", "truncate", "low_freq_factor", "high_freq_factor", "short_factor", "long_factor"),
    }
)

# How positions of images turn. Text, whose three positions are one, turns as without them.
_OF_IMAGES: Final = frozenset({"mrope_section", "mrope_interleaved"})

# What a llama3 rotation needs: transformers and vLLM read all four.
_OF_LLAMA3: Final = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")

# Of these types, vLLM does not multiply max_position_embeddings by `factor` (its _get_and_verify_max_len).
_UNSCALED_LENGTH: Final = ("su", "longrope", "llama3")


@dataclass(frozen=True)
class Rope:
    """Rotation by position: the base theta, the share of a head that turns, and how frequencies are scaled.

    type: transformers' rope_type, "default" without scaling; parameters: what else belongs to it, factor for example.
    images: whether the model also has positions of images, which turn otherwise than those of text. usual: the share
    that turns in models of the architecture that do not name one.
    """

    theta: float = DEFAULT_THETA
    type: str = "default"
    partial: float = 1.0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    images: bool = False
    usual: float = 1.0

    @classmethod
    def parse(cls, fields: Fields, *, images: bool = False) -> Rope:
        """Both layouts: rope_theta and rope_scaling, or rope_parameters with everything in it.

        Where both are given, transformers 4 and 5 choose differently, so they have to agree.
        """
        new, old = fields.mapping("rope_parameters"), fields.mapping("rope_scaling")
        if any(name in new for name in _LAYER_TYPES):
            fields.refuse("rope_parameters differ by layer type", "this architecture has one kind of rotation")
            return cls()
        kept = [{key: value for key, value in part.items() if value is not None} for part in (new, old)]
        scaled = [_scaling(part) for part in kept if part]
        if len(scaled) == 2 and scaled[0] != scaled[1]:
            fields.refuse("rope_parameters and rope_scaling say different things", "keep the one that is right")
        values = {
            key: _agreed(fields, key, [part.get(key) for part in (*kept, fields.content)], fields.default(key, default))
            for key, default in _SHARED.items()
        }
        name, parameters = scaled[0] if scaled else ("default", {})
        if not isinstance(name, str):
            fields.refuse(f"rope_type is {str(name)[:40]}, a name is wanted")
            name = "default"
        if "type" in new | old and "rope_type" in new | old and (new | old)["type"] != (new | old)["rope_type"]:
            fields.refuse("rope_type and its old name, type, say different things", "keep rope_type")
        usual = fields.default("partial_rotary_factor", 1.0)
        rope = cls(values["rope_theta"], name, values["partial_rotary_factor"], parameters, images, usual)
        if name == "llama3":
            rope._check_llama3(fields)
        return rope

    def positions(self, fields: Fields, longest: int) -> int:
        """The longest sequence that vLLM allows, from max_position_embeddings: scaled types go beyond it."""
        if self.type in _UNSCALED_LENGTH:
            return longest
        if self.type == "yarn":
            longest = self._number(fields, "original_max_position_embeddings", longest)
        return int(longest * self._number(fields, "factor", 1))

    def _number(self, fields: Fields, key: str, default: int) -> Any:
        value = self.parameters.get(key, default)
        if not is_number(value) or not 0 < value <= 1 << 24:
            fields.refuse(f"{key} of the {self.type} rotation is {str(value)[:40]}, a number above 0 is wanted")
            return default
        return value

    def _check_llama3(self, fields: Fields) -> None:
        missing = [key for key in _OF_LLAMA3 if key not in self.parameters]
        if missing:
            fields.refuse(f"the llama3 rotation has no {' and no '.join(missing)}", "restore config.json")
            return
        _, low, high, _ = (self._number(fields, key, 1) for key in _OF_LLAMA3)
        if low >= high:
            fields.refuse(f"low_freq_factor, {low:g}, is not below high_freq_factor, {high:g}", "restore config.json")

    @property
    def llama3(self) -> tuple[float, float, float, float] | None:
        """factor, low_freq_factor, high_freq_factor, original_max_position_embeddings; None for another type."""
        if self.type != "llama3":
            return None
        factor, low, high, length = (float(self.parameters[key]) for key in _OF_LLAMA3)
        return factor, low, high, length

    @property
    def not_run(self) -> list[str]:
        """What the bundled runtime does not compute."""
        reasons = [] if self.type in ("default", "llama3") else [f"rope_type {self.type[:40]}"]
        if self.partial != self.usual:
            reasons.append(f"partial_rotary_factor {self.partial:g}")
        known = _OF_SCALED_TYPES | (_OF_IMAGES if self.images else frozenset())
        unknown = sorted(set(self.parameters) - known) if self.type == "default" else []
        if unknown:
            reasons.append(f"rope parameter {', '.join(unknown)[:80]}")
        return reasons

    def as_transformers_4(self) -> dict[str, Any]:
        """The keys that say the same to transformers 4."""
        keys: dict[str, Any] = {"rope_theta": self.theta}
        if self.partial != 1:
            keys["partial_rotary_factor"] = self.partial
        if self.type != "default" or (self.images and self.parameters):
            keys["rope_scaling"] = {"rope_type": self.type, **self.parameters}
        return keys


_SHARED: Final = {"rope_theta": DEFAULT_THETA, "partial_rotary_factor": 1.0}  # at the top in 4, in rope_parameters in 5


def _scaling(part: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The type and its parameters, without what stands at the top in transformers 4."""
    rest = {key: value for key, value in part.items() if key not in (*_SHARED, "rope_type", "type")}
    return part.get("rope_type", part.get("type", "default")), rest


def _agreed(fields: Fields, key: str, values: list[Any], default: float) -> float:
    """The one value of a key that may stand in several places."""
    given = [value for value in values if value is not None]
    wrong = [value for value in given if not is_number(value) or value <= 0]
    if wrong:
        fields.refuse(f"{key} is {str(wrong[0])[:40]}, a number above 0 is wanted")
        return default
    if len(set(given)) > 1:
        given_text = " and ".join(f"{value:g}" for value in given)
        fields.refuse(
            f"{key} is given twice, as {given_text}", "transformers 4 and 5 choose differently: keep the right one"
        )
    return float(given[0]) if given else default
