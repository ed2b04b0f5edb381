"""Opening a checkpoint: tolerant of the names savers use, strict about everything else, all problems in one report."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from w8a8sc_tool.checkpoint import Checkpoint
from w8a8sc_tool.errors import InputError
from w8a8sc_tool.layouts import ARCHITECTURES

from .. import tensors
from ..conftest import edit_json

WEIGHTS = "quant_model_weight_w8a8s.safetensors"
DESCRIPTION = "quant_model_description.json"


def open_checkpoint(path: Path) -> Checkpoint:
    return Checkpoint.open(path, ARCHITECTURES)


def refused(path: Path, *messages: str) -> InputError:
    with pytest.raises(InputError) as error:
        open_checkpoint(path)
    for message in messages:
        assert message in str(error.value)
    return error.value


def split(folder: Path, index_name: str = "quant_model_weight_w8a8s.safetensors.index.json") -> None:
    """Two parts and an index instead of one file."""
    content = tensors.read(folder / WEIGHTS)
    names = list(content)
    stem = index_name.removesuffix(".safetensors.index.json")
    parts = {f"{stem}-0000{i}-of-00002.safetensors": names[i - 1 :: 2] for i in (1, 2)}
    for file, members in parts.items():
        tensors.write(folder / file, {name: content[name] for name in members})
    weight_map = {name: file for file, members in parts.items() for name in members}
    (folder / index_name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    (folder / WEIGHTS).unlink()


def test_one_file(tiny: Path) -> None:
    checkpoint = open_checkpoint(tiny)
    assert checkpoint.config.layers == 2
    assert set(checkpoint.description.types) == set(checkpoint.tensors)
    assert {file.name for file in checkpoint.side_files} == {
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert checkpoint.warnings == []


@pytest.mark.parametrize("index", ["quant_model_weight_w8a8s.safetensors.index.json", "model.safetensors.index.json"])
def test_parts_under_the_names_of_any_saver(tiny: Path, tiny_copy: Path, index: str) -> None:
    split(tiny_copy, index)
    assert set(open_checkpoint(tiny_copy).tensors) == set(open_checkpoint(tiny).tensors)


def test_other_names_of_one_file(tiny: Path, tiny_copy: Path) -> None:
    (tiny_copy / WEIGHTS).rename(tiny_copy / "quant_model_weights.safetensors")
    assert set(open_checkpoint(tiny_copy).tensors) == set(open_checkpoint(tiny).tensors)


def test_legacy_description(tiny: Path, tiny_copy: Path) -> None:
    edit_json(tiny_copy / DESCRIPTION, lambda content: content.pop("version"))
    (tiny_copy / DESCRIPTION).rename(tiny_copy / "quant_model_description_w8a8s.json")
    assert open_checkpoint(tiny_copy).description.types == open_checkpoint(tiny).description.types


def test_read_only_files(tiny_copy: Path) -> None:
    for path in tiny_copy.iterdir():
        path.chmod(0o400)
    open_checkpoint(tiny_copy)


def test_unknown_meta_keys_are_no_tensors(tiny_copy: Path) -> None:
    edit_json(tiny_copy / DESCRIPTION, lambda content: content.update(optional={"a": 1}, group_size="0", new_key="x"))
    description = open_checkpoint(tiny_copy).description
    assert "new_key" not in description.types
    assert description.content["new_key"] == "x"


def test_wrong_paths(tmp_path: Path, tiny: Path) -> None:
    refused(tmp_path / "missing", "no such folder", str(tmp_path / "missing"))
    refused(tiny / "config.json", "not a folder")


def test_empty_folder_names_everything_that_is_missing(tmp_path: Path) -> None:
    refused(tmp_path, "config.json", DESCRIPTION, "no *.safetensors file")


def test_two_candidate_index_files(tiny_copy: Path) -> None:
    split(tiny_copy)
    shutil.copy(
        tiny_copy / "quant_model_weight_w8a8s.safetensors.index.json", tiny_copy / "model.safetensors.index.json"
    )
    refused(tiny_copy, "quant_model_weight_w8a8s.safetensors.index.json", "model.safetensors.index.json")


def test_two_candidate_weights(tiny_copy: Path) -> None:
    shutil.copy(tiny_copy / WEIGHTS, tiny_copy / "model.safetensors")
    refused(tiny_copy, "two checkpoints", "model", "quant_model_weight_w8a8s")


def test_truncated_weights(tiny_copy: Path) -> None:
    os.truncate(tiny_copy / WEIGHTS, (tiny_copy / WEIGHTS).stat().st_size - 1)
    refused(tiny_copy, WEIGHTS, "truncated")


def test_tensor_in_the_index_but_not_in_the_file(tiny_copy: Path) -> None:
    split(tiny_copy)
    index = tiny_copy / "quant_model_weight_w8a8s.safetensors.index.json"
    edit_json(
        index, lambda content: content["weight_map"].update(ghost="quant_model_weight_w8a8s-00001-of-00002.safetensors")
    )
    refused(tiny_copy, "ghost", "index says so")


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin", 3, None, "a\0.safetensors"]
)
def test_an_index_that_points_elsewhere(tiny_copy: Path, name: object) -> None:
    split(tiny_copy)
    index = tiny_copy / "quant_model_weight_w8a8s.safetensors.index.json"
    edit_json(index, lambda content: content["weight_map"].update({"model.norm.weight": name}))
    refused(tiny_copy, "not the name of a safetensors file", "model.norm.weight")


def test_missing_part(tiny_copy: Path) -> None:
    split(tiny_copy)
    (tiny_copy / "quant_model_weight_w8a8s-00002-of-00002.safetensors").unlink()
    refused(tiny_copy, "names a file that is not here", "00002-of-00002", "copy what is missing")


def test_same_tensor_in_two_files_without_an_index(tiny_copy: Path) -> None:
    split(tiny_copy)
    (tiny_copy / "quant_model_weight_w8a8s.safetensors.index.json").unlink()
    parts = sorted(tiny_copy.glob("*.safetensors"))
    content = tensors.read(parts[0])
    tensors.write(parts[1], content | tensors.read(parts[1]))
    refused(tiny_copy, "is in two files")


def test_described_but_absent_and_int8_but_not_described(tiny_copy: Path) -> None:
    edit_json(
        tiny_copy / DESCRIPTION,
        lambda content: (
            content.update({"ghost.weight": "W8A8S"}),
            content.pop("model.layers.0.self_attn.q_proj.weight"),
        ),
    )
    refused(tiny_copy, "ghost.weight is described", "q_proj.weight is int8 but not described")


def test_unknown_type(tiny_copy: Path) -> None:
    edit_json(tiny_copy / DESCRIPTION, lambda content: content.update({"model.norm.weight": "W1A1"}))
    refused(tiny_copy, "W1A1", "model.norm.weight")


def test_unknown_architecture_is_named_with_the_supported_ones(tiny_copy: Path) -> None:
    edit_json(tiny_copy / "config.json", lambda content: content.update(architectures=["GPT2LMHeadModel"]))
    refused(tiny_copy, "GPT2LMHeadModel", "Qwen3ForCausalLM")


@pytest.mark.parametrize("value", [0, -1, 1.5, "512", None, True, 2**40])
def test_sizes_that_make_no_sense(tiny_copy: Path, value: object) -> None:
    edit_json(tiny_copy / "config.json", lambda content: content.update(hidden_size=value))
    refused(tiny_copy, "hidden_size")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"architectures": ' * 5000, '{"a": 1, "a": 2}'])
def test_config_that_is_no_config(tiny_copy: Path, text: str) -> None:
    (tiny_copy / "config.json").write_text(text)
    refused(tiny_copy, "config.json")


def test_problems_of_several_files_come_in_one_report(tiny_copy: Path) -> None:
    (tiny_copy / "config.json").write_text("{}")
    (tiny_copy / DESCRIPTION).write_text("[]")
    os.truncate(tiny_copy / WEIGHTS, 100)
    assert len(refused(tiny_copy, "config.json", DESCRIPTION, WEIGHTS).problems) == 3


def test_missing_tokenizer_is_a_warning(tiny_copy: Path) -> None:
    (tiny_copy / "tokenizer.json").unlink()
    assert any("no tokenizer" in warning for warning in open_checkpoint(tiny_copy).warnings)
    (tiny_copy / "vocab.json").write_text("{}")
    assert any("merges.txt" in warning for warning in open_checkpoint(tiny_copy).warnings)


def test_pipes_and_folders_in_place_of_files(tiny_copy: Path) -> None:
    (tiny_copy / DESCRIPTION).unlink()
    os.mkfifo(tiny_copy / DESCRIPTION)
    (tiny_copy / "config.json").unlink()
    (tiny_copy / "config.json").mkdir()
    (tiny_copy / WEIGHTS).unlink()
    os.mkfifo(tiny_copy / WEIGHTS)
    assert len(refused(tiny_copy, "not a regular file").problems) == 3
