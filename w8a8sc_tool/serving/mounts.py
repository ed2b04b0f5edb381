"""What a container must see of the host's files so that a folder with links in it can be read there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError
from ..io import reading

_REMEDY = "copy the folder with what its links lead to (cp -rL), or serve without a container"


def mounts_of(folder: Path) -> list[Path]:
    """The folders to mount under their own names for a folder to be whole: itself first, and where its links lead.

    All are real paths, so that relative links lead to the same place inside. Raises InputError for what cannot be
    mounted: links into nothing or through linked folders, and paths with a colon, which `docker run -v` cuts there.
    """
    base = reading.real_path(folder)
    needed = dict.fromkeys(target.parent for link in _links(base) for target in _steps(link))
    mounts = [base]
    for path in sorted(needed, key=lambda path: len(path.parts)):
        if not any(path.is_relative_to(mount) for mount in mounts):
            mounts.append(path)
    for path in mounts:
        if path == Path(path.anchor):
            raise InputError("a link leads to the root of the file system", str(folder), _REMEDY)
        if ":" in str(path):
            raise InputError(
                "docker run -v cannot mount a path with a colon", str(path), "rename it, or serve without a container"
            )
    return mounts


def _links(base: Path) -> Iterator[Path]:
    """Every link below a folder, without going through any; vLLM does not see what is hidden."""
    for path in reading.entries(base):
        if path.name.startswith("."):
            continue
        if reading.is_link(path):
            yield path
        elif reading.is_folder(path):
            yield from _links(path)


def _steps(link: Path) -> Iterator[Path]:
    """What a link leads to: each step's path, as a link in its turn or as what it is at last."""
    path = link
    for _ in range(40):  # as many as Linux follows
        if not reading.is_link(path):
            break
        path = Path(os.path.normpath(reading.link_target(path)))
        if path.parent != reading.real_path(path.parent):
            raise InputError(f"leads through the linked folder {path.parent}", str(link), _REMEDY)
        yield path
    if reading.is_folder(path):
        # What lies in it may be linked again; a folder that is linked as a whole is not followed.
        raise InputError("links to a folder", str(link), _REMEDY)
    if not reading.exists(path):
        raise InputError("links to a file that is not there", str(link), "copy the checkpoint again")
