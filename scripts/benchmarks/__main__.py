"""The commands of `scripts/bench`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the plain encoder in tests

_json = click.option("--json", metavar="FILE", help="Also write the results here.")
_folder = click.option("--folder", default=".bench", show_default=True, help="Where to put files.")


def _rounds(default: int):  # type: ignore[no-untyped-def]
    return click.option("--rounds", type=click.IntRange(1), default=default, show_default=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def group() -> None:
    """Measure speed and size, side by side in one run."""
    from .measure import machine

    print(", ".join(f"{key}: {value}" for key, value in machine().items()) + "\n", flush=True)


@group.command()
@_rounds(7)
@_json
@click.option("--executor", type=Path, help="A program as msmodelslim starts it [default: the vendor's, if installed].")
@click.option("--against", type=Path, help="A checkout of another version, to take turns in the same process.")
def codec(rounds: int, json: str | None, executor: Path | None, against: Path | None) -> None:
    """Encode and decode against the plain coder, zstd, lz4, memcpy, msmodelslim's executor and another version."""
    from .codec import run

    run(rounds, json, executor, against)


@group.command()
@_rounds(9)
@_json
@_folder
def stages(rounds: int, json: str | None, folder: str) -> None:
    """Every stage of the work, alone, and the steps of encoding."""
    from .stages import run

    Path(folder).mkdir(exist_ok=True)
    run(rounds, json, folder)


@group.command()
@_rounds(3)
@_json
@_folder
@click.option("--layers", type=int, multiple=True, default=(2, 8, 36), show_default=True)
@click.option("--tp", type=int, multiple=True, default=(1, 4, 8), show_default=True)
@click.option("-j", "--processes", type=int, multiple=True, default=(1, 2), show_default=True)
def job(rounds: int, json: str | None, folder: str, layers: tuple[int], tp: tuple[int], processes: tuple[int]) -> None:
    """Whole conversions of a synthesized Qwen3-8B: 12 GB in, 10 GB out at all 36 layers."""
    from .job import run

    Path(folder).mkdir(exist_ok=True)
    run(rounds, json, folder, list(layers), list(tp), list(processes))


@group.command()
@_rounds(5)
@_json
@_folder
@click.option("--memory", default="/dev/shm", show_default=True, help="A folder in memory: 4 GB at all 36 layers.")
@click.option("--layers", type=int, default=36, show_default=True)
def scaling(rounds: int, json: str | None, folder: str, memory: str, layers: int) -> None:
    """Conversions with one process, two, ... up to the cores there are, without a disk in the way."""
    from .scaling import run

    Path(folder).mkdir(exist_ok=True)
    run(rounds, json, folder, memory, layers)


@group.command()
@_rounds(5)
@_json
@click.option("--model", help="A checkpoint to inspect.")
def start(rounds: int, json: str | None, model: str | None) -> None:
    """How long commands and workers take before they work."""
    from .start import run

    run(rounds, json, model)


if __name__ == "__main__":
    group()
