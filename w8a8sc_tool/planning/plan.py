"""The plan: for every tensor to be made, its recipe, its size and whether its layer is compressed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np

from ..checkpoint import Checkpoint, SourceTensor
from ..checkpoint.reader import SourceReader
from ..checkpoint.values import to_float32, to_offset
from ..errors import InputError, Problem, UsageError, refuse
from ..io.safetensors import DTYPES
from ..layouts import COMPRESSED, TARGETS, Module, Output, Target, architecture_of, check_size, modules
from . import biases, embeddings, sizes
from .options import Options
from .patterns import matches

Fallback = Literal["source", "pinned", "shape", "ratio"]
"""Why a linear layer is not compressed.

source: the checkpoint holds it uncompressible. pinned: the user said so. shape: the 310P kernel cannot take it. ratio:
compression would not make it small enough.
"""

FALLBACK_REASONS: Final[dict[str, str]] = {
    "source": "the checkpoint holds them in another type",
    "pinned": "as asked",
    "shape": "the 310P kernel cannot take their size",
    "ratio": "compression would not pay",
}
"""In words, of several layers."""

# Documented limits of the 310P operator for compressed int8 weights (aclnn documentation, MatmulCompressDequant).
SHAPE_MULTIPLE: Final = 64
SMALLEST_N: Final = 128
LARGEST_EXCLUDED_K: Final = 256

# The published recipes compress to 0.55 (8B) and 0.63 (14B, 32B), measured on small models (docs/performance.md); the
# larger one, because sizes before the work are estimated to find out whether there is room.
ESTIMATED_RATIO: Final = 0.63


_SHOWN_OF_EXPERTS: Final = 3  # problems of a layer's experts that are named one by one


class PlannedModule(msgspec.Struct, frozen=True):
    """A module and what becomes of it. `compress` with fallback None is final only once the ratio is known."""

    module: Module
    compress: bool
    fallback: Fallback | None
    sources: dict[str, SourceTensor]

    @property
    def source_bytes(self) -> int:
        return sum(source.nbytes for source in self.sources.values())

    @property
    def fixed(self) -> tuple[Output, ...]:
        """The outputs whose size is known before the work: all but a weight that will be compressed."""
        if not self.compress:
            return self.module.outputs
        weight = self.module.weight.name
        return tuple(output for output in self.module.outputs if output.name != weight)


class Plan(msgspec.Struct, frozen=True):
    """Everything that will be made of a checkpoint for one tensor-parallel size."""

    tp: int
    options: Options
    modules: tuple[PlannedModule, ...]
    unused: tuple[SourceTensor, ...]
    warnings: tuple[str, ...]

    @property
    def used(self) -> set[str]:
        """The names of the checkpoint's tensors that have a place in the output."""
        return {name for item in self.modules for name in item.sources}

    @property
    def source_bytes(self) -> int:
        return sum(m.source_bytes for m in self.modules) + sum(source.nbytes for source in self.unused)

    @property
    def estimated_rank_bytes(self) -> int:
        """About how large each rank's tensors will be."""
        return self.estimated_bytes() // self.tp

    def estimated_bytes(self, without: Container[str] = (), ratio: float | None = None) -> int:
        """About how large the tensors will be, all ranks together.

        without: modules not to count; ratio: what weights are taken to compress to, None for that of published recipes.
        """
        ratio = ESTIMATED_RATIO if ratio is None else ratio
        total = 0
        for planned in self.modules:
            if planned.module.name in without:
                continue
            total += sum(map(output_bytes, planned.fixed))
            total += int(output_bytes(planned.module.weight) * ratio) if planned.compress else 0
        return total * self.tp

    def records(self) -> Iterator[dict[str, Any]]:
        """One record per output tensor, as a dry run prints it: sizes are those of one rank."""
        for planned in self.modules:
            weight = planned.module.weight.name if planned.compress else ""
            for output in planned.module.outputs:
                compressed = output.name == weight
                yield {
                    "name": output.name,
                    "dtype": output.dtype,
                    "shape": list(output.shape),
                    "quantization": COMPRESSED[planned.module.quantization]
                    if planned.compress
                    else planned.module.quantization,
                    "cut": cut_of(output),
                    "sources": sorted({piece.source for rank in output.slices for piece in rank}),
                    "fallback": planned.fallback,
                    "ratio": "open" if compressed else None,
                    "bytes": int(output_bytes(output) * (ESTIMATED_RATIO if compressed else 1)),
                }


