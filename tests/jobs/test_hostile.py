"""Files made to mislead: an error that names the file, nothing else; scripts/torture measures time and memory too."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from w8a8sc_tool.cli.main import run
from w8a8sc_tool.errors import W8A8SCError
from w8a8sc_tool.jobs import batch
from w8a8sc_tool.jobs.compress import plan
from w8a8sc_tool.jobs.inspect import inspect

from .. import hostile

# What needs gigabytes of sparse files or seconds is the torture's.
HAS_TORCH = importlib.util.find_spec("torch") is not None
LARGE = ("header: very large", "batch: a million jobs")


FILES = [case for case in hostile.CASES if case.of != "directory" and case.name not in LARGE]
DIRECTORIES = [case for case in hostile.CASES if case.of == "directory" and case.name not in LARGE]


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.name)
def test_refused_with_the_place(
    case: hostile.Case,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(tiny, tmp_path / "hostile"))
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


def _starts_workers(arguments: list[str], case: hostile.Case) -> bool:
    """Whether a command starts processes before it can refuse a directory, which takes seconds."""
    return (
        arguments[0] == "compare"
        or (arguments[0] == "verify" and "--quick" not in arguments)
        or (arguments[0] in ("reshard", "decompress") and "no manifest" in case.name)
    )


# A manifest that is refused is refused before any worker starts.
AT_ONCE = [case for case in DIRECTORIES if case.name.startswith("sealed") and not case.harmless]


@pytest.mark.parametrize(
    ("case", "whole"),
    [
        *((case, True) for case in AT_ONCE),
        *(
            pytest.param(case, False, marks=() if number % 3 == 0 and "large" not in case.name else pytest.mark.slow)
            for number, case in enumerate(DIRECTORIES)
            if case not in AT_ONCE and not case.harmless
        ),
        *(pytest.param(case, True, marks=pytest.mark.slow) for case in DIRECTORIES if case not in AT_ONCE),
    ],
    ids=lambda value: value.name if isinstance(value, hostile.Case) else "" if value else "without workers",
)
def test_every_command_that_takes_a_directory(
    case: hostile.Case,
    whole: bool,
    sealed: Callable[[int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Refused by whatever uses it, never a defect, nothing written elsewhere, and what is verified can be used."""
    monkeypatch.chdir(tmp_path)
    folder, output = Path(shutil.copytree(sealed(2), tmp_path / "hostile")), tmp_path / "output"
    case.make(folder)
    before = sorted(path for path in tmp_path.rglob("*"))
    codes: dict[str, int] = {}
    for arguments in hostile.commands(folder, output):
        if not whole and _starts_workers(arguments, case):
            continue
        name = " ".join([arguments[0], *(word for word in arguments if word.startswith("--"))])
        codes[name] = run(arguments)
        printed = "".join(capfd.readouterr())
        assert "defect" not in printed and "Traceback" not in printed and "a worker" not in printed, printed
        assert codes[name] in (0, 1, 3, *((4,) if name.startswith("generate") and not HAS_TORCH else ())), printed
        assert codes[name] == 0 or str(folder) in printed or str(output) in printed, printed
        written = [path for path in tmp_path.rglob("*") if path not in before and output not in (path, *path.parents)]
        assert not written
    if not case.harmless:
        assert 0 not in {code for name, code in codes.items() if not name.startswith(("inspect", "compare"))}, codes
        assert not [path for path in output.rglob("*.safetensors") if ".partial" not in str(path)]
    elif codes.get("verify") == 0 and HAS_TORCH:
        assert set(codes.values()) == {0}


ATTEMPTS: dict[str, list[Callable[[Path, Path], object]]] = {
    "checkpoint": [lambda folder, _: inspect(folder), lambda folder, _: plan(folder)],
    "preset": [lambda folder, tiny: plan(tiny, preset=str(folder / hostile.PRESET))],
    "batch": [lambda folder, _: batch.run_batch(folder / hostile.BATCH)],
}
