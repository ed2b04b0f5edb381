"""Downloads: what is needed of a model, fetched into its hub's cache by the hub's own client."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from ..errors import InputError, WorkError
from ..io import reading
from ..io.amounts import size as amount
from ..io.names import is_inside
from ..workers.pool import Pool
from ..workers.progress import Progress, working
from .caches import cache_root, fetched_bytes
from .client import ENVIRONMENT, Listing
from .names import TITLES, Hub, HubName
from .selection import needed, sizes_of

_CLIENT: Final = "w8a8sc_tool.hub.client:Client"
_LEVELS: Final = 8  # of folders in a repository
_MOST_FILES: Final = 100_000
_LOOK_SECONDS: Final = 0.5  # between looks at how far it is


def download(name: HubName, hub: Hub, tp: int | None, progress: Progress) -> Path:
    """Fetch what is needed of a model, of a published tree the size `tp` if one is given; returns its snapshot.

    Files that are in the cache are not fetched again, and a part that a client can go on with is. Raises InputError for
    a model that the hub does not have or that is none, MissingError without the client, WorkError if it fails.
    """
    log = None if os.environ.get("W8A8SC_DEBUG") else Path(os.devnull)
    with Pool(1, _CLIENT, hub, name, environment=ENVIRONMENT, log=log) as client:
        listing: Listing = _answer(client, name, "listing")
        files = {file: listing.files[file] for file in _wanted(listing, hub, name, tp)}
        before = fetched_bytes(hub, name, listing.revision, files)
        _check_space(hub, name, sum(files.values()) - before)
        with working(progress, f"downloading {name} from {TITLES[hub]}", sum(files.values()) - before):
            folder = _fetch(client, hub, name, listing.revision, files, before, progress)
    _check(folder, files, hub, name)
    return folder


def _answer(client: Pool, name: HubName, method: str, *arguments: Any) -> Any:
    client.call(0, str(name), method, *arguments)
    ((_, answer),) = client.wait()
    return answer


def _wanted(listing: Listing, hub: Hub, name: HubName, tp: int | None) -> list[str]:
    """The names of the files that are needed; raises InputError for what is no model, and for names that are none."""
    for file in listing.files:
        if not is_inside(file, _LEVELS):
            raise InputError(f"{TITLES[hub]} lists a file called {file[:80]!r}", str(name), "nothing is downloaded")
    if len(listing.files) > _MOST_FILES:
        raise InputError(f"{TITLES[hub]} lists {len(listing.files)} files of it", str(name), "nothing is downloaded")
    wanted = needed(sorted(listing.files), tp)
    sizes = sizes_of(listing.files)
    if sizes and tp is not None and tp not in sizes:
        raise InputError(f"it has no TP {tp}, but {', '.join(f'TP {size}' for size in sizes)}", str(name))
    if not any(file.endswith(".safetensors") for file in wanted):
        raise InputError(f"{TITLES[hub]} has no *.safetensors file of it", str(name), "it is no checkpoint to convert")
    return wanted


def _check_space(hub: Hub, name: HubName, wanted: int) -> None:
    folder = reading.existing_part(cache_root(hub))
    free = reading.free_bytes(folder)
    if wanted > free:
        problem = f"{name} takes {amount(wanted)} more, and {amount(free)} are free"
        raise InputError(problem, str(folder), "make room, or put the cache elsewhere (docs/command-line.md)")


def _fetch(
    client: Pool, hub: Hub, name: HubName, revision: str, files: dict[str, int], before: int, progress: Progress
) -> Path:
    """Have the client work, and look at its files meanwhile: the clients' own progress differs between versions."""
    client.call(0, str(name), "fetch", list(files))
    while not (answers := client.wait(_LOOK_SECONDS)):
        now = fetched_bytes(hub, name, revision, files)
        if now > before:
            progress.advance(now - before)
            before = now
    progress.advance(max(0, sum(files.values()) - before))
    return Path(answers[0][1])


def _check(folder: Path, files: dict[str, int], hub: Hub, name: HubName) -> None:
    """Raises WorkError unless all files are there as they were listed."""
    wrong = [file for file, size in files.items() if not _is_whole(folder / file, size)]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        problem = f"{TITLES[hub]}'s client has not fetched {wrong[0]}{more} as listed"
        raise WorkError(problem, f"{name} ({folder})", "run the same command again")


def _is_whole(path: Path, size: int) -> bool:
    there = reading.status(path)
    return there is not None and there.st_size == size
