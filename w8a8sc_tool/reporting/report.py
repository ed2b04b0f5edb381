"""The report of checkpoints, directories, published trees and batches: one HTML file."""

from __future__ import annotations

import importlib.util
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from ..checking.tree import verified, verify_tree
from ..checking.verify import Report
from ..checkpoint import Checkpoint
from ..conversion.convert import Compressed
from ..errors import InputError, MissingError, Problem, UsageError
from ..io import files, reading
from ..io.documents import read_small
from ..io.folders import is_checkpoint, is_sharded_state, is_tree, refuse_tree
from ..io.names import given_name
from ..jobs.batch import Outcome
from ..layouts import ARCHITECTURES
from ..sharded_state.manifest import LARGEST_TP
from ..workers.progress import Progress
from .page import MARK, Content, render
from .subjects import Subject, of_checkpoint, of_directory

_LARGEST_OUTCOME: Final = 16 << 20  # bytes of what `batch --json` prints
_NEEDED: Final = ("matplotlib", "jinja2")
_READ_BACK: Final = (
    "compress read all of it back and checked it before it was put in place, in the run that made this report"
)


@dataclass(frozen=True)
class ReportPage:
    """A report that was written. ok: whether nothing is damaged and no job failed."""

    page: Path
    bytes: int
    subjects: Sequence[Subject]
    ok: bool

    @property
    def exit_code(self) -> int:
        """The command's."""
        return 0 if self.ok else 1

    def document(self) -> dict[str, Any]:
        """What --json prints: docs/json.md."""
        return {
            "report": str(self.page),
            "bytes": self.bytes,
            "ok": self.ok,
            "subjects": [
                {
                    "path": str(subject.path),
                    "kind": subject.kind,
                    "tensor_parallel_size": subject.tp or None,
                    "problems": [{"message": problem.message, "where": problem.where} for problem in subject.problems],
                }
                for subject in self.subjects
            ],
        }


def report(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str] | None = None,
    *,
    source: str | os.PathLike[str] | None = None,
    read: bool = False,
    overwrite: bool = False,
    processes: int | None = None,
    progress: Progress | None = None,
) -> ReportPage:
    """Write an HTML file about checkpoints, sharded_state directories, published trees, and outcomes of batches.

    paths: one or several; a file is what `batch --json` printed. output: by default NAME-report.html in the working
    folder, after the first path; a report that is there already is replaced, any other file only if `overwrite`.
    read: also read and check every byte of directories, as `verify` does; source: and compare them with this
    checkpoint. What is damaged is reported, not refused. Raises MissingError without matplotlib or Jinja2, InputError
    for a path that is none of these and for an output that cannot be written, before anything is read.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    folders = list(dict.fromkeys(map(Path, given)))
    if not folders:
        raise UsageError("no path is given")
    page = Path(output) if output is not None else default_output(folders[0])
    check_ready(page, overwrite=overwrite)
    outcomes = [outcome for path in folders if not reading.is_folder(path) for outcome in outcomes_of(path)]
    folders = [path for path in folders if reading.is_folder(path)]
    for path in folders:
        _check_subject(path)
    collection = _Collection(source, not read and source is None, processes, progress)
    for path in folders:
        collection.add(path)
    collection.add_outcomes(outcomes)
    return _write(page, collection)


def report_results(results: Iterable[Compressed], output: Path, *, read_back: bool) -> ReportPage:
    """`report` on what compress made. read_back: whether it has read back and checked what it made."""
    collection = _Collection()
    for result in results:
        collection.add_directory(result.directory, _READ_BACK if read_back and not result.already_done else "")
    return _write(output, collection)


def report_outcomes(outcomes: Sequence[Outcome], output: Path) -> ReportPage:
    """`report` on what a batch did."""
    collection = _Collection()
    collection.add_outcomes(outcomes)
    return _write(output, collection)


def default_output(path: Path) -> Path:
    """Where the report of a path goes if nobody says."""
    return Path(f"{given_name(path).removesuffix('.json')}-report.html")


def check_ready(page: Path, *, overwrite: bool = False) -> None:
    """Raises MissingError unless a report can be made here, InputError unless it may be written to this file."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise MissingError(f"a report needs {' and '.join(missing)}", remedy="pip install 'w8a8sc[report]'")
    folder = reading.absolute(page).parent
    reading.check_folder(folder, "create it, or choose another")
    if is_sharded_state(folder):
        raise InputError("a report may not be put into a sharded_state directory", str(page), "choose another folder")
    status = reading.link_status(page)
    if status is not None and not (stat.S_ISREG(status.st_mode) and (overwrite or _is_ours(page))):
        remedy = "move it away, choose another name, or give overwrite=True to replace it"
        remedy = remedy if stat.S_ISREG(status.st_mode) else "choose another name"
        raise InputError("exists already, and is no report of w8a8sc", str(page), remedy)
    reading.check_can_create(page)


