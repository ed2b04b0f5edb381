"""The Python interface, from a checkpoint to a proven directory: what each command does, as one call each.

python examples/api.py [FOLDER]      works in FOLDER, a temporary one by default
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import w8a8sc_tool as w8a8sc


class Bar(w8a8sc.Progress):
    """A progress of one's own: what it does not override is passed over."""

    def begin(self, label: str, total_bytes: int, copied_bytes: int = 0) -> None:
        print(f"{label}: {total_bytes / 1e6:.0f} MB")

    def stage(self, name: str) -> None:
        print(f"now: {name}")

    def note(self, message: str) -> None:
        print(f"note: {message}")


def main(folder: Path) -> int:
    model = w8a8sc.synthesize(folder / "Example-w8a8s-310", "tiny")  # your checkpoint, in real life
    (planned,) = w8a8sc.plan(model, tp=2)
    print(f"{len(planned.modules)} modules, about {planned.estimated_rank_bytes / 1e6:.0f} MB for each rank")

    (result,) = w8a8sc.compress(model, folder, tp=2, keep="*.0.self_attn.o_proj", progress=Bar())
    print(f"{result.directory}: compressed weights take {result.weight_ratio:.3f} of their int8 size")
    print(f"layers that are not compressed: {result.fallbacks}")

    report = w8a8sc.verify(result.directory, source=model)
    print(f"verified against the source: {report.ok}, {report.tensors} tensors")

    (wider,) = w8a8sc.reshard(result.directory, folder, tp=4)
    print(f"at TP 4: {wider.directory}")
    print(f"a checkpoint again: {w8a8sc.to_checkpoint(result.directory, folder / 'back')}")

    (estimate,) = w8a8sc.fit(result.directory)
    print(f"fits on a chip: {estimate.fits}, longest sequence {estimate.length}")
    print(f"serve it with: {w8a8sc.prepare_serving(result.directory).command}")

    try:
        w8a8sc.verify(folder / "nothing")
    except w8a8sc.InputError as error:
        (problem,) = error.problems
        print(f"an error says what, where, and what to do: {problem.message!r}, {problem.where!r}, {problem.remedy!r}")
    return 0 if report.ok else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(Path(temporary)))
