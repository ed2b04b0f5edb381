"""Is there room? What a conversion will write, less what an interrupted run has left of it, against what is free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from ..errors import InputError
from ..io import reading
from ..io.amounts import size
from ..planning import Plan
from ..sharded_state import JournalEntry

# What is kept free beyond the estimate, which is good to a few percent: a tenth of it, but no more than this many
# bytes. A run that fills the disk in spite of it goes on once there is room.
_LARGEST_MARGIN: Final = 64 << 20
_MARGIN_SHARE: Final = 10


def estimated_bytes(plan: Plan, other_bytes: int, made: Iterable[JournalEntry]) -> int:
    """About how large a directory will be, all ranks together.

    other_bytes: of side files and of the rank files' headers. made: the modules that a journal has. Their sizes are
    known, and the rest is taken to compress as they did.
    """
    entries = {entry.module: entry for entry in made}
    known = sum(tensor.info.nbytes for entry in entries.values() for tensor in entry.tensors)
    before = after = 0.0
    for planned in plan.modules:
        entry = entries.get(planned.module.name)
        if entry is not None and entry.ratios:
            weight = planned.module.n * planned.module.row_bytes
            before += weight
            after += weight * (1.0 if entry.fallback else sum(entry.ratios) / len(entry.ratios))
    ratio = after / before if before else None
    return known + plan.estimated_bytes(without=entries.keys(), ratio=ratio) + other_bytes


def held_bytes(folder: Path) -> int:
    """Bytes of the disk that the files in a folder take, whatever their sizes; 0 if there is no folder."""
    held = 0
    for path in reading.entries(folder) if reading.is_folder(folder) and not reading.is_link(folder) else []:
        there = reading.link_status(path)
        held += there.st_blocks * 512 if there is not None else 0  # POSIX leaves the unit open; Linux and macOS use 512
    return held


def check_space(needs: Mapping[Path, int]) -> None:
    """Raises InputError if directories need more than their disks have.

    needs: by directory, the bytes that it will take beyond those that it takes now; negative for what is given back.
    """
    by_disk: dict[int, tuple[Path, int]] = {}
    for target, needed in needs.items():
        folder = reading.existing_part(target.parent)
        there = reading.status(folder)
        disk = there.st_dev if there is not None else 0
        by_disk[disk] = folder, by_disk.get(disk, (folder, 0))[1] + needed
    for folder, needed in by_disk.values():
        margin = min(max(0, needed) // _MARGIN_SHARE, _LARGEST_MARGIN)
        free = reading.free_bytes(folder)
        if needed > 0 and free < needed + margin:
            raise InputError(
                f"about {size(needed)} more are needed, with a margin of {size(margin)}, and {size(free)} are free",
                str(folder),
                f"make room for {size(needed + margin - free)}, or choose another output",
            )
