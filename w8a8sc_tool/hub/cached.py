"""From a hub's name to the folder that a local cache has for it, downloaded before if that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..checkpoint.weights import missing_weights
from ..errors import InputError, UsageError
from ..io import reading
from ..io.folders import directory_of_size, is_sharded_state, is_tree
from ..workers.progress import Progress
from .caches import UNFINISHED, OtherRevision, Snapshot, cache_root, find
from .download import download as fetch
from .names import HUBS, TITLES, Hub, HubName
from .selection import needed, sizes_of

_MOST_LISTED: Final = 5


def locate_name(
    name: HubName,
    *,
    tp: int | None = None,
    hub: Hub | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> Path:
    """`locate.locate` for a name, whatever the working folder holds."""
    progress = progress or Progress()
    if hub is not None and hub not in HUBS:
        raise UsageError(f"there is no hub {str(hub)[:80]!r}", remedy=f"hubs: {', '.join(HUBS)}")
    if download:
        folder = directory_of_size(fetch(name, hub or HUBS[0], tp, progress), tp)
        progress.note(f"{name} is as {TITLES[hub or HUBS[0]]} has it now: {folder}")
        return folder
    snapshot = _cached(name, [hub] if hub else HUBS, tp)
    folder = directory_of_size(snapshot.folder, tp, f"{_fetching(snapshot.hub)} fetches it if the hub has it")
    progress.note(f"{name} is taken from the cache of {TITLES[snapshot.hub]}, without asking the network: {folder}")
    return folder


@dataclass(frozen=True)
class _Miss:
    """Why a cache does not have a model that is in it, and where that is seen."""

    hub: Hub
    message: str
    folder: Path


def _cached(name: HubName, hubs: Sequence[Hub], tp: int | None) -> Snapshot:
    """The first cache's snapshot that is whole; InputError if there is none."""
    misses: list[_Miss] = []
    for hub in hubs:
        try:
            snapshot = find(hub, name)
        except OtherRevision as error:
            misses.append(_Miss(hub, _other_revision(name, error.cached), cache_root(hub)))
            continue
        if snapshot is None:
            continue
        gap = next(_gaps(snapshot, tp), None)
        if gap is None:
            return snapshot
        misses.append(_Miss(hub, f"only a part of it was downloaded: {gap}", snapshot.folder))
    if misses:
        miss = misses[0]
        problem = f"{name} is not ready in the cache of {TITLES[miss.hub]}: {miss.message}"
        raise InputError(problem, str(miss.folder), f"{_fetching(miss.hub)} fetches it")
    caches = " and ".join(f"{TITLES[hub]} ({cache_root(hub)})" for hub in hubs)
    problem = f"no such folder, and not in the cache{'s' * (len(hubs) > 1)} of {caches}"
    raise InputError(problem, str(name), f"give the folder, or {_fetching(hubs[0])} to fetch it")


def _fetching(hub: Hub) -> str:
    return "download=True" if hub == HUBS[0] else f'download=True, hub="{hub}"'


def _other_revision(name: HubName, cached: Sequence[str]) -> str:
    more = f" and {len(cached) - _MOST_LISTED} more" if len(cached) > _MOST_LISTED else ""
    listed = f"{', '.join(cached[:_MOST_LISTED])}{more}"
    if name.revision is None:
        return f"it has several revisions, {listed}: say which as {name}@REVISION"
    return f"revision {name.revision} is not there, but {listed}"


def _gaps(snapshot: Snapshot, tp: int | None) -> Iterator[str]:
    """What shows that a snapshot is not whole, as far as it is needed."""
    folder = snapshot.folder
    if snapshot.listed is not None:
        expected = needed(sorted(snapshot.listed), tp)
        if tp is None and sizes_of(expected):  # of a published tree, any of its sizes may be wanted alone
            expected = [file for file in expected if "/" in file and reading.is_folder(folder / file.split("/")[0])]
        for file in expected:
            if not reading.is_file(folder / file):
                yield f"{file} is missing"
    else:
        for path in snapshot.unfinished:
            match = UNFINISHED.fullmatch(path.relative_to(folder).as_posix()) if path.is_relative_to(folder) else None
            if match is None or needed([match[1]], tp):
                yield f"{path} is unfinished"
    if is_tree(folder) or is_sharded_state(folder):
        return  # what belongs to a directory is its manifest's to say
    if missing := missing_weights(folder):
        yield missing
