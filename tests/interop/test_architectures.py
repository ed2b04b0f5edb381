"""Directories of every architecture in the real vllm and vllm-ascend: all ranks load, and the values are vLLM's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.architectures import CHECKPOINTS, make
from tests.interop.conftest import PAIRS, environment, run
from w8a8sc_tool.jobs.compress import compress

pytestmark = [pytest.mark.interop, pytest.mark.slow]

_SIZES = (1, 2, 4)


@pytest.fixture(scope="module", params=PAIRS)
def answers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, int], list[dict[str, Any]]]:
    """What vllm_check.py says of a checkpoint's directory of a size: its values, then its files. One process a pair."""
    python = environment(request.param)
    folder = tmp_path_factory.mktemp("architectures")
    asked: dict[tuple[str, int, str], dict[str, Any]] = {}
    for name in CHECKPOINTS:
        source = make(name, folder)
        made = compress(source, folder, tp=_SIZES, processes=2, target=request.param.rpartition(".")[0])
        for result in made:
            case = {"dir": str(result.directory), "model": str(source), "tp": result.tp}
            asked |= {(name, result.tp, check): {"do": check, **case} for check in ("values", "files")}
    log: Path = tmp_path_factory.mktemp("log") / "log"
    said = dict(zip(asked, run(python, "loader_check.py", list(asked.values()), log, 1800)))
    return lambda name, tp: [said[name, tp, "values"], said[name, tp, "files"]]


@pytest.mark.parametrize("tp", _SIZES)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_rank_loads_with_vllms_own_values(
    answers: Callable[[str, int], list[dict[str, Any]]], name: str, tp: int
) -> None:
    values, files = answers(name, tp)
    for answer in (values, files):
        assert "error" not in answer, answer
        assert answer["errors"] == [] and len(answer["ranks"]) == tp
    assert all(rank["compared"] > 0 for rank in values["ranks"])
    assert any(rank["compressed_weights_skipped"] for rank in values["ranks"])
