"""The command of `scripts/torture`."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for what is in tests

from . import access, crashes, faults, flips, hostile, kills, mutations, parsers, space
from .stage import Part, Stage

# Rounds of a whole run and of a short one.
PARTS: dict[str, tuple[Callable[[Stage, int, float | None, int], Part], int, int]] = {
    "kills": (kills.run, 320, 12),
    "crashes": (crashes.run, 250, 12),
    "faults": (faults.run, 1000, 12),
    "access": (access.run, 1000, 25),
    "hostile": (hostile.run, 1000, 25),
    "space": (space.run, 60, 3),
    "flips": (flips.run, 21_000, 600),
    "parsers": (parsers.run, 1_100_000, 20_000),
    "tiles": (mutations.tiles, 110_000, 10_000),
    "mutants": (mutations.mutants, 400, 15),
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--short", is_flag=True, help="A few minutes of everything.")
@click.option("--seconds", type=float, help="How long each part goes on, instead of its rounds.")
@click.option("--seed", type=int, default=1, show_default=True)
def main(parts: tuple[str, ...], short: bool, seconds: float | None, seed: int) -> None:
    """Kill, crash, damage and mislead the tool, and say what came of it. Exits with 1 if there are findings."""
    done: list[tuple[Part, float]] = []
    with tempfile.TemporaryDirectory(prefix="w8a8sc-torture-") as folder:
        stage = Stage(Path(folder))
        for name in parts or PARTS:
            run, whole, few = PARTS[name]
            started = time.monotonic()
            part = run(stage, few if short else whole, seconds, seed)
            done.append((part, time.monotonic() - started))
            print(f"{name}: {part.tried} in {done[-1][1]:.0f} s", file=sys.stderr, flush=True)
    _table(done, seed)
    sys.exit(any(part.findings for part, _ in done))


def _table(done: list[tuple[Part, float]], seed: int) -> None:
    print(f"\n| part | tried | seconds | findings | of which (seed {seed}) |\n|---|---|---|---|---|")
    for part, seconds in done:
        counts = ", ".join(f"{name}: {number:,}" for name, number in part.counts.items())
        print(f"| {part.name} | {part.tried:,} | {seconds:.0f} | {len(part.findings)} | {counts} |")
    for part, _ in done:
        for finding in part.findings:
            print(f"\n{part.name}: {finding}")


if __name__ == "__main__":
    main()
