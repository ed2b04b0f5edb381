"""Small synthesized checkpoints, made once per test run; tests that change one work on a copy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from w8a8sc_tool.conversion.convert import target_folder
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.synthesis.synthesize import synthesize


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer float16 checkpoint in one file. Read only: use `tiny_copy` to change one."""
    return synthesize(tmp_path_factory.mktemp("source") / "Tiny-w8a8s-310", "tiny", layers=2)


@pytest.fixture
def tiny_copy(tiny: Path, tmp_path: Path) -> Path:
    return writable_copy(tiny, tmp_path / "Tiny-w8a8s-310")


def writable_copy(checkpoint: Path, target: Path) -> Path:
    """A copy whose files may be changed."""
    copy = Path(shutil.copytree(checkpoint, target))
    for path in copy.iterdir():
        path.chmod(0o600)
    return copy


def _directories(tiny: Path, output: Path, most: int | None = None) -> Callable[[int], Path]:
    """Directories of `tiny` by TP size, each made when it is first asked for; most: bytes of a file."""

    def directory(tp: int) -> Path:
        target = target_folder(output, "Tiny", tp)
        if not target.exists():
            compress(tiny, output, tp=[tp], processes=2, max_file_size=most)
        return target

    return directory


@pytest.fixture(scope="session")
def sealed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Sealed directories of `tiny`, by TP size. Read only."""
    return _directories(tiny, tmp_path_factory.mktemp("sealed"))


# Of the 17 MB that a rank of `tiny` may take at TP 1, 9 MB at TP 2.
MOST_BYTES = 3_000_000


@pytest.fixture(scope="session")
def in_parts(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """As `sealed`, but with files of at most MOST_BYTES. Read only."""
    return _directories(tiny, tmp_path_factory.mktemp("in_parts"), MOST_BYTES)


@pytest.fixture
def sealed_copy(sealed: Callable[[int], Path], tmp_path: Path) -> Path:
    """A copy of the sealed directory for TP 2, to damage."""
    return Path(shutil.copytree(sealed(2), tmp_path / "sealed"))


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def tree(sealed: Callable[[int], Path], tmp_path: Path) -> Path:
    """A published tree with the sizes 1 and 2 alone, to change."""
    folder = tmp_path / sealed(1).parents[1].name
    for tp in (1, 2):
        shutil.copytree(sealed(tp).parent, folder / sealed(tp).parent.name)
    return folder
