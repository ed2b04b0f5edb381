"""What has been prepared is carried out, each plan into its directory, and what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..sharded_state import Manifest, recover
from ..workers.progress import Progress
from .conversion import Conversion
from .preparation import Prepared, target_folder

__all__ = ["Compressed", "convert", "target_folder"]


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
        return self.manifest.weight_ratio

    @property
    def compressed_share(self) -> float | None:
        """How much of all int8 weights, by their uncompressed size, was compressed; None if there are none."""
        return self.manifest.compressed_share

    @property
    def fallbacks(self) -> dict[str, int]:
        """Number of linear layers per fallback reason."""
        return self.manifest.fallbacks

    def document(self) -> dict[str, Any]:
        """What --json prints of it, but for how it is served: docs/json.md."""
        return {
            "directory": str(self.directory),
            "tensor_parallel_size": self.tp,
            "already_done": self.already_done,
            "source_bytes": self.source_bytes,
            "output_bytes": self.output_bytes,
            "weight_ratio": self.weight_ratio,
            "compressed_share": self.compressed_share,
            "fallbacks": self.fallbacks,
            "seconds": round(self.seconds, 3),
            "warnings": list(self.warnings),
        }


def convert(prepared: Prepared, progress: Progress) -> list[Compressed]:
    """Carry out what has been prepared, in the order of its plans; raises as `compress` does."""
    for target in prepared.targets:
        recover(target)
    plans, settings = prepared.plans, prepared.settings
    todo = [plan for plan, manifest in zip(plans, prepared.done) if manifest is None]
    for warning in dict.fromkeys(warning for plan in todo for warning in plan.warnings):
        progress.note(warning)
    if todo and plans[0].options.compress:
        progress.note(f"compressing with {settings.backend.name}: {settings.backend.reason}")
    started = time.monotonic()
    made = iter(Conversion(prepared, progress).run() if todo else [])
    seconds = time.monotonic() - started
    results = []
    for plan, target, manifest in zip(plans, prepared.targets, prepared.done):
        if manifest is not None:
            sizes = (plan.source_bytes, manifest.tensor_bytes)
            results.append(Compressed(target, plan.tp, True, *sizes, 0.0, manifest))
            continue
        manifest = next(made)
        sizes = (plan.source_bytes, manifest.total_bytes)
        results.append(Compressed(target, plan.tp, False, *sizes, seconds, manifest, plan.warnings))
    return results
