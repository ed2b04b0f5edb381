"""The model card of a published tree: README.md at its root, beside the folders of its sizes."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from ..checking.tree import TreeReport, verify_tree
from ..checkpoint import ModelConfig
from ..errors import InputError, Problem, refuse
from ..io import files, hashing, reading
from ..layouts import ARCHITECTURES
from ..sharded_state import manifest as manifest_file
from ..text import is_showable
from .card_origin import Origin, origin_of
from .card_text import CardSize, render
from .serving import advise_on

NAME: Final = "README.md"
_LARGEST: Final = 4 << 20  # bytes of a card of ours
_MARK: Final = re.compile(rb"<!-- w8a8sc card: (blake3:[0-9a-f]{64}) -->\n")


@dataclass(frozen=True)
class Card:
    """A card that was written. base_model: names on a hub; license: as hubs name it, None if it is not known."""

    readme: Path
    text: str
    sizes: Sequence[CardSize]
    base_model: tuple[str, ...]
    license: str | None
    warnings: tuple[str, ...]
    exit_code: int = 0

    def document(self) -> dict[str, Any]:
        """What --json prints: docs/json.md."""
        return {
            "readme": str(self.readme),
            "model": self.sizes[0].manifest.model,
            "base_model": list(self.base_model),
            "license": self.license,
            "directories": [
                {
                    "directory": str(self.readme.parent / item.path),
                    "tensor_parallel_size": item.tp,
                    "bytes_of_largest_rank": item.largest_rank,
                    "weight_ratio": item.manifest.weight_ratio,
                    "compressed_share": item.manifest.compressed_share,
                    "fallbacks": item.manifest.fallbacks,
                    "digest": item.manifest.digest,
                    **item.advice.document(),
                }
                for item in self.sizes
            ],
            "warnings": list(self.warnings),
        }


def card(
    tree: str | os.PathLike[str],
    *,
    base_model: str | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> Card:
    """Write the model card of a published tree, the folder that holds TP1, TP2, ...; no sealed directory is touched.

    base_model, license: as hubs name them; by default what the source's README.md, licence file and config.json say.
    A card that this function wrote and nobody changed is written anew, any other README.md only if `overwrite`.
    Sizes and structure of every directory are checked, bytes are not: verify_tree does. Raises InputError, with all
    problems, for a tree with a directory that is damaged or not sealed, UsageError for words that hubs do not take.
    """
    folder = Path(tree)
    report = verify_tree(folder, quick=True)
    refuse(_problems(report))
    readme = folder / NAME
    _check_place(readme, overwrite=overwrite)
    sizes = [_size(part.directory, folder) for part in report.reports]
    first = report.reports[0].directory
    origin = origin_of(first, sizes[0].manifest, base_model, license)
    text = render(sizes, origin, _task(first, origin))
    _write(readme, text.encode())
    warnings = (*origin.notes, *(f"not on the card: {gap}" for gap in report.not_checked))
    return Card(readme, text, sizes, origin.base_model, origin.license, warnings)


def _problems(report: TreeReport) -> Iterator[Problem]:
    """What keeps a tree from being handed on."""
    remedy = f"see w8a8sc verify {report.tree}"
    yield from (Problem(finding.message, finding.where, remedy) for finding in report.findings)
    for part in report.reports:
        where = str(part.directory)
        if part.findings:
            finding, count = part.findings[0], len(part.findings)
            message = finding.message if count == 1 else f"{count} findings, first: {finding.message}"
            yield Problem(message, finding.where, remedy)
        elif not part.has_manifest:
            yield Problem("there is no manifest, so nobody could verify it", where, "make it with w8a8sc compress")
        elif not all(map(is_showable, part.directory.relative_to(report.tree).parts)):
            yield Problem("its name is not UTF-8 or has control characters", where, "rename it")


def _check_place(readme: Path, *, overwrite: bool) -> None:
    """Raises InputError unless the card may be written."""
    if reading.is_folder(readme) and not reading.is_link(readme):
        raise InputError("a folder is in the place of the card", str(readme), "move it away")
    there = reading.link_status(readme) is not None
    if there and not overwrite and not _is_ours(readme):
        remedy = "move it away, or give overwrite=True to replace it"
        raise InputError("exists already, and is not, or not any more, what card wrote", str(readme), remedy)
    reading.check_can_create(readme)


def _is_ours(readme: Path) -> bool:
    """Whether a file is a card as it was written: its last line has the hash of all others."""
    there = reading.link_status(readme)
    if there is None or not stat.S_ISREG(there.st_mode) or there.st_size > _LARGEST:
        return False
    data = reading.whole(readme, _LARGEST)
    start = data.rfind(b"\n", 0, -1) + 1
    match = _MARK.fullmatch(data, start)
    return match is not None and match[1].decode() == hashing.of_bytes(data[:start])


def _size(directory: Path, tree: Path) -> CardSize:
    manifest = manifest_file.load(directory)
    if manifest is None:  # it was there a moment ago
        raise InputError("its manifest was removed", str(directory), "run the command again")
    path = directory.relative_to(tree)
    return CardSize(PurePosixPath(path), manifest, advise_on(directory, manifest, path))


def _task(directory: Path, origin: Origin) -> str:
    """What the model does, as hubs name it: what its publisher says, else by what it reads."""
    if origin.task is not None:
        return origin.task
    config = ModelConfig.parse(directory / "config.json", ARCHITECTURES)
    return "image-text-to-text" if config.reads_images else "text-generation"


def _write(readme: Path, text: bytes) -> None:
    """The card with its mark, put in place whole."""
    text += b"\n"
    files.put(readme, text + f"<!-- w8a8sc card: {hashing.of_bytes(text)} -->\n".encode())
