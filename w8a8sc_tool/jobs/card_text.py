"""The model card's text: Markdown with YAML metadata on top, as ModelScope and Hugging Face read it.

Every name in it may be hostile. In running text and tables, characters that mean something in Markdown or HTML are
escaped; commands stand in fences longer than any run of backticks in them; metadata is written by the YAML library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import quote

import yaml

from .._version import VERSION
from ..io.amounts import size
from ..layouts import DEFAULT_TARGET, UNCOMPRESSED
from ..planning import FALLBACK_REASONS
from ..serving.command import quoted
from ..sharded_state import Manifest
from ..text import one_line
from .card_origin import Origin
from .serving import Advice

_MEANING: Final = re.compile(r"[\\`*_{}\[\]<>()#!|~&$:@]|(?<=www)\.", re.IGNORECASE)
_MOST_NAMES: Final = 12  # layers that are named per reason; inspect names all
_TAGS: Final = ("w8a8sc", "ascend", "310p", "atlas-300i-duo", "vllm", "vllm-ascend")


@dataclass(frozen=True)
class CardSize:
    """A directory of the tree. path: from the tree's root. advice: the command that serves it from there."""

    path: PurePosixPath
    manifest: Manifest
    advice: Advice

    @property
    def tp(self) -> int:
        return self.manifest.tensor_parallel_size

    @property
    def largest_rank(self) -> int:
        """Bytes of the largest rank's files."""
        return max(self.manifest.rank_bytes)


def render(sizes: Sequence[CardSize], origin: Origin, task: str) -> str:
    """The card of a tree. task: what the model does, as hubs name it."""
    metadata = yaml.safe_dump(_metadata(origin, task), sort_keys=False, allow_unicode=True, width=1000)
    sections = (_head(sizes), _table(sizes), _fallbacks(sizes), _verify(sizes), _serve(sizes), _origin(sizes, origin))
    body = "\n\n".join("\n".join(section) for section in map(list, sections) if section)
    return f"---\n{metadata}---\n\n{body}\n"


def escaped(text: str) -> str:
    """Text in Markdown that shows as it is, whatever is in it."""
    return _MEANING.sub(lambda match: f"\\{match[0]}", one_line(text))


