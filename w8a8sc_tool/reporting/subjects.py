"""What a report is about: checkpoints and directories, as far as they can be read, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from ..checking.verify import Report
from ..checkpoint import Checkpoint, ModelConfig
from ..errors import InputError, Problem, W8A8SCError
from ..io.names import given_name
from ..jobs.compress import model_name, understand
from ..jobs.inspect import Inspection, ModuleRow, inspect, inspect_manifest
from ..jobs.serving import Advice, advise_on, fit
from ..layouts import ARCHITECTURES, Architecture, architecture_of
from ..options import CompressOptions
from ..planning import Plan, PlannedModule
from ..serving import Estimate
from ..sharded_state import Manifest
from ..sharded_state import manifest as manifest_file

T = TypeVar("T")


@dataclass
class Subject:
    """A checkpoint or a directory. Whatever could not be read is None or empty, and `problems` says why.

    tp: of a directory, 0 if that is not known. rows: its modules; of a checkpoint, those that a directory would have.
    plans: of a checkpoint, what compress would do, per size. said: what is known of a check that was made elsewhere.
    """

    path: Path
    kind: Literal["checkpoint", "directory"]
    name: str
    tp: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    verification: Report | None = None
    manifest: Manifest | None = None
    inspection: Inspection | None = None
    config: ModelConfig | None = None
    rows: list[ModuleRow] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    estimates: list[Estimate] = field(default_factory=list)
    advice: Advice | None = None
    said: str = ""

    @property
    def table(self) -> Architecture | None:
        """The layout of its model."""
        return architecture_of(self.config) if self.config is not None else None

    def ask(self, question: Callable[[], T]) -> T | None:
        """An answer, or None with what stands in its way among the problems."""
        try:
            return question()
        except W8A8SCError as error:
            known = {(problem.message, problem.where) for problem in self.problems}
            self.problems += [problem for problem in error.problems if (problem.message, problem.where) not in known]
            return None


def of_checkpoint(path: Path) -> Subject:
    """A checkpoint, by its headers and small files: what it holds, and what compress would make of it."""
    subject = Subject(path, "checkpoint", _name(path))
    checkpoint = subject.ask(lambda: Checkpoint.open(path, ARCHITECTURES))
    if checkpoint is None:
        return subject
    subject.config = checkpoint.config
    subject.inspection = subject.ask(lambda: inspect(path))
    if subject.inspection is not None:
        subject.rows = subject.inspection.modules
    subject.estimates = subject.ask(lambda: fit(path)) or []
    sizes = [estimate.tp for estimate in subject.estimates] or [1]
    options = CompressOptions.of({"tp": sizes, "backend": "native"})
    understood = subject.ask(lambda: understand(path, Path(), options))
    if understood is not None:
        table = architecture_of(understood.checkpoint.config)
        subject.plans = understood.plans
        subject.rows = [_planned(item, table) for item in subject.plans[0].modules]
        subject.notes += subject.plans[0].warnings
    return subject


def _name(path: Path) -> str:
    """What the model is called, by its folder."""
    with suppress(InputError):
        return model_name(path)
    return path.name


def _planned(item: PlannedModule, table: Architecture) -> ModuleRow:
    """A module that compress would make; its bytes are the checkpoint's."""
    module = item.module
    layer, short_name = table.split(module.name)
    return ModuleRow(
        name=module.name,
        layer=layer,
        short_name=short_name,
        quantization=module.quantization,
        shape=(module.n, module.k) if module.n else None,
        bytes=item.source_bytes,
        fallback=item.fallback,
        linear=module.kind == "linear",
        experts=module.kind == "experts",
    )


def of_directory(report: Report, said: str = "") -> Subject:
    """A directory that was verified, at least its sizes and structure; what is damaged is read as far as it can be."""
    path = report.directory
    subject = Subject(path, "directory", "", report.tp, verification=report, said=said)
    subject.problems += [Problem(finding.message, finding.where) for finding in report.findings]
    with suppress(InputError):  # the report has it among its findings
        subject.manifest = manifest_file.load(path)
    manifest = subject.manifest
    if manifest is not None:
        subject.name, subject.tp = manifest.model, manifest.tensor_parallel_size
    else:
        with suppress(InputError):
            subject.name = given_name(path)
    subject.name = subject.name or path.name
    subject.config = subject.ask(lambda: ModelConfig.parse(path / "config.json", ARCHITECTURES))
    subject.inspection = _content(subject)
    if subject.inspection is not None:
        subject.rows = subject.inspection.modules
        subject.notes += subject.inspection.warnings
    if report.findings or subject.config is None:
        subject.notes.append("what fits and what serves it is not said of a damaged directory")
        return subject
    subject.estimates = subject.ask(lambda: fit(path)) or []
    if manifest is not None:
        subject.advice = subject.ask(lambda: advise_on(path, manifest, path))
    return subject


def _content(subject: Subject) -> Inspection | None:
    """What is in a directory's files or, where something is wrong, what its manifest says that there was."""
    manifest = subject.manifest
    if subject.problems and manifest is not None:
        return subject.ask(lambda: inspect_manifest(subject.path, manifest))
    return subject.ask(lambda: inspect(subject.path))
