"""generation_config.json as vLLM takes it, and the choice of tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from w8a8sc_tool.errors import InputError
from w8a8sc_tool.runtime.choice import Chooser
from w8a8sc_tool.runtime.directory import config_of
from w8a8sc_tool.runtime.generation import Generation
from w8a8sc_tool.runtime.sampling import Sampling

from ..conftest import edit_json

LOGITS = torch.tensor([0.0, 3.0, 2.5, 1.0, -1.0, 2.9])


def read(folder: Path, content: dict[str, Any] | None) -> Generation:
    path = folder / "generation_config.json"
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_text(json.dumps(content))
    return Generation.read(folder, config_of(folder))


@pytest.mark.parametrize(("value", "ends"), [(7, {7}), ([7, 8, 7], {7, 8}), (None, set()), ([], set())])
def test_end_tokens(value: object, ends: set[int], tiny_copy: Path) -> None:
    """Those of the file alone where there is one, of config.json otherwise."""
    edit_json(tiny_copy / "config.json", lambda content: content.update(eos_token_id=[3, 4]))
    assert read(tiny_copy, {"eos_token_id": value}).ends == ends
    assert read(tiny_copy, None).ends == {3, 4}


def test_sampling_defaults_and_what_was_given(tiny_copy: Path) -> None:
    """do_sample is nothing to vLLM, which samples at temperature 1 unless it is told otherwise."""
    content = {"do_sample": False, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.05}
    generation = read(tiny_copy, content | {"min_p": None})
    assert generation.sampling == Sampling(0.6, 20, 0, 0.95, 0.0, 1.05)
    given = generation.with_values(temperature=0.0, top_p=None, seed=5)
    assert given == Sampling(0.0, 20, 5, 0.95, 0.0, 1.05)
    assert read(tiny_copy, {"top_k": -1}).sampling == Sampling(1.0)
    assert read(tiny_copy, None).sampling == Sampling(1.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"temperature": -1}, r"temperature is -1, 0 or more is wanted, .*generation_config\.json"),
        ({"temperature": "hot"}, "temperature is hot, a number is wanted"),
        ({"top_k": 1.5}, "top_k is 1.5"),
        ({"top_k": -7}, "top_k is -7"),
        ({"top_p": 0}, "top_p is 0"),
        ({"min_p": 2}, "min_p is 2"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0"),
        ({"eos_token_id": ["x"]}, "eos_token_id is"),
    ],
)
def test_values_that_mean_nothing(content: dict[str, Any], message: str, tiny_copy: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(tiny_copy, content)


def chosen(sampling: Sampling, seen: list[int] | None = None) -> set[int]:
    """Every token that comes up in a few hundred choices."""
    chooser = Chooser(sampling, len(LOGITS))
    chooser.see(torch.tensor(seen or [], dtype=torch.int64))
    return {chooser.choose(LOGITS) for _ in range(400)}


def test_the_choice_is_among_what_the_values_leave() -> None:
    assert chosen(Sampling(0.0)) == {1}
    assert chosen(Sampling(5.0)) == {0, 1, 2, 3, 4, 5}
    assert chosen(Sampling(5.0, top_k=3)) == {1, 2, 5}
    assert chosen(Sampling(1.0, top_p=0.3)) == {1}
    assert chosen(Sampling(1.0, top_p=0.5)) == {1, 5}  # 0.36 and 0.32
    assert chosen(Sampling(1.0, min_p=0.5)) == {1, 2, 5}  # a chance of e^-0.69 of the best's
    assert chosen(Sampling(5.0, top_k=3, top_p=0.4)) == {1, 5}
    assert chosen(Sampling(1e-3)) == {1}


def test_the_penalty_is_on_tokens_that_were_there() -> None:
    assert chosen(Sampling(0.0, repetition_penalty=1.5), [1]) == {5}
    assert chosen(Sampling(0.0, repetition_penalty=1.5), [1, 5, 2]) == {1}
    low = Chooser(Sampling(0.0, repetition_penalty=2.0), 2)
    low.see(torch.tensor([0]))
    assert low.choose(torch.tensor([-1.0, -1.5])) == 1  # a negative logit is multiplied


def test_one_seed_one_sequence() -> None:
    first, again, other = (
        [Chooser(Sampling(1.0, seed=s), 6).choose(LOGITS) for s in range(n, n + 20)] for n in (0, 0, 50)
    )
    assert first == again != other
