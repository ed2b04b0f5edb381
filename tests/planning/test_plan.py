"""The plan: records that can be read without running anything, fallbacks, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from w8a8sc_tool.checkpoint import Checkpoint
from w8a8sc_tool.errors import InputError, UsageError
from w8a8sc_tool.layouts import ARCHITECTURES
from w8a8sc_tool.planning import Options, Plan, make_plan
from w8a8sc_tool.planning.plan import fits_kernel
from w8a8sc_tool.synthesis.synthesize import MODELS, Model, synthesize

from .. import tensors

WEIGHTS = "quant_model_weight_w8a8s.safetensors"


def plan(folder: Path, tp: int = 1) -> Plan:
    return make_plan(Checkpoint.open(folder, ARCHITECTURES), tp, Options())


def change(folder: Path, **entries: tuple[str, list[int], bytes] | None) -> None:
    """Replace tensors (names with / for dots), or remove them (None)."""
    content = tensors.read(folder / WEIGHTS)
    for name, entry in entries.items():
        key = name.replace("/", ".")
        if entry is None:
            del content[key]
        else:
            content[key] = entry
    tensors.write(folder / WEIGHTS, content)


def test_every_source_tensor_is_used_once(tiny: Path) -> None:
    made = plan(tiny)
    used = [name for item in made.modules for name in item.sources]
    assert len(used) == len(set(used)) == len(Checkpoint.open(tiny, ARCHITECTURES).tensors)
    assert made.unused == ()
    assert made.warnings == ()


def test_records_say_what_is_made(tiny: Path) -> None:
    records = {record["name"]: record for record in plan(tiny, 2).records()}
    weight = records["model.layers.0.self_attn.qkv_proj.weight"]
    assert (weight["quantization"], weight["cut"], weight["ratio"], weight["shape"]) == (
        *("W8A8SC", "rows", "open"),
        [1280, 512],
    )
    assert records["model.layers.0.self_attn.o_proj.weight"]["cut"] == "columns"
    assert records["model.layers.0.self_attn.o_proj.quant_bias"]["cut"] == "none"
    down = records["model.layers.0.mlp.down_proj.weight"]
    assert (down["quantization"], down["fallback"], down["dtype"]) == ("FLOAT", "source", "F16")


@pytest.mark.parametrize(
    ("n", "k", "fits"),
    [(128, 320, True), (64, 320, False), (160, 320, False), (128, 256, False), (128, 336, False), (192, 4096, True)],
)
def test_limits_of_the_kernel(n: int, k: int, fits: bool) -> None:
    assert fits_kernel(n, k) is fits


def test_shapes_the_kernel_cannot_take_fall_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "odd", Model(320, 352, 1, 4, 2, 64, 400, ()))
    made = plan(synthesize(tmp_path / "m", "odd"), 1)
    fallback = {item.module.name.rpartition(".")[2]: item.fallback for item in made.modules}
    assert (fallback["o_proj"], fallback["down_proj"], fallback["qkv_proj"]) == ("shape", "shape", None)


def test_missing_wrong_dtype_and_wrong_shape_in_one_report(tiny_copy: Path) -> None:
    name = "model.layers.0.self_attn.q_proj"
    change(
        tiny_copy,
        **{
            f"{name}.input_scale": tensors.entry("I32", np.zeros(1)),
            f"{name}.quant_bias": tensors.entry("I32", np.zeros(7)),
            f"{name}.weight": tensors.entry("I8", np.zeros((10, 512))),
        },
    )
    with pytest.raises(InputError) as error:
        plan(tiny_copy)
    assert len(error.value.problems) == 3
    for text in ("input_scale is I32", "quant_bias has shape [7]", "weight has shape [10, 512]", WEIGHTS):
        assert text in str(error.value)


def test_w8a8s_weight_without_scale(tiny_copy: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.deq_scale"
    change(tiny_copy, **{name: None})
    from ..conftest import edit_json

    edit_json(tiny_copy / "quant_model_description.json", lambda c: c.pop(name))
    with pytest.raises(InputError, match=f"{name} is missing"):
        plan(tiny_copy)


def test_flat_and_scalar_shapes_of_other_savers(tiny_copy: Path) -> None:
    name = "model.layers.0.self_attn.q_proj"
    scale = tensors.read(tiny_copy / WEIGHTS)[f"{name}.input_scale"]
    change(tiny_copy, **{f"{name}.input_scale": (scale[0], [], scale[2])})
    assert plan(tiny_copy).warnings == ()


def test_members_that_disagree_are_a_warning_that_names_the_layer(tiny_copy: Path) -> None:
    change(tiny_copy, **{"model.layers.1.self_attn.k_proj.input_scale": tensors.entry("F16", np.array([0.5]))})
    (warning,) = plan(tiny_copy).warnings
    assert "model.layers.1.self_attn.qkv_proj" in warning
    assert "input_scale differ" in warning


@pytest.mark.parametrize("value", [130, 0.5])
def test_offsets_vllm_would_wrap(tiny_copy: Path, value: float) -> None:
    change(tiny_copy, **{"model.layers.1.self_attn.k_proj.input_offset": tensors.entry("F16", np.array([value]))})
    with pytest.raises(InputError, match="k_proj.input_offset is"):
        plan(tiny_copy)


def test_tensors_without_a_place_are_named(tiny_copy: Path) -> None:
    change(tiny_copy, **{"model.extra.weight": tensors.entry("F16", np.zeros(4))})
    made = plan(tiny_copy)
    assert [tensor.name for tensor in made.unused] == ["model.extra.weight"]
    assert "model.extra.weight" in made.warnings[0]


def test_options_that_cannot_work(tiny: Path) -> None:
    checkpoint = Checkpoint.open(tiny, ARCHITECTURES)
    for ratio in (0.0, 1.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="max ratio"):
            make_plan(checkpoint, 1, Options(max_ratio=ratio))
    with pytest.raises(UsageError, match="not positive"):
        make_plan(checkpoint, 0, Options())
