"""Biases that the model class has no parameter for: refused where the model would change, a sentence where not."""

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
DOWN = "model.layers.0.mlp.down_proj"


def plan(folder: Path) -> Plan:
    return make_plan(Checkpoint.open(folder, ARCHITECTURES), 1, Options())


def add(
    folder: Path, names: list[str], value: float, dtype: str = "F16", size: int = 512, described: bool = True
) -> None:
    content = tensors.read(folder / WEIGHTS)
    for name in names:
        values = np.zeros(size, np.float32)
        values[-1] = value
        raw = (values.view(np.uint32) >> 16).astype(np.uint16) if dtype == "BF16" else values
        content[name] = tensors.entry(dtype, raw)
    tensors.write(folder / WEIGHTS, content)
    if described:
        edit_json(folder / "quant_model_description.json", lambda types: types.update(dict.fromkeys(names, "FLOAT")))


@pytest.mark.parametrize("kind", ["FLOAT", "W8A8_DYNAMIC", "W16A16S"])
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_a_bias_that_would_be_lost_is_refused(kind: str, dtype: str, tmp_path: Path) -> None:
    folder = synthesize(tmp_path / "m", "tiny", layers=1, types=[("*.down_proj", kind)])
    add(folder, [f"{DOWN}.bias"], 0.125, dtype)
    with pytest.raises(InputError, match=rf"{kind} layers .* not zero.*{DOWN}.bias.*m4.*m6 or none") as error:
        plan(folder)
    assert len(error.value.problems) == 1


def test_many_are_one_error_that_names_the_recipe(tmp_path: Path) -> None:
    folder = synthesize(tmp_path / "m", "tiny", layers=4, types=[("*.down_proj", "FLOAT")])
    add(folder, [f"model.layers.{layer}.mlp.down_proj.bias" for layer in range(4)], 1.0)
    (folder / "Model-1B_best_practice.yaml").write_text("spec: {anti_cfg: {anti_method: m9}}\n")
    with pytest.raises(InputError, match=r"and 1 more.*anti_method m9 \(Model-1B_best_practice.yaml\)") as error:
        plan(folder)
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("text", ["", "spec: 3", "spec: {anti_cfg: {anti_method: [m4]}}", "\t- {", "\0"])
def test_a_recipe_that_says_nothing_is_passed_over(text: str, tiny_copy: Path) -> None:
    add(tiny_copy, [f"{DOWN}.bias"], 1.0)
    (tiny_copy / "Model-1B_best_practice.yaml").write_text(text)
    with pytest.raises(InputError, match="probably anti_method m4"):
        plan(tiny_copy)


def test_zeros_are_nothing_lost(tiny_copy: Path) -> None:
    add(tiny_copy, [f"{DOWN}.bias"], -0.0)
    made = plan(tiny_copy)
    assert made.warnings == ()
    assert [tensor.name for tensor in made.unused] == [f"{DOWN}.bias"]


@pytest.mark.parametrize("kind", ["W8A8S", "W8A8"])
def test_what_quant_bias_contains_is_one_sentence(kind: str, tmp_path: Path) -> None:
    types = [("*", kind)] if kind == "W8A8" else []
    folder = synthesize(tmp_path / "m", "tiny", layers=2, types=types)
    add(folder, [f"model.layers.{layer}.self_attn.o_proj.bias" for layer in (0, 1)], 1.0)
    assert plan(folder).warnings == ("2 linear biases need no place in the output: quant_bias contains them",)


def test_other_tensors_without_a_place_are_still_named(tiny_copy: Path) -> None:
    add(tiny_copy, ["model.layers.0.self_attn.rotary_emb.inv_freq"], 1.0)
    (warning,) = plan(tiny_copy).warnings
    assert "1 tensors of the checkpoint have no place in the output: model.layers.0.self_attn.rotary_emb" in warning


def test_a_norm_bias_that_is_not_described(tiny_copy: Path) -> None:
    """vLLM gives the norms no bias then."""
    add(tiny_copy, ["model.norm.bias"], 1.0, "F32", described=False)
    with pytest.raises(InputError, match="not described, and not zero: model.norm.bias"):
        plan(tiny_copy)


def test_a_bias_of_the_output_layer(tiny_copy: Path) -> None:
    add(tiny_copy, ["lm_head.bias"], 1.0, size=2048)
    with pytest.raises(InputError, match="has no parameter for it: lm_head.bias"):
        plan(tiny_copy)


def test_a_norm_bias_outside_the_model_gives_its_norms_none(tiny_copy: Path) -> None:
    """The output's description is of the output's tensors, and vLLM goes by that."""
    add(tiny_copy, ["draft.norm.bias"], 1.0)
    made = plan(tiny_copy)
    assert not any(output.name.endswith("norm.bias") for item in made.modules for output in item.module.outputs)