def output_bytes(output: Output) -> int:
    """Bytes of an uncompressed output tensor on one rank."""
    return int(np.prod(output.shape, dtype=np.int64)) * DTYPES[output.dtype].itemsize


def cut_of(output: Output) -> str:
    """How tensor parallelism cuts an output: none, rows or columns."""
    if all(rank == output.slices[0] for rank in output.slices):
        return "none"
    return "columns" if any(piece.last_column for rank in output.slices for piece in rank) else "rows"


def make_plan(checkpoint: Checkpoint, tp: int, options: Options) -> Plan:
    """Plan a conversion; raises InputError with everything about the checkpoint that stands in its way."""
    options.check()
    if tp < 1:
        raise UsageError(f"tensor-parallel size {tp} is not positive")
    checkpoint, planned_modules, problems = _modules_of_weights(checkpoint, tp, options.target)
    for module in planned_modules:
        problems += _shortened(module, list(source_problems(module, checkpoint)))
    left_biases = biases.without_parameter(planned_modules, checkpoint.tensors)
    problems += biases.lost(left_biases, checkpoint)
    problems += embeddings.lost(checkpoint)
    refuse(problems)
    keep = options.keep if options.compress else ("*",)
    planned = tuple(decide(module, checkpoint.tensors, keep) for module in planned_modules)
    used = {source.name for module in planned_modules for source in module.sources}
    unused = tuple(tensor for name, tensor in checkpoint.tensors.items() if name not in used)
    warnings = [*checkpoint.warnings, *_scalar_warnings(planned)]
    if contained := sum(map(biases.in_quant_bias, left_biases.values())):
        warnings.append(f"{contained} linear biases need no place in the output: quant_bias contains them")
    homeless = [tensor.name for tensor in unused if tensor.name not in left_biases]
    table = architecture_of(checkpoint.config)
    for prefix, meaning in table.left_out:
        if left := [name for name in homeless if name.startswith(prefix)]:
            warnings.append(f"{len(left)} tensors {prefix}* are left out: {meaning}")
            homeless = [name for name in homeless if not name.startswith(prefix)]
    if TARGETS.index(options.target) < TARGETS.index(table.since):
        warnings.append(
            f"vLLM Ascend documents {table.name} on 310P from {table.since} on: this is for {options.target}"
        )
    if homeless:
        names = ", ".join(homeless[:3]) + (", ..." if len(homeless) > 3 else "")
        warnings.append(f"{len(homeless)} tensors of the checkpoint have no place in the output: {names}")
    return Plan(tp, options, planned, unused, tuple(warnings))


def _modules_of_weights(
    checkpoint: Checkpoint, tp: int, target: Target
) -> tuple[Checkpoint, list[Module], list[Problem]]:
    """The modules, and each size of config.json that is not that of the weights; with these sizes put right."""
    checkpoint, problems = sizes.with_layers_of_weights(checkpoint)
    indivisible = check_size(checkpoint.config, tp)
    planned_modules, more = ([], []) if indivisible else _modules(checkpoint, tp, target)
    if indivisible or sizes.misfits(planned_modules, checkpoint):
        checkpoint, wrong = sizes.corrected(checkpoint)
        if wrong:
            problems += wrong
            indivisible = check_size(checkpoint.config, tp)
            planned_modules, more = ([], []) if indivisible else _modules(checkpoint, tp, target)
    if indivisible:
        raise InputError([*problems, *indivisible])
    return checkpoint, planned_modules, [*problems, *more]