def fenced(lines: Sequence[str]) -> list[str]:
    """Lines of code as a block."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}bash", *map(one_line, lines), fence]


def _metadata(origin: Origin, task: str) -> dict[str, Any]:
    content = {
        "license": origin.license,
        "license_name": origin.license_name,
        "license_link": origin.license_link,
        "base_model": list(origin.base_model),
        "base_model_relation": "quantized" if origin.base_model else None,
        "language": list(origin.languages),
        "pipeline_tag": task,  # Hugging Face's
        "tasks": [task],  # ModelScope's
        "tags": list(_TAGS),
    }
    return {key: value for key, value in content.items() if value}


def _head(sizes: Sequence[CardSize]) -> Iterator[str]:
    manifest = sizes[0].manifest
    types = {layer.quantization for item in sizes for layer in item.manifest.layers}
    compressed = sorted(types & set(UNCOMPRESSED))
    form = " and ".join(compressed or sorted(types - {"FLOAT"}) or ["FLOAT"])
    targets = sorted({str(item.manifest.options.get("target", DEFAULT_TARGET)) for item in sizes})
    yield f"# {escaped(manifest.model)}, {form} for Ascend 310P"
    yield ""
    yield (
        f"{escaped(manifest.model)} ({escaped(manifest.architecture)}) for Huawei Ascend 310P chips (Atlas 300I Duo), "
        f"as `sharded_state` directories for vLLM Ascend {', '.join(map(escaped, targets))}: one per tensor-parallel "
        "(TP) size, which is the number of chips that share the model."
    )
    if compressed:
        yield (
            f"Weights of type {form} are compressed without loss: they have the values of the checkpoint that they "
            "were made of, and the chip unpacks them as it multiplies."
        )


def _table(sizes: Sequence[CardSize]) -> Iterator[str]:
    yield "## Sizes"
    yield ""
    yield "| TP | directory | bytes per rank | ratio | layers compressed | layers not compressed |"
    yield "|---|---|---|---|---|---|"
    for item in sizes:
        manifest = item.manifest
        ratio = f"{manifest.weight_ratio:.3f}" if manifest.weight_ratio is not None else "none is compressed"
        share = manifest.compressed_share
        part = f", {share:.0%} of all int8 weights" if share is not None and manifest.weight_ratio is not None else ""
        uncompressed = ", ".join(f"{count} {reason}" for reason, count in sorted(manifest.fallbacks.items())) or "none"
        done = sum(layer.quantization in UNCOMPRESSED for layer in manifest.layers)
        cells = (
            *(str(item.tp), _link(item.path), f"{item.largest_rank} ({size(item.largest_rank)})", ratio),
            *(f"{done} of {len(manifest.layers)}{part}", uncompressed),
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield (
        "A directory is served with its own size only. A rank is what one chip loads; the bytes are those of the "
        "largest one's files. Ratio: bytes of the compressed weights, of what they have uncompressed."
    )


def _link(path: PurePosixPath) -> str:
    return f"[{escaped(str(path))}]({quote(str(path))})"


def _fallbacks(sizes: Sequence[CardSize]) -> Iterator[str]:
    by_reason: dict[str, dict[str, set[int]]] = {}
    for item in sizes:
        for layer in item.manifest.layers:
            if layer.fallback:
                by_reason.setdefault(layer.fallback, {}).setdefault(layer.name, set()).add(item.tp)
    if not by_reason:
        return
    yield "## Layers that are not compressed"
    yield ""
    for reason, layers in sorted(by_reason.items()):
        names = [escaped(name) + _at(tps, sizes) for name, tps in layers.items()]
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        yield f"- {reason} ({FALLBACK_REASONS[reason]}): {', '.join(names[:_MOST_NAMES])}{more}"


def _at(tps: set[int], sizes: Sequence[CardSize]) -> str:
    """Where a layer is not compressed, if not at every size."""
    return "" if len(tps) == len({item.tp for item in sizes}) else f" (TP {', '.join(map(str, sorted(tps)))})"


def _verify(sizes: Sequence[CardSize]) -> Iterator[str]:
    yield "## Verify"
    yield ""
    yield "After a download, in this folder, with w8a8sc installed; every byte of all sizes that are here is checked:"
    yield ""
    yield from fenced(["w8a8sc verify ."])
    yield ""
    yield "Each directory has a manifest with the hash of every tensor. These are the digests of the manifests:"
    yield ""
    yield "| directory | digest |"
    yield "|---|---|"
    for item in sizes:
        yield f"| {escaped(str(item.path))} | `{item.manifest.digest}` |"


def _serve(sizes: Sequence[CardSize]) -> Iterator[str]:
    yield "## Serve"
    yield ""
    yield (
        "On a host with the cards, with vLLM Ascend and w8a8sc, which chooses the options that 310P needs; or without "
        "w8a8sc, by vLLM's own command:"
    )
    for item in sizes:
        yield ""
        yield f"### TP {item.tp}"
        yield ""
        if item.advice.command is None:
            yield f"It cannot be served on chips of the usual size: {escaped(item.advice.problem or '')}."
            continue
        yield from fenced([f"w8a8sc serve {quoted(str(item.path))}", "# or", item.advice.command])


def _origin(sizes: Sequence[CardSize], origin: Origin) -> Iterator[str]:
    manifests = [item.manifest for item in sizes]
    versions = sorted({manifest.tool_version for manifest in manifests})
    yield "## Origin"
    yield ""
    yield f"- Base model: {', '.join(map(escaped, origin.base_model)) or 'not stated by the source'}"
    license = escaped(origin.license_name or origin.license or "not stated by the source")
    text = sizes[0].path / origin.license_file if origin.license_file else None
    yield f"- Licence: {license}" + (f"; its text: {_link(text)}" if text else "")
    yield f"- Made by w8a8sc {', '.join(map(escaped, versions))} of the checkpoint `{manifests[0].source}`"
    yield f"- Card written by w8a8sc {VERSION}"