def _is_ours(page: Path) -> bool:
    """Whether a file begins as reports do."""
    return next(reading.pieces(page, len(MARK)), b"") == MARK.encode()


class _Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An outcome as `batch --json` prints it."""

    model: str
    tensor_parallel_sizes: list[Annotated[int, msgspec.Meta(ge=1, le=LARGEST_TP)]]
    state: Literal["made", "done", "failed", "skipped"]
    error: str | None
    directories: list[str]
    output_bytes: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    seconds: Annotated[float, msgspec.Meta(ge=0)]


def outcomes_of(path: Path) -> list[Outcome]:
    """The outcomes in a file that `batch --json` printed; raises InputError for anything else."""
    data = read_small(path, _LARGEST_OUTCOME)
    try:
        records = msgspec.json.decode(data, type=list[_Outcome])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        remedy = "give a folder, or what w8a8sc batch --json printed"
        raise InputError(f"not the outcome of a batch ({str(error)[:200]})", str(path), remedy) from None
    return [
        Outcome(
            *(record.model, tuple(record.tensor_parallel_sizes), record.state, record.error or ""),
            directories=tuple(record.directories),
            output_bytes=record.output_bytes,
            seconds=record.seconds,
        )
        for record in records
    ]


def _check_subject(path: Path) -> None:
    """Raises InputError for a folder that is none of those that are reported on."""
    reading.check_folder(path)
    if not is_sharded_state(path) and not is_tree(path):
        refuse_tree(path)
        if not is_checkpoint(path):
            remedy = "give a checkpoint, a sharded_state directory, or a published tree"
            raise InputError("nothing that a report could be about", str(path), remedy)


class _Collection:
    """What a report is to be about, each directory once, looked at as it is added."""

    def __init__(
        self,
        source: str | os.PathLike[str] | None = None,
        quick: bool = True,
        processes: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._checkpoint = Checkpoint.open(Path(source), ARCHITECTURES) if source is not None else None
        self._source, self._quick, self._processes, self._progress = source, quick, processes, progress
        self._seen: set[Path] = set()
        self.subjects: list[Subject] = []
        self.outcomes: list[Outcome] = []
        self.tree_problems: list[Problem] = []
        self.not_checked: list[str] = []

    def add(self, path: Path) -> None:
        """A folder that `_check_subject` let through."""
        if is_sharded_state(path):
            self.add_directory(path)
        elif is_tree(path):
            self._add_tree(path)
        else:
            self.subjects.append(of_checkpoint(path))

    def add_directory(self, path: Path, said: str = "") -> None:
        """A directory. said: what is known of a check of it."""
        if self._is_new(path):
            verification = verified(path, self._checkpoint, self._quick, self._processes, self._progress)
            self._add_verified(verification, said)

    def _add_tree(self, path: Path) -> None:
        tree = verify_tree(
            path, source=self._source, quick=self._quick, processes=self._processes, progress=self._progress
        )
        self.tree_problems += [Problem(finding.message, finding.where) for finding in tree.findings]
        self.not_checked += tree.not_checked
        for verification in tree.reports:
            if self._is_new(verification.directory):
                self._add_verified(verification)

    def _is_new(self, directory: Path) -> bool:
        """Whether a directory, by whatever path, was not added before."""
        directory = reading.real_path(directory)
        new = directory not in self._seen
        self._seen.add(directory)
        return new

    def _add_verified(self, verification: Report, said: str = "") -> None:
        self.subjects.append(of_directory(verification, said))

    def add_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """What a batch did, and the directories that it made or met."""
        self.outcomes += outcomes
        for path in (Path(name) for outcome in outcomes for name in outcome.directories):
            if reading.is_folder(path) and is_sharded_state(path):
                self.add_directory(path)
            else:
                self.tree_problems.append(Problem("the directory that the batch made is not there", str(path)))


def _write(page: Path, collection: _Collection) -> ReportPage:
    """The file, put in place whole."""
    content = Content(
        *(collection.subjects, collection.outcomes, collection.tree_problems, collection.not_checked),
    )
    data = render(content).encode()
    files.put(page, data)
    return ReportPage(page, len(data), collection.subjects, content.ok)
