"""A size of config.json that is not that of the weights is one error, however many tensors have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from w8a8sc_tool.checkpoint import Checkpoint
from w8a8sc_tool.errors import InputError
from w8a8sc_tool.layouts import ARCHITECTURES
from w8a8sc_tool.planning import Options, make_plan, sizes

from .. import tensors
from ..conftest import edit_json

WEIGHTS = "quant_model_weight_w8a8s.safetensors"


def problems(folder: Path, tp: int = 1, **changes: Any) -> list[str]:
    edit_json(folder / "config.json", lambda content: content.update(changes))
    with pytest.raises(InputError) as error:
        make_plan(Checkpoint.open(folder, ARCHITECTURES), tp, Options())
    return [str(problem) for problem in error.value.problems]


@pytest.mark.parametrize(
    ("key", "wrong", "right"),
    [
        ("hidden_size", 1024, 512),
        ("intermediate_size", 2048, 1536),
        ("num_attention_heads", 16, 12),
        ("num_attention_heads", 4, 12),
        ("num_key_value_heads", 6, 4),
        ("head_dim", 64, 128),
        ("vocab_size", 4000, 2048),
        ("num_hidden_layers", 50, 2),
        ("num_hidden_layers", 1, 2),
    ],
)
@pytest.mark.parametrize("tp", [1, 4])
def test_one_wrong_size(key: str, wrong: int, right: int, tp: int, tiny_copy: Path) -> None:
    (problem,) = problems(tiny_copy, tp, **{key: wrong})
    assert problem.startswith(f"{key} is {wrong} but the weights have {right}, {tiny_copy / 'config.json'}")


def test_sizes_are_tried_on_some_layers_and_hold_for_all(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "_MOST_LAYERS", 1)
    edit_json(tiny_copy / "config.json", lambda content: content.update(hidden_size=1024))
    checkpoint, wrong = sizes.corrected(Checkpoint.open(tiny_copy, ARCHITECTURES))
    assert len(wrong) == 1 and (checkpoint.config.layers, checkpoint.config.hidden_size) == (2, 512)


def test_a_default_that_does_not_fit(tiny_copy: Path) -> None:
    edit_json(tiny_copy / "config.json", lambda content: content.pop("intermediate_size"))
    (problem,) = problems(tiny_copy)
    assert "intermediate_size is 22016, which is what its absence means, but the weights have 1536" in problem


def test_two_wrong_sizes_and_a_tensor(tiny_copy: Path) -> None:
    content = tensors.read(tiny_copy / WEIGHTS)
    content["model.norm.weight"] = tensors.entry("F16", np.zeros(7))
    tensors.write(tiny_copy / WEIGHTS, content)
    wrong = problems(tiny_copy, hidden_size=256, vocab_size=1000)
    assert [text.split()[0] for text in wrong] == ["hidden_size", "vocab_size", "model.norm.weight"]
