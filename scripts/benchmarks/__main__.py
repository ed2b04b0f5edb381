"""The commands of `scripts/bench`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the plain encoder in tests
# An installed package has its bytecode; a checkout's is made by the first command, or would be compiled by every one.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

_Command = TypeVar("_Command", bound=Callable[..., None])

_json = click.option("--json", metavar="FILE", help="Also write the results here.")
_folder = click.option("--folder", default=".bench", show_default=True, help="Where to put files.")


def _rounds(default: int) -> Callable[[_Command], _Command]:
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
@click.option("--layers", type=int, default=9, show_default=True)
@click.option("--vocabulary", type=int, default=37984, show_default=True, help="Tokens; Qwen3-8B has 151936.")
@click.option("--tp", type=int, multiple=True, default=(1, 4), show_default=True)
@click.option("-j", "--processes", type=int, multiple=True, default=(2,), show_default=True)
@click.option("--against", type=Path, help="A checkout of another version, to take turns.")
def job(
    rounds: int,
    json: str | None,
    folder: str,
    layers: int,
    vocabulary: int,
    tp: tuple[int],
    processes: tuple[int],
    against: Path | None,
) -> None:
    """Whole conversions of a synthesized Qwen3-8B, of full width: by default a quarter of it, 3.2 GB."""
    from .job import run

    Path(folder).mkdir(exist_ok=True)
    run(rounds, json, folder, layers, vocabulary, list(tp), list(processes), against)


@group.command()
@_rounds(5)
@_json
@_folder
@click.option("--memory", default="/dev/shm", show_default=True, help="A folder in memory: 3 GB by default.")
@click.option("--preset", default="qwen3-8b", show_default=True, help="The model, as synthesize has it.")
@click.option("--share", type=int, default=4, show_default=True, help="Measure with one of so many parts of it.")
def scaling(rounds: int, json: str | None, folder: str, memory: str, preset: str, share: int) -> None:
    """Conversions with one process, two, ... without a disk in the way, and what a model says of more cores."""
    from .scaling import run

    Path(folder).mkdir(exist_ok=True)
    run(rounds, json, folder, memory, preset, share)


@group.command()
@_json
@_folder
@click.option("--layers", type=int, default=9, show_default=True)
@click.option("--vocabulary", type=int, default=37984, show_default=True, help="Tokens; Qwen3-8B has 151936.")
@click.option("--against", type=Path, help="A checkout of another version, for a column beside.")
def seconds(json: str | None, folder: str, layers: int, vocabulary: int, against: Path | None) -> None:
    """Where the processor seconds of a conversion go, the kernel's included, as perf samples them."""
    from .seconds import run

    Path(folder).mkdir(exist_ok=True)
    run(json, folder, layers, vocabulary, against)


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
