"""config.json in the layouts of transformers 4 and 5: what a key means, what its absence means, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from w8a8sc_tool.checkpoint import ModelConfig
from w8a8sc_tool.checkpoint.config import Conventions
from w8a8sc_tool.checkpoint.rope import Rope
from w8a8sc_tool.errors import InputError
from w8a8sc_tool.layouts import ARCHITECTURES

from ..conftest import edit_json

OLD = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "attention_bias": False,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 5120,
    "intermediate_size": 17408,
    "max_position_embeddings": 40960,
    "max_window_layers": 40,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 151936,
}
NEW = {key: value for key, value in OLD.items() if key not in ("rope_scaling", "rope_theta", "torch_dtype")} | {
    "dtype": "bfloat16",
    "layer_types": ["full_attention"] * 40,
    "pad_token_id": None,
    "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"},
}
DECODERS = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def config(content: dict[str, Any], **changes: Any) -> ModelConfig:
    return ModelConfig.of(content | changes, Path("config.json"), ARCHITECTURES)


def refusal(content: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(InputError) as error:
        config(content, **changes)
    (problem,) = error.value.problems
    return str(problem)


def meaning(model_config: ModelConfig) -> dict[str, Any]:
    return {name: value for name, value in vars(model_config).items() if name != "content"}


def test_both_layouts_mean_the_same() -> None:
    assert meaning(config(OLD)) == meaning(config(NEW))
    parsed = config(NEW)
    assert (parsed.rope, parsed.positions, parsed.norm_eps, parsed.not_run) == (Rope(1000000.0), 40960, 1e-6, ())
    assert parsed.notes == []


def test_absent_keys_mean_what_the_class_assumes() -> None:
    parsed = config({"architectures": ["Qwen3ForCausalLM"]})
    assert (parsed.hidden_size, parsed.intermediate_size, parsed.layers, parsed.vocabulary) == (4096, 22016, 32, 151936)
    assert (parsed.heads, parsed.kv_heads, parsed.head_dim) == (32, 32, 128)
    assert (parsed.rope.theta, parsed.positions, parsed.norm_eps) == (10000.0, 32768, 1e-6)
    assert not (parsed.tied or parsed.attention_bias or parsed.not_run)


@pytest.mark.parametrize(("architecture", "name"), [(name, name[: -len("ForCausalLM")]) for name in DECODERS])
def test_absent_keys_against_the_class_itself(architecture: str, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    theirs, parsed = getattr(transformers, f"{name}Config")(), config({"architectures": [architecture]})
    assert (parsed.hidden_size, parsed.layers, parsed.heads) == (
        *(theirs.hidden_size, theirs.num_hidden_layers, theirs.num_attention_heads),
    )
    head_dim = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    assert (parsed.head_dim, parsed.kv_heads) == (head_dim, theirs.num_key_value_heads)
    assert (parsed.positions, parsed.norm_eps) == (theirs.max_position_embeddings, theirs.rms_norm_eps)
    assert (parsed.vocabulary, parsed.intermediate_size) == (theirs.vocab_size, theirs.intermediate_size)


def test_nulls() -> None:
    keys = (
        *("num_key_value_heads", "head_dim", "tie_word_embeddings", "attention_bias", "rope_parameters", "layer_types"),
        *("rms_norm_eps", "sliding_window", "use_sliding_window", "rope_scaling", "rope_theta", "eos_token_id"),
    )
    parsed = config({key: OLD.get(key) for key in OLD} | dict.fromkeys(keys))
    assert (parsed.kv_heads, parsed.head_dim, parsed.rope.theta) == (40, 5120 // 40, 10000.0)
    assert not (parsed.tied or parsed.attention_bias)
    assert refusal(OLD, hidden_size=None) == "hidden_size is null, a size above 0 is wanted, config.json"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rope_parameters": YARN | {"rope_theta": 1e6}}, "rope_type yarn"),
        ({"rope_parameters": None, "rope_scaling": YARN}, "rope_type yarn"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2}}, "rope_type linear"),
        ({"rope_parameters": {"rope_type": "unheard-of"}}, "rope_type unheard-of"),
        ({"rope_parameters": {"rope_type": "default", "mrope_section": [1, 2]}}, "rope parameter mrope_section"),
        ({"rope_parameters": {"rope_theta": 1e6, "partial_rotary_factor": 0.5}}, "partial_rotary_factor 0.5"),
        ({"partial_rotary_factor": 0.25}, "partial_rotary_factor 0.25"),
        ({"use_sliding_window": True, "sliding_window": 4096}, "a sliding window of 4096"),
        ({"layer_types": ["full_attention"] * 39 + ["sliding_attention"], "sliding_window": 512}, "window of 512"),
        ({"layer_types": ["linear_attention"] * 40}, "layer type linear_attention"),
        ({"dual_chunk_attention_config": {"chunk_size": 1}}, "dual_chunk_attention_config"),
        ({"is_causal": False}, "is_causal False"),
    ],
)
def test_what_changes_the_result_is_named(changes: dict[str, Any], reason: str) -> None:
    """The weights are the same with it: a directory can be made, and the note says who runs it."""
    parsed = config(NEW, **changes)
    (reason_given,) = parsed.not_run
    assert reason in reason_given
    assert reason_given in parsed.notes[0] and "w8a8sc generate does not" in parsed.notes[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "factor": None}},
        {"rope_parameters": {"type": "default", "rope_theta": 1e6, "partial_rotary_factor": 1.0}},
        {"rope_theta": 1000000.0, "rope_scaling": {"rope_type": "default"}},
        {"use_sliding_window": True, "sliding_window": 131072},
        {"use_sliding_window": True, "sliding_window": 0},
        {"use_sliding_window": False, "sliding_window": 4096},
        {"mlp_bias": True, "use_cache": False},  # of Llama alone
        {"is_causal": True, "quantize": "w8a8s", "pretraining_tp": 1},
    ],
)
def test_what_changes_nothing_is_taken(changes: dict[str, Any]) -> None:
    assert meaning(config(NEW, **changes)) == meaning(config(NEW))


def test_heads_of_qwen2_divide_the_hidden_size() -> None:
    """vLLM's class does not read head_dim: with another one, a directory would not be what it wants."""
    qwen2 = OLD | {"architectures": ["Qwen2ForCausalLM"]}
    assert config(qwen2).head_dim == 128
    assert "head_dim is 64, 40 heads of a hidden size of 5120 have 128" in refusal(qwen2, head_dim=64)


