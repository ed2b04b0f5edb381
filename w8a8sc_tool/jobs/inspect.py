"""Inspection: what a checkpoint or a sharded_state directory holds, layer by layer and in total."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from ..checkpoint import Checkpoint, Description, ModelConfig
from ..errors import InputError
from ..io import reading
from ..io.folders import is_sharded_state
from ..layouts import ARCHITECTURES, REGISTRY, Architecture, architecture_of
from ..sharded_state import LayerEntry, Manifest, ShardedState

_Tensor = tuple[str, tuple[int, ...], int]
"""A tensor's name, its shape, and its bytes."""


@dataclass(frozen=True)
class ModuleRow:
    """A module, with its bytes on all ranks and, of a layer that was compressed or tried, ratio and fallback.

    layer: the decoder layer, -1 outside of them. shape: of the weight, of one rank where the manifest says it. experts:
    whether it stands for all routed experts of its layer.
    """

    name: str
    layer: int
    short_name: str
    quantization: str
    shape: tuple[int, ...] | None
    bytes: int
    ratio: float | None = None
    fallback: str | None = None
    linear: bool = False
    experts: bool = False

    @property
    def group(self) -> str:
        """What it counts as in totals."""
        if self.experts:
            return f"routed experts, {self.quantization}"
        return self.quantization if self.linear else "embeddings, norms, scalars"


@dataclass(frozen=True)
class Inspection:
    """What was found. tp: of a directory; sealed: whether it has a manifest.

    ranks: of a directory, the bytes of each rank's tensors by the groups of `totals`.
    """

    path: Path
    kind: Literal["checkpoint", "sharded_state"]
    architecture: str
    tp: int
    sealed: bool
    files: int
    modules: list[ModuleRow]
    warnings: list[str]
    ranks: tuple[dict[str, int], ...] = ()

    @property
    def bytes(self) -> int:
        return sum(row.bytes for row in self.modules)

    def totals(self) -> dict[str, tuple[int, int]]:
        """Per type of linear layer and of experts, and for everything else: number of modules and their bytes."""
        totals: dict[str, tuple[int, int]] = {}
        for row in self.modules:
            count, size = totals.get(row.group, (0, 0))
            totals[row.group] = (count + 1, size + row.bytes)
        return dict(sorted(totals.items(), reverse=True))

    def document(self) -> dict[str, Any]:
        """What --json prints: docs/json.md."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "architecture": self.architecture,
            "tensor_parallel_size": self.tp if self.kind == "sharded_state" else None,
            "sealed": self.sealed,
            "files": self.files,
            "bytes": self.bytes,
            "totals": {kind: {"modules": count, "bytes": total} for kind, (count, total) in self.totals().items()},
            "modules": [
                {
                    "name": row.name,
                    "layer": row.layer,
                    "quantization": row.quantization,
                    "shape": list(row.shape) if row.shape is not None else None,
                    "bytes": row.bytes,
                    "ratio": row.ratio,
                    "fallback": row.fallback,
                }
                for row in self.modules
            ],
            "warnings": self.warnings,
        }


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Describe a checkpoint or a sharded_state directory from its headers and small files; raises InputError."""
    folder = Path(path)
    reading.check_folder(folder)
    return _directory(folder) if is_sharded_state(folder) else _checkpoint(folder)


def _checkpoint(folder: Path) -> Inspection:
    checkpoint = Checkpoint.open(folder, ARCHITECTURES)
    tensors = ((t.name, t.shape, t.nbytes) for t in checkpoint.tensors.values())
    rows = _rows(tensors, checkpoint.description, {}, architecture_of(checkpoint.config))
    files = len({tensor.path for tensor in checkpoint.tensors.values()})
    return Inspection(folder, "checkpoint", checkpoint.config.architecture, 1, False, files, rows, checkpoint.warnings)


def _directory(folder: Path) -> Inspection:
    with ShardedState.open(folder) as state:
        if state.problems:
            raise InputError(state.problems)
        warnings: list[str] = []
        description = None
        try:
            description = Description.parse(folder / "quant_model_description.json")
        except InputError as error:
            warnings += [str(problem) for problem in error.problems]
        ranks = [
            [(t.name, t.shape, t.nbytes) for file in files for t in file.tensors.values()]
            for _, files in sorted(state.ranks.items())
        ]
        if state.manifest is None:
            warnings.append("no manifest: this directory was not written by w8a8sc")
        files = sum(map(len, state.ranks.values()))
        return _sharded(folder, state.manifest, ranks, description, (state.tp, files, warnings))


