"""Files made to mislead: an error that names the file, nothing else; scripts/torture measures time and memory too."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from w8a8sc_tool.checking.verify import verify
from w8a8sc_tool.errors import W8A8SCError
from w8a8sc_tool.jobs import batch
from w8a8sc_tool.jobs.compress import plan
from w8a8sc_tool.jobs.inspect import inspect

from .. import hostile

# What needs gigabytes of sparse files or seconds is the torture's.
LARGE = ("header: very large", "batch: a million jobs")


@pytest.mark.parametrize("case", [c for c in hostile.CASES if c.name not in LARGE], ids=lambda case: case.name)
def test_refused_with_the_place(
    case: hostile.Case,
    tiny: Path,
    sealed: Callable[[int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(sealed(2) if case.of == "directory" else tiny, tmp_path / "hostile"))
    case.make(folder)
    refused = False
    for attempt in ATTEMPTS[case.of]:
        try:
            attempt(folder, tiny)
        except W8A8SCError as error:
            refused = True
            assert any("hostile" in problem.where for problem in error.problems), str(error)
    assert refused or case.harmless
    assert not (tmp_path / "touched").exists()


def verified(folder: Path, tiny: Path) -> None:
    """What verify finds counts as refused."""
    report = verify(folder, processes=1, quick=True)
    if report.findings:
        raise W8A8SCError(report.findings[0].what, report.findings[0].where)


ATTEMPTS: dict[str, list[Callable[[Path, Path], object]]] = {
    "checkpoint": [lambda folder, _: inspect(folder), lambda folder, _: plan(folder)],
    "directory": [verified, lambda folder, _: inspect(folder)],
    "preset": [lambda folder, tiny: plan(tiny, preset=str(folder / hostile.PRESET))],
    "batch": [lambda folder, _: batch.run(folder / hostile.BATCH)],
}