@pytest.mark.parametrize("key", ["attention_bias", "bias", "qkv_bias", "mlp_bias"])
def test_llama_has_no_biases(key: str) -> None:
    """Where its config.json asks for one, vLLM would want tensors that the layout does not have."""
    llama = OLD | {"architectures": ["LlamaForCausalLM"]}
    assert config(llama, **{key: False}).architecture == "LlamaForCausalLM"
    assert f"{key} is true" in refusal(llama, **{key: True})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is gelu"),
        ({"rope_theta": 10000}, "rope_theta is given twice, as 1e+06 and 10000"),
        ({"rope_scaling": YARN}, "rope_parameters and rope_scaling say different things"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "differ by layer type"),
        ({"rope_parameters": {"rope_type": "yarn", "type": "linear"}}, "rope_type and its old name"),
        ({"rope_parameters": {"rope_type": 3}}, "rope_type is 3, a name is wanted"),
        ({"rope_parameters": {"rope_theta": "1e6"}}, "rope_theta is 1e6, a number above 0 is wanted"),
        ({"rope_parameters": {"rope_theta": float("inf")}}, "rope_theta is inf"),
        ({"rope_parameters": [1]}, "rope_parameters is [1], an object is wanted"),
        ({"rope_parameters": YARN | {"factor": -1}}, "factor of the yarn rotation is -1"),
        ({"rope_parameters": LLAMA3 | {"high_freq_factor": 1}}, "low_freq_factor, 1, is not below high_freq_factor, 1"),
        (
            {"rope_parameters": {"rope_type": "llama3", "factor": 8}},
            "has no low_freq_factor and no high_freq_factor and",
        ),
        ({"rope_parameters": LLAMA3 | {"factor": "8"}}, "factor of the llama3 rotation is 8"),
        ({"rms_norm_eps": -1}, "rms_norm_eps is -1, a number above 0 is wanted"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is no, true or false is wanted"),
        ({"layer_types": ["full_attention"]}, "layer_types does not name 40 kinds"),
        ({"num_key_value_heads": 7}, "40, is no multiple of num_key_value_heads, 7"),
        ({"head_dim": 7}, "head_dim is 7"),
    ],
)
def test_what_makes_no_sense_is_one_problem(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(NEW, **changes)


def test_a_missing_key_whose_default_does_not_fit() -> None:
    without = {key: value for key, value in OLD.items() if key != "num_key_value_heads"}
    assert "what the key's absence means: add it" in refusal(without)


@pytest.mark.parametrize(
    ("rope", "positions"),
    [
        (YARN, 131072),
        ({"rope_type": "yarn", "factor": 2}, 81920),
        ({"rope_type": "linear", "factor": 2.5}, 102400),
        (LLAMA3, 40960),
    ],
)
def test_the_longest_sequence_is_that_of_vllm(rope: dict[str, Any], positions: int) -> None:
    """yarn counts from the original length; llama3's max_position_embeddings is scaled already."""
    assert config(NEW, rope_parameters=rope).positions == positions
    assert config(NEW, rope_parameters=rope, max_seq_len=1024, rope_theta=5e5).rope.theta == 5e5


def test_a_class_without_defaults_needs_every_size() -> None:
    """Heads and their size follow from others, as in Llama's and Qwen2's classes."""
    content = {key: value for key, value in OLD.items() if key not in ("head_dim", "num_key_value_heads")}
    parsed = ModelConfig.of(content, Path("config.json"), {"Qwen3ForCausalLM": Conventions()})
    assert (parsed.kv_heads, parsed.head_dim) == (40, 128)
    del content["vocab_size"]
    with pytest.raises(InputError, match="vocab_size is missing, a size above 0 is wanted"):
        ModelConfig.of(content, Path("config.json"), {"Qwen3ForCausalLM": Conventions()})


def test_a_directory_says_its_rotation_in_both_layouts() -> None:
    """transformers 4.57, which vLLM Ascend 0.18 brings, would take the class's rope_theta over rope_parameters'."""
    made = config(NEW, quantization_config={"bits": 8}).for_serving()
    assert made == NEW | {"rope_theta": 1000000.0}
    scaled = config(NEW, rope_parameters=YARN | {"rope_theta": 1e6}).for_serving()
    assert (scaled["rope_theta"], scaled["rope_scaling"]) == (1e6, YARN)
    for content in (made, scaled):
        again = config(content)
        assert again.for_serving() == content
        assert again.rope.theta == 1e6
    assert config(OLD).for_serving() == OLD


def test_what_transformers_reads_is_what_we_read(tmp_path: Path) -> None:
    """Both layouts, and a directory's, through the installed release."""
    transformers = pytest.importorskip("transformers")
    yarn = config(NEW, rope_parameters=YARN | {"rope_theta": 5e6})
    for number, content in enumerate((OLD, config(NEW).for_serving(), yarn.for_serving())):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(content))
        theirs, ours = transformers.AutoConfig.from_pretrained(folder), config(content)
        parameters = getattr(theirs, "rope_parameters", None) or {}
        assert parameters.get("rope_theta", getattr(theirs, "rope_theta", None)) == ours.rope.theta
        scaling = parameters or getattr(theirs, "rope_scaling", None) or {}
        assert scaling.get("rope_type", "default") == ours.rope.type
        assert (theirs.head_dim, theirs.num_key_value_heads) == (ours.head_dim, ours.kv_heads)


def test_a_file_is_read_with_its_path(tiny_copy: Path) -> None:
    path = tiny_copy / "config.json"
    edit_json(path, lambda content: content.update(hidden_act="relu"))
    with pytest.raises(InputError, match=r"hidden_act is relu, .*config\.json: vLLM builds"):
        ModelConfig.parse(path, ARCHITECTURES)