def inspect_manifest(folder: Path, manifest: Manifest) -> Inspection:
    """What a sealed directory held when it was sealed, whatever became of its files; raises InputError."""
    tp, files = manifest.tensor_parallel_size, len(manifest.rank_files)
    ranks = [[(t.name, tuple(t.shape), t.end - t.begin) for t in manifest.tensors_of(rank)] for rank in range(tp)]
    return _sharded(folder, manifest, ranks, None, (tp, files, ["by its manifest: its files were not read"]))


def _sharded(
    folder: Path,
    manifest: Manifest | None,
    ranks: Sequence[Sequence[_Tensor]],
    description: Description | None,
    rest: tuple[int, int, list[str]],
) -> Inspection:
    """A directory of which the tensors are known, per rank. rest: its size, number of files and warnings."""
    layers = {layer.name: layer for layer in manifest.layers} if manifest else {}
    table = _architecture(folder, manifest)
    rows = _rows(chain.from_iterable(ranks), description, layers, table)
    groups = {row.name: row.group for row in rows}
    by_rank = tuple(_by_group(tensors, groups, table) for tensors in ranks)
    tp, files, warnings = rest
    return Inspection(folder, "sharded_state", table.name, tp, manifest is not None, files, rows, warnings, by_rank)


def _by_group(tensors: Iterable[_Tensor], groups: dict[str, str], table: Architecture) -> dict[str, int]:
    """Bytes by what modules count as in totals. groups: by the names of modules."""
    sizes: dict[str, int] = {}
    for name, _, nbytes in tensors:
        module = name.rpartition(".")[0]
        group = groups[table.experts_of(module) or module]
        sizes[group] = sizes.get(group, 0) + nbytes
    return sizes


def _architecture(folder: Path, manifest: Manifest | None) -> Architecture:
    """The table of a directory's model: by its manifest or, for one without, by its config.json."""
    if manifest is not None and manifest.architecture in REGISTRY:
        return REGISTRY[manifest.architecture]
    return architecture_of(ModelConfig.parse(folder / "config.json", ARCHITECTURES))


def _rows(
    tensors: Iterable[_Tensor],
    description: Description | None,
    layers: dict[str, LayerEntry],
    table: Architecture,
) -> list[ModuleRow]:
    """One row per module in the order of the model, all experts of a layer being one; tensors on all ranks count."""
    sizes: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    leaves: dict[str, set[str]] = {}
    experts: set[str] = set()
    for name, shape, nbytes in tensors:
        module, _, leaf = name.rpartition(".")
        if stack := table.experts_of(module):
            module = stack
            experts.add(module)
        sizes[module] = sizes.get(module, 0) + nbytes
        leaves.setdefault(module, set()).add(leaf)
        if leaf == "weight" and module not in experts:
            shapes[module] = shape
    rows = []
    for module, size in sizes.items():
        entry = layers.get(module)
        weight_shape = (entry.n, entry.k) if entry else shapes.get(module)
        kind = entry.quantization if entry else _type(module, leaves[module], description)
        layer, short_name = table.split(module)
        ratio, fallback = (entry.ratio, entry.fallback) if entry else (None, None)
        rows.append(
            ModuleRow(
                name=module,
                layer=layer,
                short_name=short_name,
                quantization=kind,
                shape=weight_shape,
                bytes=size,
                ratio=ratio,
                fallback=fallback,
                linear=table.is_linear(module),
                experts=module in experts,
            )
        )
    return sorted(rows, key=lambda row: _order(row, table))


def _type(module: str, leaves: set[str], description: Description | None) -> str:
    """A module's type by the description; of a fused module by its tensors."""
    known = description.type_of(module) if description else None
    if known:
        return known
    if "index" in leaves:
        return "W8A8SC" if "deq_scale" in leaves else "W16A16SC"
    if any(leaf.endswith("weight_scale") for leaf in leaves):  # of experts in stacks, w13_weight_scale
        return "W8A8" if "deq_scale" in leaves else "W8A8_DYNAMIC"
    return "W8A8S" if "deq_scale" in leaves else "FLOAT"


def _order(row: ModuleRow, table: Architecture) -> tuple[int, int, int, str]:
    """What stands before the layers, then these, then the rest; within a layer linear layers as they are computed."""
    linears = table.linear_names
    before = {name for item in table.before for name in (item.name, table.source_of(item.name))}
    first = any(row.name == name or row.name.startswith(f"{name}.") for name in before)
    region = 1 if row.layer >= 0 else 0 if first else 2
    inside = row.linear and row.layer >= 0
    return region, row.layer, linears.index(row.short_name) if inside else len(linears), row.name
