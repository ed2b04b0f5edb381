"""A published tree, NAME-w8a8sc-310-vllm with its folders TP1, TP2, ...: all of its directories in one verification."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoint import Checkpoint
from ..errors import InputError
from ..io import reading
from ..io.folders import NOT_DIRECTORIES, is_sharded_state, is_tree, size_in_tree, tree_contents
from ..layouts import ARCHITECTURES
from ..sharded_state import manifest as manifest_file
from ..workers.progress import Part, Progress, working
from .findings import Finding
from .verify import Report, verify, verify_opened

_README = "README.md"  # the one file that a tree has beside its directories


@dataclass
class TreeReport:
    """The outcome of a tree's verification: a report per directory, and `findings` of what they are together."""

    tree: Path
    reports: list[Report]
    findings: list[Finding] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """The command's: the worst."""
        return max([1 if self.findings else 0, *(report.exit_code for report in self.reports)])

    def document(self) -> dict[str, Any]:
        """What --json prints: docs/json.md."""
        return {
            "tree": str(self.tree),
            "ok": self.ok,
            "findings": [{"message": finding.message, "where": finding.where} for finding in self.findings],
            "not_checked": self.not_checked,
            "directories": [report.document() for report in self.reports],
        }


def verify_path(
    path: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    quick: bool = False,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Report | TreeReport:
    """`verify_tree` for a published tree, else `verify`."""
    if is_tree(Path(path)):
        return verify_tree(path, source=source, quick=quick, processes=processes, progress=progress)
    return verify(path, source=source, quick=quick, processes=processes, progress=progress)


def verify_tree(
    tree: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    quick: bool = False,
    processes: int | None = None,
    progress: Progress | None = None,
) -> TreeReport:
    """Check all sharded_state directories in the folders TP1, TP2, ... of a published tree, each as `verify` does.

    Also: every directory has the size that its folder's name says, and all were made of the same checkpoint. What
    is in the tree and no directory, such as unfinished work, is listed as not checked. Raises InputError if the
    folder is no tree or the source cannot be opened; a directory that cannot be is a finding.
    """
    folder = Path(tree)
    reading.check_folder(folder)
    directories, others = ([], []) if is_sharded_state(folder) else tree_contents(folder)
    if not directories:
        remedy = "give the folder that holds TP1, TP2, ... with a directory each"
        raise InputError("not a tree of sharded_state directories", str(folder), remedy)
    checkpoint = Checkpoint.open(Path(source), ARCHITECTURES) if source is not None else None
    sizes = [0 if quick else _size(path) for path in directories]
    reports = []
    with working(progress or Progress(), "verifying", sum(sizes)) as whole:
        for path, size in zip(directories, sizes):
            with Part(whole, size) as part:
                reports.append(verified(path, checkpoint, quick, processes, part))
    findings = [*_wrong_sizes(reports), *_other_sources(directories)]
    return TreeReport(folder, reports, findings, list(_not_checked(others, folder)))


def _size(directory: Path) -> int:
    """Bytes of a directory's files, about what there is to read; 0 for one that cannot be listed."""
    with suppress(InputError):
        return sum(there.st_size for path in reading.entries(directory) if (there := reading.status(path)))
    return 0


def verified(
    directory: Path, checkpoint: Checkpoint | None, quick: bool, processes: int | None, progress: Progress | None
) -> Report:
    """A directory's report; one that cannot be opened, or not be of this source, does not keep others from theirs."""
    try:
        return verify_opened(directory, checkpoint, quick=quick, processes=processes, progress=progress)
    except InputError as error:
        findings = [Finding(problem.message, problem.where) for problem in error.problems]
        return Report(directory, 0, False, findings, ["nothing else: the directory cannot be verified"])


def _wrong_sizes(reports: Sequence[Report]) -> Iterator[Finding]:
    for report in reports:
        size = size_in_tree(report.directory)
        if report.tp and size != report.tp:
            yield Finding(f"the directory is for TP {report.tp}, its folder says TP {size}", str(report.directory))


def _other_sources(directories: Sequence[Path]) -> Iterator[Finding]:
    """Directories that were not made of the checkpoint that the first was made of, by their manifests."""
    first: tuple[Path, str] | None = None
    for directory in directories:
        with suppress(InputError):  # its report says so
            manifest = manifest_file.load(directory)
            if manifest is None:
                continue
            first = first or (directory, manifest.source)
            if manifest.source != first[1]:
                yield Finding(f"it was made of another checkpoint than {first[0]}", str(directory))


def _not_checked(others: Sequence[Path], tree: Path) -> Iterator[str]:
    for path in others:
        if path.name.endswith(NOT_DIRECTORIES):
            yield f"{path}: unfinished work, or what a replacement left"
        elif path != tree / _README:
            yield f"{path}: no sharded_state directory"
