"""Plans carried out, each into its directory: what is done already, what there is room for, and what came of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .._version import VERSION
from ..backends.msmodelslim.installed import Backend
from ..checkpoint import Checkpoint
from ..errors import AccessError, InputError, UsageError
from ..io import reading
from ..io.names import is_plain
from ..layouts import UNCOMPRESSED
from ..planning import Plan
from ..sharded_state import Manifest, check_target, recover
from ..sharded_state import manifest as manifest_file
from ..workers.machine import BYTES_PER_VENDOR, BYTES_PER_WORKER, default_processes
from ..workers.progress import Progress
from .conversion import Conversion
from .draft import CODEC_VERSION
from .identity import read_identity

_SAFETY_BYTES: Final = 64 << 20  # disk space beyond the estimate


@dataclass(frozen=True)
class Compressed:
    """What a conversion left behind."""

    directory: Path
    tp: int
    already_done: bool
    source_bytes: int
    output_bytes: int
    seconds: float
    manifest: Manifest
    warnings: tuple[str, ...] = ()

    @property
    def weight_ratio(self) -> float | None:
        """Compressed size of the compressed layers' weights, relative to what they were."""
        layers = [layer for layer in self.manifest.layers if layer.quantization in UNCOMPRESSED]
        sizes = [layer.n * layer.k * (2 if layer.quantization == "W16A16SC" else 1) for layer in layers]
        compressed = sum((layer.ratio or 0) * size for layer, size in zip(layers, sizes))
        return compressed / sum(sizes) if sizes else None

    @property
    def fallbacks(self) -> dict[str, int]:
        """Number of linear layers per fallback reason."""
        return dict(Counter(layer.fallback for layer in self.manifest.layers if layer.fallback))


def target_folder(output: Path, name: str, tp: int, kind: str = "w8a8sc") -> Path:
    """Where a directory goes below `output`: the tree that published directories have."""
    return output / f"{name}-{kind}-310-vllm" / f"TP{tp}" / f"{name}-{kind}-310-vllm-tp{tp}"


def convert(
    checkpoint: Checkpoint,
    plans: Sequence[Plan],
    name: str,
    output: Path,
    engine: Backend,
    *,
    processes: int | None,
    overwrite: bool,
    resume: bool,
    verify_output: bool,
    progress: Progress,
) -> list[Compressed]:
    """Carry out plans for one checkpoint, each into a directory below `output`; raises as `compress` does."""
    if not is_plain(name):
        raise UsageError(f"{name} cannot be part of a folder's name", remedy="give another --name")
    count = processes or default_processes(BYTES_PER_VENDOR if engine.executor else BYTES_PER_WORKER)
    if count < 1:
        raise UsageError("the number of processes must be positive")
    compress = plans[0].options.compress
    kind = "w8a8sc" if compress else "w8a8s"
    targets = {item.tp: target_folder(output, name, item.tp, kind) for item in plans}
    done = {item.tp: _already_done(targets[item.tp], checkpoint, item, count, overwrite, progress) for item in plans}
    todo = [item for item in plans if done[item.tp] is None]
    check_space(output, sum(item.estimated_rank_bytes * item.tp for item in todo))
    for warning in dict.fromkeys(warning for item in todo for warning in item.warnings):
        progress.note(warning)
    if todo and compress:
        progress.note(f"compressing with {engine.name}: {engine.reason}")
    if todo:
        started = time.monotonic()
        places = [targets[item.tp] for item in todo]
        manifests = Conversion(
            *(checkpoint, todo, places, name, count, progress),
            backend=engine,
            overwrite=overwrite,
            resume=resume,
            verify_output=verify_output,
        ).run()
        seconds = time.monotonic() - started
        for item, manifest in zip(todo, manifests):
            sizes = sum(rank.size for rank in manifest.ranks) + sum(file.size for file in manifest.files)
            done[item.tp] = Compressed(
                *(targets[item.tp], item.tp, False, item.source_bytes, sizes, seconds, manifest, item.warnings)
            )
    return [result for item in plans if (result := done[item.tp])]


def _already_done(
    target: Path, checkpoint: Checkpoint, item: Plan, processes: int, overwrite: bool, progress: Progress
) -> Compressed | None:
    """The result, if the target holds it already; refuses any other target unless it may be replaced."""
    recover(target)
    if overwrite or not reading.is_folder(target):
        check_target(target, overwrite=overwrite)
        return None
    try:
        manifest = manifest_file.load(target)
    except AccessError:
        raise
    except InputError:
        manifest = None
    same = (
        manifest is not None
        and manifest.tool_version == VERSION
        and manifest.codec_version == CODEC_VERSION
        and manifest.tensor_parallel_size == item.tp
        and manifest.options == item.options.document()
    )
    if manifest is None or not same or manifest.source != read_identity(checkpoint, processes, progress):
        check_target(target, overwrite=False)
        return None
    return Compressed(target, item.tp, True, item.source_bytes, manifest.tensor_bytes, 0.0, manifest)


def check_space(output: Path, needed: int) -> None:
    """Raises InputError for an output of so many bytes, estimated, that does not fit on the disk."""
    place = reading.existing_part(output)
    free = reading.free_bytes(place)
    if needed and free < needed + _SAFETY_BYTES:
        raise InputError(
            f"about {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free", str(place), "make room"
        )
