"""Where the hubs' own clients keep what they downloaded, read without them.

Hugging Face: models--OWNER--NAME/snapshots/COMMIT, with refs/REVISION naming a commit and, of recent clients,
trees/COMMIT.json listing what the hub has (huggingface_hub 2.4). ModelScope has changed its layout several times; its
client looks for all of them (modelscope 1.40, modelscope_hub 0.5), and so does this.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import InputError
from ..io import reading
from ..io.documents import parse_json
from ..io.names import is_inside, is_plain
from .names import Hub, HubName

NEWEST: Final = "master"  # the branch that ModelScope shows first
_SMALL: Final = 4 << 10  # bytes of refs/main and .mv, which hold a word and a line
_LARGEST_LISTING: Final = 64 << 20
_LEVELS: Final = 8  # of a name in a listing
_MOST_LEVELS: Final = 4  # of folders in a snapshot: TP4/NAME, and a folder beside the weights

# What modelscope calls a file until it is whole: NAME_BEGIN_END is a piece of a large one. Behind another name than
# that of weights it is taken for a name of its own, such as results_2024_05.
UNFINISHED: Final = re.compile(r"(.+)(?:\.incomplete|\.parallel_tmp|(?<=\.safetensors)_\d+_\d+)")


@dataclass(frozen=True)
class Snapshot:
    """A model in a cache: its folder, and what is known of how whole it is.

    listed: names of everything that the hub has at this revision, None if the client did not keep that. unfinished:
    files that a client has begun to download and not completed.
    """

    hub: Hub
    folder: Path
    revision: str
    listed: frozenset[str] | None = None
    unfinished: tuple[Path, ...] = ()


class OtherRevision(Exception):
    """A model is in the cache, at other revisions only."""

    def __init__(self, cached: list[str]) -> None:
        self.cached = cached


def cache_root(hub: Hub) -> Path:
    """The folder of a hub's cache, by the variables that its client reads."""
    if hub == "modelscope":
        return _folder(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope")
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return _folder(os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub")


def _folder(text: str) -> Path:
    return reading.home_expanded(Path(os.path.expandvars(text)))


def find(hub: Hub, name: HubName) -> Snapshot | None:
    """A model in a hub's cache; None if it is not there. Raises OtherRevision."""
    return (_in_modelscope if hub == "modelscope" else _in_huggingface)(cache_root(hub), name)


def _in_huggingface(root: Path, name: HubName) -> Snapshot | None:
    repository = root / f"models--{name.owner}--{name.name}"
    snapshots = _filled(repository / "snapshots")
    if not snapshots:
        return None
    wanted = name.revision or "main"
    commit = _word(repository / "refs" / wanted) or wanted
    folder = next((path for path in snapshots if path.name == commit), None)
    if folder is None and name.revision is None and len(snapshots) == 1:
        folder = snapshots[0]
    if folder is None:
        raise OtherRevision([*_references(repository / "refs"), *(path.name for path in snapshots)])
    listed = _listing(repository / "trees" / f"{folder.name}.json")
    blobs = reading.matching(repository / "blobs", "*.incomplete")  # HASH.incomplete, or with a word between
    begun = tuple(path for path in blobs if not reading.exists(path.parent / path.name.partition(".")[0]))
    return Snapshot("huggingface", folder, folder.name, listed, begun)


def _word(file: Path) -> str | None:
    """What a reference leads to; None if there is none."""
    if not reading.is_file(file):
        return None
    word = reading.whole(file, _SMALL).decode("utf-8", errors="replace").strip()
    if not is_plain(word):
        raise InputError("it does not name a commit", str(file), "remove it, and download the model again")
    return word


def _references(folder: Path) -> list[str]:
    return [path.name for path in _entries(folder) if reading.is_file(path)]


def _listing(file: Path) -> frozenset[str] | None:
    if not reading.is_file(file):
        return None
    try:
        files = parse_json(reading.whole(file, _LARGEST_LISTING), str(file)).get("files")
    except InputError:  # it helps, and is not needed
        return None
    if not isinstance(files, dict):
        return None
    return frozenset(listed for listed in files if is_inside(listed, _LEVELS))


def _in_modelscope(root: Path, name: HubName) -> Snapshot | None:
    other: list[str] = []
    before, snapshots_folder, after = _modelscope_folders(root, name)
    for folder in before:
        if snapshot := _legacy(folder, name.revision, other):
            return snapshot
    snapshots = _filled(snapshots_folder)
    if snapshot := _current(snapshots, name.revision):
        return snapshot
    other += [path.name for path in snapshots]
    for folder in after:
        if snapshot := _legacy(folder, name.revision, other):
            return snapshot
    if other:
        raise OtherRevision(list(dict.fromkeys(other)))
    return None


def _modelscope_folders(root: Path, name: HubName) -> tuple[list[Path], Path, list[Path]]:
    """Where a model may be, in the order in which modelscope 1.40 looks: today's folder of snapshots in the middle."""
    safe = name.name.replace(".", "___")  # as a Python package could be called
    models, hub = root / "models", root / "hub"
    before = [models / name.owner / safe, hub / "models" / name.owner / safe]
    after = [folder / name.owner / called for folder in (root, hub) for called in (name.name, safe)]
    return before, models / f"{name.owner}--{name.name}" / "snapshots", [*after, models / name.owner / name.name]


def _current(snapshots: list[Path], revision: str | None) -> Snapshot | None:
    by_name = {path.name: path for path in snapshots}
    if revision is not None and "/" in revision and snapshots:
        by_name[revision] = snapshots[0].parent / revision
    for wanted in [revision] if revision is not None else [NEWEST, "main", *by_name][: 2 + (len(by_name) == 1)]:
        folder = by_name.get(wanted)
        if folder is not None and reading.is_folder(folder):
            return Snapshot("modelscope", folder, wanted, unfinished=tuple(_begun(folder)))
    return None


def _legacy(folder: Path, revision: str | None, other: list[str]) -> Snapshot | None:
    """A folder of the layouts without revisions, whose .mv may say which it has; otherwise that goes to `other`."""
    if not _entries(folder):
        return None
    version = _version(folder / ".mv")
    if revision is not None and version != revision:
        other.append(version or "an unknown one")
        return None
    # Clients before 1.38 downloaded into a folder at the cache's root.
    waiting = [above / "._____temp" / folder.parent.name / folder.name for above in list(folder.parents)[1:3]]
    begun = [path for temporary in waiting for path in _files(temporary, _MOST_LEVELS)]
    return Snapshot("modelscope", folder, version or "unknown revision", unfinished=(*begun, *_begun(folder)))


def _version(file: Path) -> str | None:
    if not reading.is_file(file):
        return None
    match = re.match(r"Revision:([A-Za-z0-9._/-]{1,200})(,|$)", reading.whole(file, _SMALL).decode(errors="replace"))
    return match[1] if match else None


def _begun(folder: Path) -> Iterator[Path]:
    """Files in a snapshot that are being downloaded, and are not there yet."""
    for path in _files(folder, _MOST_LEVELS):
        match = UNFINISHED.fullmatch(path.name)
        if match and not reading.exists(path.parent / match[1]):
            yield path


def _files(folder: Path, levels: int) -> Iterator[Path]:
    for path in _entries(folder):
        if not reading.is_folder(path):
            yield path
        elif levels > 1:
            yield from _files(path, levels - 1)


def _entries(folder: Path) -> list[Path]:
    return reading.entries(folder) if reading.is_folder(folder) else []


def _filled(folder: Path) -> list[Path]:
    """The folders in a folder that are not empty."""
    return [path for path in _entries(folder) if _entries(path)]


# --------------------------------------------------------------------------------------------- how far a download is


def download_folder(name: HubName) -> Path:
    """Where a model of ModelScope is downloaded to, so that `find` finds it: a folder of an older layout stays in use.

    Not for another revision, with which it would be mixed.
    """
    before, snapshots, after = _modelscope_folders(cache_root("modelscope"), name)
    for folder in before if _filled(snapshots) else [*before, *after]:
        if _entries(folder) and name.revision in (None, _version(folder / ".mv")):
            return folder
    return snapshots / (name.revision or NEWEST)


def fetched_bytes(hub: Hub, name: HubName, revision: str, files: Mapping[str, int]) -> int:
    """Bytes of a model's files that are in the cache, of those that are on their way what has come. files: sizes."""
    begun = 0
    if hub == "huggingface":
        repository = cache_root(hub) / f"models--{name.owner}--{name.name}"
        folder = repository / "snapshots" / revision
        begun = sum(_size(path) for path in reading.matching(repository / "blobs", "*.incomplete"))
    else:
        folder = download_folder(name)
    return min(sum(files.values()), begun + sum(_fetched(folder / file, size) for file, size in files.items()))


def _fetched(path: Path, size: int) -> int:
    """The bytes of a file, or of its pieces."""
    if reading.is_file(path):
        return min(size, _size(path))
    beside = (UNFINISHED.fullmatch(other.name) for other in _entries(path.parent))
    pieces = [match[0] for match in beside if match and match[1] == path.name]
    return min(size, sum(_size(path.parent / piece) for piece in pieces if not piece.endswith(".parallel_tmp")))


def _size(path: Path) -> int:
    there = reading.status(path)
    return there.st_size if there is not None else 0