def _modules(checkpoint: Checkpoint, tp: int, target: Target) -> tuple[list[Module], list[Problem]]:
    """The modules of a checkpoint as vLLM will build them from the output's description, which is for them alone."""
    planned_modules, problems = modules(checkpoint.config, checkpoint.description, tp, target)
    used = {source.name for module in planned_modules for source in module.sources}
    described = checkpoint.description.of(used)
    if described.has_norm_bias != checkpoint.description.has_norm_bias:
        planned_modules, problems = modules(checkpoint.config, described, tp, target)
    return planned_modules, problems


def source_problems(module: Module, checkpoint: Checkpoint) -> Iterator[Problem]:
    """Source tensors that are missing or not what the layer needs."""
    for wanted in module.sources:
        tensor = checkpoint.tensors.get(wanted.name)
        if tensor is None:
            tied = ", or tie_word_embeddings of config.json should be true" if module.kind == "embedding" else ""
            remedy = f"the checkpoint is incomplete{tied}"
            yield Problem(f"{wanted.name} is missing", str(checkpoint.path), remedy)
            continue
        # Some savers write one-element tensors without a dimension, and per-channel values flat.
        if tensor.shape != wanted.shape and _flat(tensor.shape) != _flat(wanted.shape):
            yield Problem(
                f"{wanted.name} has shape {list(tensor.shape)}, {list(wanted.shape)} is wanted",
                tensor.path,
                "config.json and the weights do not belong together",
            )
        if tensor.dtype not in wanted.dtypes:
            yield Problem(f"{wanted.name} is {tensor.dtype}, {' or '.join(wanted.dtypes)} is wanted", tensor.path)


def _shortened(module: Module, problems: list[Problem]) -> list[Problem]:
    """Problems of one module, of experts the first: what is wrong with one is mostly wrong with all."""
    if module.kind != "experts" or len(problems) <= _SHOWN_OF_EXPERTS:
        return problems
    count = len(problems) - _SHOWN_OF_EXPERTS
    return [
        *problems[:_SHOWN_OF_EXPERTS],
        Problem(f"{count} more tensors of {module.name} are missing or wrong", problems[0].where, problems[0].remedy),
    ]


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def decide(module: Module, tensors: dict[str, SourceTensor], keep: Sequence[str] = ()) -> PlannedModule:
    """Whether a module is compressed, as far as that is known before the work."""
    sources = {source.name: tensors[source.name] for source in module.sources}
    fallback: Fallback | None = None
    if module.kind == "linear":
        if module.quantization not in COMPRESSED:
            fallback = "source"
        elif any(matches(pattern, names_of(module)) for pattern in keep):
            fallback = "pinned"
        elif not fits_kernel(module.n, module.k):
            fallback = "shape"
    compress = module.kind == "linear" and fallback is None
    return PlannedModule(module, compress, fallback, sources)


def names_of(module: Module) -> tuple[str, ...]:
    """What a pattern may call a layer: its fused name and its members' names in the checkpoint."""
    return (module.name, *(member.name for member in module.members))


def fits_kernel(n: int, k: int) -> bool:
    """Whether the 310P operator takes a compressed weight of a rank's size [n, k]."""
    return n % SHAPE_MULTIPLE == 0 and n >= SMALLEST_N and k % SHAPE_MULTIPLE == 0 and k > LARGEST_EXCLUDED_K


def _scalar_warnings(planned: Iterable[PlannedModule]) -> Iterator[str]:
    """Layers whose members disagree about a scalar that the fused layer has one of; refuses unusable offsets."""
    reader = SourceReader()
    problems = []
    try:
        for item in planned:
            for leaf in ("input_scale", "input_offset"):
                values = set()
                for source in item.sources.values():
                    if not source.name.endswith(f".{leaf}"):
                        continue
                    value = reader.read_rows(source, 0, 1)
                    values.add(float(to_float32(value, source.dtype).ravel()[0]))
                    if leaf == "input_offset":
                        try:
                            to_offset(value, source.dtype, source)
                        except InputError as error:
                            problems += error.problems
                if len(values) > 1:
                    listed = ", ".join(f"{value:g}" for value in sorted(values))
                    yield f"{item.module.name}: the members' {leaf} differ ({listed}); vLLM uses the last one"
    finally:
        reader.close()
    refuse(problems)
