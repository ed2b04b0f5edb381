"""Bits flipped, files removed, added, cut and exchanged in a sealed directory: verify has to find every one."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from w8a8sc_tool import verify
from w8a8sc_tool.sharded_state import manifest as manifest_file

from .stage import Part, Stage, digests

# A damaged one of these may keep verify from looking at the rest, so they are damaged alone.
_STRUCTURE = (manifest_file.NAME, "config.json", "quant_model_description.json")

Region = tuple[str, str, int, int]  # file, tensor or "", bytes [begin, end)
Change = Callable[[Path], object]


def run(stage: Stage, rounds: int, seconds: float | None, seed: int) -> Part:
    """rounds: bits to flip."""
    part = Part("flips")
    chance = random.Random(seed)
    folder = stage.folder / "flips"
    shutil.copytree(stage.target("reference", 2), folder)
    started = time.monotonic()
    together, alone = _regions(folder)
    part.count("regions", len(together) + len(alone))
    while part.tried < rounds if seconds is None else time.monotonic() - started < seconds:
        _flip(part, folder, [_bit(region, chance) for region in together])
        _flip(part, folder, [_bit(chance.choice(alone), chance)])
    _files(stage, part, folder)
    if digests(folder) != stage.references[2]:
        part.finding("verify has written to the directory")
    return part


def _regions(folder: Path) -> tuple[list[Region], list[Region]]:
    """Every byte of a directory belongs to a region. Those that can be damaged together, and those alone."""
    manifest = manifest_file.load(folder)
    assert manifest is not None
    together = [(r.file, t.name, t.begin, t.end) for r in manifest.rank_files for t in r.tensors if t.end > t.begin]
    alone = [(file.file, "", 0, file.header_bytes) for file in manifest.rank_files]
    for path in sorted(folder.iterdir()):
        if path.name in _STRUCTURE:
            alone.append((path.name, "", 0, path.stat().st_size))
        elif path.name not in {file.file for file in manifest.rank_files}:
            together.append((path.name, "", 0, path.stat().st_size))
    covered = sum(end - begin for _, _, begin, end in (*together, *alone))
    if covered != sum(path.stat().st_size for path in folder.iterdir()):
        raise SystemExit("the regions do not cover the directory")
    return together, alone


def _bit(region: Region, chance: random.Random) -> tuple[Region, int, int]:
    return region, chance.randrange(region[2], region[3]), 1 << chance.randrange(8)


def _flip(part: Part, folder: Path, flips: list[tuple[Region, int, int]]) -> None:
    """Flip bits of different regions, see that verify names each of these, and flip them back."""
    _toggle(folder, flips)
    locations = [finding.where for finding in verify(folder, processes=2).findings]
    for (file, tensor, _, _), offset, bit in flips:
        wanted = f"({tensor})" if tensor else ""
        if not any(str(folder / file) in location and wanted in location for location in locations):
            part.finding(f"bit {bit} of byte {offset} of {file} {tensor} is not found")
    part.tried += len(flips)
    part.count("bits", len(flips))
    _toggle(folder, flips)


def _toggle(folder: Path, flips: list[tuple[Region, int, int]]) -> None:
    for (file, *_), offset, bit in flips:
        with (folder / file).open("r+b") as opened:
            opened.seek(offset)
            byte = opened.read(1)[0]
            opened.seek(offset)
            opened.write(bytes([byte ^ bit]))


def _files(stage: Stage, part: Part, whole: Path) -> None:
    """Whole files: removed, cut, made longer, exchanged, added."""
    other = stage.target("reference", 1)
    names = sorted(path.name for path in whole.iterdir())
    first, second = (f"model-rank-{rank}-part-0.safetensors" for rank in (0, 1))
    changes: list[tuple[str, Change]] = [
        *(change for name in names for change in _changes_of(name, other)),
        ("ranks exchanged", lambda folder: _exchange(folder / first, folder / second)),
        ("rank 1 is rank 0", lambda folder: shutil.copyfile(folder / first, folder / second)),
        ("a third rank", lambda folder: shutil.copyfile(folder / first, folder / first.replace("0", "2", 1))),
        ("a second part", lambda folder: shutil.copyfile(folder / first, folder / first.replace("part-0", "part-1"))),
        ("a file added", lambda folder: (folder / "notes.txt").write_text("hello")),
        ("a folder added", lambda folder: (folder / "more").mkdir()),
        ("a rank that is a link", lambda folder: _link(folder / first, whole / first)),
    ]
    for change_name, change in changes:
        folder = stage.folder / "flips-changed"
        shutil.copytree(whole, folder)
        before = digests(folder)
        change(folder)
        if digests(folder) != before or change_name.startswith(("a folder", "a rank")):
            part.tried += 1
            part.count("files changed")
            try:
                report = verify(folder, processes=1)
                noticed = not report.ok or not report.has_manifest  # without one, the report says what that leaves open
            except Exception as error:  # a directory may be refused; anything else is told
                noticed = type(error).__name__ == "InputError"
            if not noticed:
                part.finding(f"{change_name}: not found")
        shutil.rmtree(folder)


def _changes_of(name: str, other: Path) -> list[tuple[str, Change]]:
    """What a file may have suffered; other: a directory of another size."""
    return [
        (f"{name} removed", lambda folder: (folder / name).unlink()),
        (f"{name} cut", lambda folder: _cut(folder / name, -1)),
        (f"{name} longer", lambda folder: _cut(folder / name, 1)),
        (f"{name} emptied", lambda folder: (folder / name).write_bytes(b"")),
        (f"{name} from TP 1", lambda folder: _take(other, folder, name)),
    ]


def _cut(path: Path, by: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:by] if by < 0 else data + bytes(by))


def _take(other: Path, folder: Path, name: str) -> None:
    if (other / name).exists():
        shutil.copyfile(other / name, folder / name)


def _exchange(first: Path, second: Path) -> None:
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


def _link(path: Path, to: Path) -> None:
    path.unlink()
    path.symlink_to(to)
