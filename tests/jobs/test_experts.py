"""A mixture of experts in the commands that speak of modules: inspect, fit, serve, generate, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from w8a8sc_tool.checking.compare import compare
from w8a8sc_tool.checking.verify import target_of, verify
from w8a8sc_tool.cli.main import run
from w8a8sc_tool.errors import InputError, MissingError, UsageError
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.jobs.generate import generate
from w8a8sc_tool.jobs.inspect import inspect
from w8a8sc_tool.jobs.serving import prepare_serving
from w8a8sc_tool.sharded_state import ShardedState
from w8a8sc_tool.targets import TARGETS

from .. import tensors
from ..architectures import CHECKPOINTS, make
from ..conftest import edit_json, writable_copy
from .test_compress import check_values

WEIGHTS = "quant_model_weight_w8a8s.safetensors"
DESCRIPTION = "quant_model_description.json"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("qwen3.5-moe", tmp_path_factory.mktemp("experts"))


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories for TP 2, by target."""
    output = tmp_path_factory.mktemp("made")
    return {
        target: compress(source, output / target, tp=2, target=target, processes=1)[0].directory for target in TARGETS
    }


def test_inspect_has_one_row_for_the_experts_of_a_layer(source: Path, made: dict[str, Path]) -> None:
    for path in (source, *made.values()):
        rows = [row for row in inspect(path).modules if row.experts]
        assert [row.short_name for row in rows] == ["mlp.experts"] * 4
        assert [row.quantization for row in rows] == ["W8A8_DYNAMIC", "FLOAT", "W8A8_DYNAMIC", "W8A8_DYNAMIC"]
        assert inspect(path).totals()["routed experts, W8A8_DYNAMIC"][0] == 3
    linear = {row.name: row for row in inspect(made["0.27"]).modules if row.linear and row.layer == 2}
    shared = "language_model.model.layers.2.mlp.experts._shared_experts._layer"
    assert {row.quantization for row in linear.values()} == {"W8A8SC"}
    assert linear[f"{shared}.gate_up_proj"].short_name == "mlp.shared_expert.gate_up_proj"
    assert len(inspect(source).modules) < 150


def test_inspect_shows_a_few_lines(made: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(made["0.18"])]) == 0
    text = capsys.readouterr().out
    assert "shared_expert.gate_up" in text and "routed experts, W8A8_DYNAMIC: 3 modules" in text
    assert len(text.splitlines()) < 16


@pytest.mark.parametrize("target", TARGETS)
def test_the_keys_tell_the_release(target: str, made: dict[str, Path], source: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made[target], tmp_path / "copy"))
    (folder / "w8a8sc_manifest.json").unlink()
    with ShardedState.open(folder) as state:
        assert target_of(state) == target
    assert verify(folder, source=source).findings == []


