"""Presets: what is known of a model beforehand. One ships per published recipe; users may write their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from ..checkpoint import Checkpoint, ModelConfig
from ..errors import InputError
from ..io import reading
from ..io.documents import parse_yaml, read_small
from ..layouts import linear_members
from .options import DEFAULT_MAX_RATIO
from .patterns import matches

_LARGEST: Final = 64 << 10  # bytes; YAML is slow to parse

# Installed with the package; in a source tree they lie beside it.
_CONFIGS: Final = (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The values of config.json by which a model is recognized."""

    architecture: str
    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int


class Serving(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to serve a model: sequences at a time, tokens per sequence, batch sizes of captured graphs, if known."""

    max_num_seqs: int
    max_model_len: int
    capture_sizes: list[int] | None = None


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model's preset. Patterns name layers by checkpoint or fused name, with * and ? as in a shell.

    float_layers: left FLOAT by the published recipe (None: unknown); keep: W8A8S layers to leave uncompressed;
    max_ratio: a layer that compresses to this or more stays as it is; serve: by TP size, "default" for all others;
    served_name: what clients call the model.
    """

    name: str
    match: Match | None = None
    float_layers: list[str] | None = None
    keep: list[str] = []
    max_ratio: float = DEFAULT_MAX_RATIO
    serve: dict[str, Serving] = {}
    served_name: str | None = None

    def serving(self, tp: int) -> Serving | None:
        """The serving settings for a tensor-parallel size."""
        return self.serve.get(str(tp), self.serve.get("default"))


NONE: Final = Preset("none")


def load(path: Path) -> Preset:
    """Read a preset; raises InputError if it is not one."""
    data = read_small(path, _LARGEST)
    try:
        content = parse_yaml(data, str(path))
        serve = content.get("serve")
        if isinstance(serve, dict):
            content["serve"] = {str(key): value for key, value in serve.items()}
        preset = msgspec.convert(content, Preset)
    except (msgspec.ValidationError, RecursionError) as error:
        remedy = f"{shipped_file('presets/qwen3-8b.yaml')} explains the keys"
        raise InputError(f"not a preset ({error})", str(path), remedy) from None
    if not 0 < preset.max_ratio < 1:
        raise InputError(f"max_ratio {preset.max_ratio:g} is not between 0 and 1", str(path))
    if any(key != "default" and not key.isdecimal() for key in preset.serve):
        raise InputError("serve has a key that is neither a TP size nor default", str(path))
    return preset


def shipped_file(name: str) -> Path:
    """Where a file of configs/ is on this machine: the annotated examples, the presets."""
    folder = next((folder for folder in _CONFIGS if reading.is_folder(folder)), _CONFIGS[0])
    return folder / name


def shipped(*texts: object) -> Iterator[Preset]:
    """The presets that come with the package, of those that have all of these texts in their files.

    Others need not be parsed, which takes longer than anything else in planning.
    """
    for path in reading.matching(shipped_file("presets"), "*.yaml"):
        data = read_small(path, _LARGEST)
        if all(str(text).encode("utf-8", "surrogateescape") in data for text in texts):
            yield _load_once(path)


@cache
def _load_once(path: Path) -> Preset:
    return load(path)


def choose(config: ModelConfig, wanted: str = "auto") -> Preset:
    """The preset for a model: "auto" for the one that matches, "none", a shipped one's name, or a file."""
    if wanted == "none":
        return NONE
    if wanted != "auto":
        named = next((preset for preset in shipped(wanted) if preset.name == wanted), None)
        return named or load(Path(wanted))
    sizes = Match(config.architecture, config.layers, config.hidden_size, config.intermediate_size)
    return next((preset for preset in shipped(*msgspec.structs.astuple(sizes)) if preset.match == sizes), NONE)


def deviations(preset: Preset, checkpoint: Checkpoint) -> list[str]:
    """Linear layers that are FLOAT though the published recipe quantizes them, or the other way round."""
    if preset.float_layers is None:
        return []
    differing = []
    for name in linear_members(checkpoint.config):
        quantization = checkpoint.description.type_of(name)
        expected = any(matches(pattern, (name,)) for pattern in preset.float_layers)
        if expected != (quantization == "FLOAT"):
            differing.append(f"{name} is {quantization}")
    return _summary(differing, preset.name)


def _summary(differing: Iterable[str], name: str) -> list[str]:
    items = list(differing)
    if not items:
        return []
    listed = ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")
    return [f"the checkpoint differs from the published recipe of {name}: {listed}"]
