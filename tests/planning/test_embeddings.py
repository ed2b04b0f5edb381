"""A second table of embeddings beside tied ones: refused if it is another one, and left out if it is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from w8a8sc_tool.checkpoint import Checkpoint
from w8a8sc_tool.errors import InputError
from w8a8sc_tool.layouts import ARCHITECTURES
from w8a8sc_tool.planning import Options, Plan, make_plan
from w8a8sc_tool.synthesis.synthesize import synthesize

from .. import tensors
from ..conftest import edit_json

WEIGHTS = "quant_model_weight_w8a8s.safetensors"
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return synthesize(tmp_path / "m", "tiny", layers=1, tied=True)


def plan(folder: Path) -> Plan:
    return make_plan(Checkpoint.open(folder, ARCHITECTURES), 2, Options())


def add_head(folder: Path, dtype: str, *, change: float = 0.0) -> None:
    content = tensors.read(folder / WEIGHTS)
    values = tensors.array(content[TABLE]).astype(np.float32)
    values[-1, -1] += change
    content[HEAD] = tensors.entry(dtype, values)
    tensors.write(folder / WEIGHTS, content)
    edit_json(folder / "quant_model_description.json", lambda types: types.update({HEAD: "FLOAT"}))


@pytest.mark.parametrize("dtype", ["F16", "F32"])
def test_the_same_table_is_left_out(folder: Path, dtype: str) -> None:
    add_head(folder, dtype)
    assert any(f"have no place in the output: {HEAD}" in warning for warning in plan(folder).warnings)


def test_another_table_is_refused(folder: Path) -> None:
    add_head(folder, "F16", change=1.0)
    with pytest.raises(InputError, match=f"tie_word_embeddings is true, but {HEAD} is not equal to {TABLE}"):
        plan(folder)


def test_a_missing_table_may_be_a_tied_one(folder: Path) -> None:
    edit_json(folder / "config.json", lambda content: content.update(tie_word_embeddings=False))
    with pytest.raises(InputError, match=f"{HEAD} is missing.*or tie_word_embeddings of config.json should be true"):
        plan(folder)