def test_releases_are_other_directories_of_one_model(made: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert not compare(made["0.18"], made["0.23"]).same_model  # other names
    monkeypatch.setattr("w8a8sc_tool.jobs.serving.version_of", lambda package: "0.24.1")
    notes = {target: " ".join(prepare_serving(made[target], force=True).notes) for target in TARGETS}
    assert {target: "does not load them: compress with target=0.23" in text for target, text in notes.items()} == {
        "0.18": True,
        "0.23": False,
        "0.27": True,
    }


def test_serve_refuses_whole_experts_on_a_rank(made: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="enable-expert-parallel: the directory has a part of every expert"):
        prepare_serving(made["0.23"], ["--enable-expert-parallel"])


def test_generate_says_that_it_does_not_run_it(made: dict[str, Path]) -> None:
    with pytest.raises(MissingError, match="no model for Qwen3_5MoeForConditionalGeneration") as error:
        generate(made["0.23"], token_ids=[1, 2])
    assert error.value.exit_code == 4


def test_the_share_that_was_compressed(source: Path, tmp_path: Path) -> None:
    (result,) = compress(source, tmp_path, processes=1)
    content = tensors.read(source / WEIGHTS)
    weights = [data for name, (dtype, _, data) in content.items() if dtype == "I8" and name.endswith(".weight")]
    shapes = [row.shape for row in inspect(result.directory).modules if row.quantization == "W8A8SC"]
    compressed = sum(shape[0] * shape[1] for shape in shapes if shape)
    assert result.compressed_share == pytest.approx(compressed / sum(map(len, weights)))
    assert 0.2 < compressed / sum(map(len, weights)) < 0.8


def test_eight_ranks_on_one_key_value_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, more = CHECKPOINTS["qwen3-moe tied"]
    monkeypatch.setitem(CHECKPOINTS, "eight", (sizes, {**more, "text": {**more["text"], "num_experts": 8}}))
    source = make("eight", tmp_path)
    (result,) = compress(source, tmp_path, tp=8, processes=1)
    check_values(source, result.directory, 8)


def test_a_checkpoint_of_other_types_passes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As msmodelslim's recipes make it: attention W8A8, experts W8A8_DYNAMIC."""
    sizes, more = CHECKPOINTS["qwen3-moe tied"]
    monkeypatch.setitem(CHECKPOINTS, "other", (sizes, {**more, "types": [("*.self_attn.*", "W8A8")]}))
    source = make("other", tmp_path)
    (result,) = compress(source, tmp_path, tp=2, processes=1)
    assert (result.weight_ratio, result.compressed_share) == (None, 0)
    check_values(source, result.directory, 2)


def refused(folder: Path) -> list[str]:
    with pytest.raises(InputError) as error:
        compress(folder, folder.parent / "out", processes=1)
    return [str(problem) for problem in error.value.problems]


@pytest.fixture
def copy(source: Path, tmp_path: Path) -> Path:
    return writable_copy(source, tmp_path / "copy")


@pytest.mark.parametrize(
    ("key", "wrong", "right"),
    [
        ("num_experts", 8, 6),
        ("num_experts", 4, 6),
        ("moe_intermediate_size", 768, 384),
        ("shared_expert_intermediate_size", 384, 768),
    ],
)
def test_a_wrong_size_is_one_problem(key: str, wrong: int, right: int, copy: Path) -> None:
    edit_json(copy / "config.json", lambda content: content["text_config"].update({key: wrong}))
    (problem,) = refused(copy)
    assert problem.startswith(f"{key} is {wrong} but the weights have {right}")


def test_experts_that_are_not_there_are_not_a_thousand_lines(copy: Path) -> None:
    content = tensors.read(copy / WEIGHTS)
    left = {name: entry for name, entry in content.items() if ".layers.2.mlp.experts." not in name}
    tensors.write(copy / WEIGHTS, left)
    edit_json(copy / DESCRIPTION, lambda types: [types.pop(name) for name in content if name not in left])
    (problem,) = refused(copy)
    assert "layers.2.mlp.experts.0.gate_proj.weight has no quantization type" in problem


def test_damaged_experts_are_a_few_lines(copy: Path) -> None:
    content = tensors.read(copy / WEIGHTS)
    for name, (_, shape, data) in content.items():
        if ".layers.2.mlp.experts." in name and name.endswith("weight_scale"):
            content[name] = ("I32", shape, bytes(len(data) * 2))
    tensors.write(copy / WEIGHTS, content)
    problems = refused(copy)
    assert len(problems) == 4 and "15 more tensors of language_model.model.layers.2.mlp.experts" in problems[3]


def test_experts_of_a_type_without_a_scheme(copy: Path) -> None:
    def change(types: dict[str, str]) -> None:
        types |= {name: "W8A8S" for name in types if ".layers.0.mlp.experts." in name}

    edit_json(copy / DESCRIPTION, change)
    (problem,) = refused(copy)
    assert "mlp.experts has type W8A8S" in problem and problem.endswith("supported: W8A8_DYNAMIC, FLOAT")
