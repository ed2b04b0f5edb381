"""The load format w8a8sc in the real vllm and vllm-ascend, both pairs: equal to sharded_state, smaller, and strict."""

from __future__ import annotations

import functools
import itertools
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from tests.conftest import edit_json
from tests.interop.conftest import PAIRS, Directories, environment, run
from w8a8sc_tool.sharded_state.manifest import NAME as MANIFEST

pytestmark = pytest.mark.interop

# Directory -> TP size. "mixed" is the one for the pair's release.
LOADED = {"tp1": 1, "tp2": 2, "tp4": 4, "tied tp1": 1, "uncompressed tp2": 2, "vendor tp2": 2, "mixed": 2}
LOADED["tp2 in parts"] = 2  # several files per rank
SOURCES = {
    "tp2": "checkpoint",
    "resharded tp2": "checkpoint",
    "tied tp1": "tied checkpoint",
    "mixed": "mixed checkpoint",
    "tp2 in parts": "checkpoint",
}
SCALES = 4 * 4  # bytes per layer: attention's four float32 scale buffers, which are not parameters

QKV = "model.layers.0.self_attn.qkv_proj"
WEIGHT = f"{QKV}.weight"
NORM = "model.layers.0.input_layernorm.weight"


def rank_file(folder: Path, rank: int = 0) -> Path:
    return folder / f"model-rank-{rank}-part-0.safetensors"


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A directory without a manifest, the tensors of its rank 0 changed."""
    tensors = load_file(rank_file(folder))
    change(tensors)
    save_file(tensors, rank_file(folder))
    return folder


def flipped(folder: Path, rank: int = 0) -> Path:
    with rank_file(folder, rank).open("r+b") as file:
        file.seek(-5, 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    return folder


def shorter(folder: Path, rank: int = 0) -> Path:
    with rank_file(folder, rank).open("r+b") as file:
        file.truncate(rank_file(folder, rank).stat().st_size - 100)
    return folder


def appended(path: Path) -> Path:
    path.write_text(path.read_text() + "\n")
    return path.parent


def removed(path: Path) -> Path:
    path.unlink()
    return path.parent


Refusal = tuple[str, dict[str, Any], str]


def refusal(name: str, message: str, folder: object, tp: int = 2, **more: Any) -> Refusal:
    """A name, what is loaded, and the pattern of the message."""
    return name, {"do": "load", "dir": str(folder), "tp": tp, **more}, message


def wrong_sizes(directories: Directories) -> Iterator[Refusal]:
    for made, served in itertools.permutations((1, 2, 4), 2):
        message = (
            rf"made for {made} ranks, but served with {served}, "
            rf".*--tensor-parallel-size {made}, .*reshard --tp {served}"
        )
        yield refusal(f"tp{made} at {served}", message, directories[f"tp{made}"], served, rank=served - 1)
    yield refusal("vendor tp2 at 1", r"made for 2 ranks, but served with 1", directories["vendor tp2"], 1)


def damages(directories: Directories) -> Iterator[Refusal]:
    copy = directories.copy
    for tp in (1, 2, 4):
        last = {"rank": tp - 1}
        yield refusal(f"flipped bit, {tp}", r"damaged \(its hash", flipped(copy(f"tp{tp}"), tp - 1), tp, **last)
        cut = shorter(copy(f"tp{tp}"), tp - 1)
        yield refusal(f"truncated, {tp}", r"copy", cut, tp)  # on rank 0, whose own file is whole
        bare = shorter(copy(f"tp{tp}", manifest=False), tp - 1)
        yield refusal(f"truncated, no manifest, {tp}", r"copy", bare, tp, **last)
        missing = removed(rank_file(copy(f"tp{tp}"), tp - 1))
        yield refusal(f"rank file missing, {tp}", rf"no file of rank {tp - 1}|not a sharded_state", missing, tp)
        shrinking = copy(f"tp{tp}")
        file = str(rank_file(shrinking, tp - 1))
        yield refusal(f"shrinks, {tp}", r"changed during the work", shrinking, tp, shrink=file, **last)
    for name in ("quant_model_description.json", "config.json"):
        yield refusal(f"{name} edited", r"changed after the directory was sealed", appended(copy("tp2") / name))
    hidden = copy("tp2", manifest=False)
    edit_json(hidden / "config.json", lambda config: config.update(quantization_config={"quant_method": "ascend"}))
    yield refusal("hidden description", r"quantization_config hides .*remove that key", hidden)
    for tp in (1, 2, 4):
        other = copy(f"tp{tp}")
        shutil.copy(directories[f"tied tp{tp}"] / MANIFEST, other)
        message = (
            rf"^not the file that the manifest lists: only the file has model.embed_tokens.weight, \d+ tensors in all, "
            rf"{rank_file(other)}: copy it and {MANIFEST} again, from one directory; w8a8sc verify tells more$"
        )
        yield refusal(f"manifest of another model, {tp}", message, other, tp, rank=tp - 1)
    yield refusal("checkpoint", r"a checkpoint, not a sharded_state directory", directories["checkpoint"], 1)


def edits(directories: Directories) -> Iterator[Refusal]:
    for name, message, change in (
        ("index missing", rf"1 tensors are missing \({QKV}.index\)", lambda t: t.pop(f"{QKV}.index")),
        ("tensor added", r"do not belong to this model \(extra\)", lambda t: t.update(extra=t[NORM].copy())),
        ("dtype", rf"{NORM} is F32, F16 is wanted", lambda t: t.update({NORM: t[NORM].astype("f4")})),
        ("shape", rf"{NORM} has shape \[256\]", lambda t: t.update({NORM: t[NORM][:256].copy()})),
        ("weight cut", rf"{QKV}.index points", lambda t: t.update({WEIGHT: t[WEIGHT][:-256].copy()})),
        ("weight empty", rf"{WEIGHT} has shape", lambda t: t.update({WEIGHT: t[WEIGHT][:0].copy()})),
        ("info", rf"{QKV}.info is \[8, 8, 0,", lambda t: t.update({f"{QKV}.info": t[f"{QKV}.info"] * [1, 1, 0, 1, 1]})),
    ):
        yield refusal(name, message, edited(directories.copy("tp2", manifest=False), change))


def draft(folder: Path, **more: Any) -> dict[str, Any]:
    """The arguments for speculative decoding with a draft model."""
    config = {"model": str(folder), "method": "draft_model", "num_speculative_tokens": 2}
    return {"speculative_config": {**config, **more}}


def wrong_options(directories: Directories) -> Iterator[Refusal]:
    tp2 = directories["tp2"]
    for arguments, message in (
        ({"dtype": "bfloat16"}, r"bfloat16: .*--dtype float16"),
        ({"pipeline_parallel_size": 2}, r"pipeline stages: leave out --pipeline-parallel-size; .* reshard"),
        ({"cpu_offload_gb": 1}, r"cannot be offloaded: leave out the options for offloading"),
        ({"offload_group_size": 2}, r"cannot be offloaded: leave out the options for offloading"),
        (
            draft(directories["checkpoint"]),
            r"the draft model .* is no sharded_state .*: give .* no --speculative-config",
        ),
    ):
        yield refusal(str(arguments), message, tp2, arguments=arguments)
    yield refusal("no quantization", r"no --quantization: .*--quantization ascend", tp2, unquantized=True)
    yield refusal("option", r"'alocate' .*: allocate may be meant", tp2, options={"alocate": "full"})
    yield refusal("value", r"verify cannot be 'no': give hashes or sizes", tp2, options={"verify": "no"})


@functools.cache
def refusals(directories: Directories) -> list[Refusal]:
    return [made for makes in (wrong_sizes, damages, edits, wrong_options) for made in makes(directories)]


def cases(directories: Directories, pair: str) -> dict[str, dict[str, Any]]:
    """Everything that is asked of one environment, in one process: starting it takes most of the time."""
    folder = {name: str(directories[f"mixed {pair}" if name == "mixed" else name]) for name in {*LOADED, *SOURCES}}
    asked = {f"refused: {name}": case for name, case, _ in refusals(directories)}
    # After the refusals: nothing may have stayed patched.
    asked |= {f"compare: {name}": {"do": "compare", "dir": folder[name], "tp": tp} for name, tp in LOADED.items()}
    for name, source in SOURCES.items():
        tp = LOADED.get(name, 2)
        asked[f"values: {name}"] = {"do": "values", "dir": folder[name], "model": str(directories[source]), "tp": tp}
        asked[f"files: {name}"] = {"do": "files", "dir": folder[name], "tp": tp}
    whole = {"do": "load", "dir": folder["tp1"], "tp": 1}
    asked["full"] = {**whole, "options": {"allocate": "full", "verify": "sizes"}}
    asked["dropped"] = {**whole, "options": {"embedding_copies": "drop"}}
    asked["kept"] = whole
    tied = {"do": "load", "dir": folder["tied tp1"], "tp": 1}
    asked["tied dropped"] = {**tied, "options": {"embedding_copies": "drop"}}
    asked["tied kept"] = tied
    asked["flipped, sizes"] = {**whole, "dir": str(flipped(directories.copy("tp1"))), "options": {"verify": "sizes"}}
    options = {
        "quantization left out": {"quantization": None},
        "draft directory": draft(directories["vendor tp2"]),
        "ngram": {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}},
        "draft's own format": draft(directories["checkpoint"], draft_load_config={"load_format": "auto"}),
        "lora": {"enable_lora": True},
        "sharded lora": {"enable_lora": True, "fully_sharded_loras": True},
    }
    asked |= {
        f"option: {name}": {"do": "load", "dir": folder["tp2"], "tp": 2, "arguments": arguments}
        for name, arguments in options.items()
    }
    for load_format in ("sharded_state", "w8a8sc"):
        adapter = str(directories.folder / f"adapter-{pair}-{load_format}")
        asked[f"lora: {load_format}"] = {"do": "lora", "dir": folder["tp1"], "format": load_format, "adapter": adapter}
    asked["operator"] = {"do": "operator", "dir": folder["tp1"], "tp": 1}
    words = [
        ["--load-format", "w8a8sc"],
        ["--load_format", "W8A8SC", "--model-loader-extra-config", '{"verify": "sizes"}'],
        ["--load-format", "sharded_state"],
    ]
    asked["arguments"] = {"do": "arguments", "dir": folder["tp1"], "words": words}
    asked["spawned"] = {"do": "spawn", "plugins": "ascend,ascend_model,w8a8sc"}
    asked["spawned without"] = {"do": "spawn", "plugins": "ascend,ascend_model"}
    return asked


@pytest.fixture(scope="session", params=PAIRS)
def pair(request: pytest.FixtureRequest) -> str:
    environment(request.param)
    return str(request.param)


_ANSWERS: dict[str, dict[str, Any]] = {}


@pytest.fixture
def answers(pair: str, directories: Directories, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if pair not in _ANSWERS:
        asked = cases(directories, pair)
        log = tmp_path_factory.mktemp("log") / f"{pair}.log"
        _ANSWERS[pair] = dict(zip(asked, run(environment(pair), "loader_check.py", list(asked.values()), log)))
    return _ANSWERS[pair]


@pytest.mark.parametrize("name", LOADED)
def test_every_tensor_equals_what_sharded_state_leaves(answers: dict[str, Any], name: str) -> None:
    answer = answers[f"compare: {name}"]
    assert "error" not in answer, answer
    assert len(answer["ranks"]) == LOADED[name]
    for rank in answer["ranks"]:
        assert rank["differences"] == []
        assert rank["loaders"] == ["ShardedStateLoader", "W8A8SCModelLoader"]


@pytest.mark.parametrize("name", LOADED)
def test_memory_is_what_the_files_hold_and_sharded_state_is_as_before(answers: dict[str, Any], name: str) -> None:
    for rank in answers[f"compare: {name}"]["ranks"]:
        stock, ours = rank["stock"], rank["ours"]
        assert rank["stock_afterwards"] == stock
        assert ours["embedding_copies"] == stock["embedding_copies"]
        saved = stock["compressed"] - ours["compressed"]
        assert stock["parameters"] - ours["parameters"] == saved
        assert (saved == 0) if name == "uncompressed tp2" else ours["compressed"] < 0.65 * stock["compressed"]
        if name in ("tp1", "tp2", "tp4"):  # post-processing changes no sizes there
            assert ours["parameters"] + 2 * SCALES == rank["files"]


def test_all_types_of_layers_were_there(answers: dict[str, Any]) -> None:
    assert set(answers["compare: mixed"]["ranks"][0]["schemes"]) == {
        "AscendUnquantizedEmbeddingMethod310",
        "AscendUnquantizedLinearMethod",
        "AscendW8A8DynamicLinearMethod310",
        "AscendW8A8LinearMethod310",
        "AscendW8A8SCLinearMethod310",
        "AscendW8A8SLinearMethod310",
    }


@pytest.mark.slow
def test_a_model_of_full_width_loads_about_as_fast_as_by_sharded_state(
    pair: str, directories: Directories, tmp_path: Path
) -> None:
    """Two layers of Qwen3-8B; docs/interop.md has what is printed."""
    case = {"do": "times", "dir": str(directories["wide tp1"]), "tp": 1, "repeat": 3}
    answer = run(environment(pair), "loader_check.py", [case], tmp_path / "log")[0]
    print(pair, answer)
    stock, ours = answer["sharded_state"], answer["hashes"]
    assert stock["parameters"] - ours["parameters"] == stock["compressed"] - ours["compressed"] > 80_000_000
    assert min(ours["processor"]) < 2 * min(stock["processor"]) + 1


@pytest.mark.parametrize("name", SOURCES)
def test_values_are_what_vllm_makes_of_the_checkpoint(answers: dict[str, Any], name: str) -> None:
    for kind in ("values", "files"):
        answer = answers[f"{kind}: {name}"]
        assert "error" not in answer, answer
        assert answer["errors"] == []
    assert all(rank["compared"] > 0 for rank in answers[f"values: {name}"]["ranks"])


def test_every_refusal_is_one_line_with_the_remedy(answers: dict[str, Any], directories: Directories) -> None:
    wrong = {}
    for name, _, message in refusals(directories):
        answer = answers[f"refused: {name}"]
        text = answer.get("error", "")
        if not re.search(message, text) or "\n" in text or ": " not in text:
            wrong[name] = answer
    assert not wrong


def test_options(answers: dict[str, Any]) -> None:
    stock = answers["compare: tp1"]["ranks"][0]["stock"]
    assert answers["full"]["compressed"] == stock["compressed"]
    assert answers["flipped, sizes"]["compressed"] == answers["kept"]["compressed"]
    rows = 2048 * 512 * 2
    assert answers["kept"]["embedding_copies"] == 2 * rows and answers["dropped"]["embedding_copies"] == 0
    assert answers["dropped"]["parameters"] == answers["kept"]["parameters"]
    assert answers["tied dropped"]["embedding_copies"] == answers["tied kept"]["embedding_copies"] > 0


def test_options_that_change_nothing_load(answers: dict[str, Any]) -> None:
    """vLLM Ascend finds `--quantization ascend` in the directory."""
    for name in ("quantization left out", "draft directory", "ngram"):
        assert answers[f"option: {name}"].get("compressed") == answers["compare: tp2"]["ranks"][0]["ours"]["compressed"]


def test_a_draft_may_have_a_format_of_its_own_where_vllm_ascend_heeds_it(answers: dict[str, Any], pair: str) -> None:
    answer = answers["option: draft's own format"]
    if pair == "0.18.0":
        assert re.search(r"the draft model .*: give a directory, or no --speculative-config$", answer["error"])
    else:
        assert "error" not in answer


def test_lora_runs_as_by_sharded_state_or_is_refused(answers: dict[str, Any], pair: str) -> None:
    """Every compressed layer, wrapped and with an adapter: vLLM Ascend 0.18.0 cannot wrap the 310P's embeddings."""
    stock, ours = answers["lora: sharded_state"], answers["lora: w8a8sc"]
    if pair == "0.18.0":
        assert "model.embed_tokens must be a BaseLayerWithLoRA" in stock["error"]
        for name in ("lora: w8a8sc", "option: lora", "option: sharded lora"):
            assert answers[name]["error"] == (
                "vLLM Ascend 0.18.0 has no LoRA for the 310P's embeddings: "
                "leave out --enable-lora, or use vLLM Ascend 0.23.0"
            )
        return
    assert "error" not in answers["option: lora"] and "error" not in answers["option: sharded lora"]
    assert len(ours["layers"]) == 5
    for name, layer in ours["layers"].items():
        same = stock["layers"][name]
        assert layer["wrapper"] == same["wrapper"] and "WithLoRA" in layer["wrapper"]
        assert layer["output"] == same["output"] and all(any(row) for row in layer["output"])
        assert layer["weight"] and layer["bytes"] < 0.65 * same["bytes"]


def test_the_operator_is_given_the_compressed_bytes_alone(answers: dict[str, Any]) -> None:
    answer = answers["operator"]
    assert len(answer["calls"]) == 5
    for name, (x, weight, index, bias, scale) in answer["calls"].items():
        k, n = answer["sizes"][name]
        assert x == f"int8[3, {k}]" and bias == f"int32[1, {n}]" and scale == f"uint64[1, {n}]"
        assert index == f"int8[{8 * -(-k // 256) * -(-n // 128)}]"
        assert 0 < int(weight.removeprefix("int8[").removesuffix("]")) < 0.65 * n * k


def test_the_command_line_takes_format_and_options(answers: dict[str, Any]) -> None:
    first, second, stock = answers["arguments"]["loaders"]
    assert first[0] == second[0] == "w8a8sc_tool.vllm.loader.W8A8SCModelLoader"
    assert "verify='hashes'" in first[1] and "verify='sizes'" in second[1]
    assert stock[0].endswith("ShardedStateLoader")


def test_spawned_processes_know_it_unless_vllm_plugins_leaves_it_out(answers: dict[str, Any]) -> None:
    assert answers["spawned"]["known"][0] == "w8a8sc"
    assert "w8a8sc" not in answers["spawned without"]["known"]


def test_two_versions_in_one_python_are_refused(pair: str, directories: Directories, tmp_path: Path) -> None:
    other = tmp_path / "other" / "w8a8sc-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: w8a8sc\nVersion: 0.0.1\n")
    (other / "entry_points.txt").write_text("[vllm.general_plugins]\nw8a8sc = w8a8sc_tool.vllm:register\n")
    case = {"do": "load", "dir": str(directories["tp1"]), "tp": 1}
    answer = run(environment(pair), "loader_check.py", [case], tmp_path / "log", PYTHONPATH=str(other.parent))[0]
    assert "several versions of w8a8sc are installed" in answer["error"] and "0.0.1" in answer["error"]


def test_a_plugin_that_cannot_be_imported_leaves_vllm_as_it_is(
    pair: str, directories: Directories, tmp_path: Path
) -> None:
    """A broken installation: another package of the name, without the plugin, comes first."""
    (tmp_path / "w8a8sc_tool").mkdir()
    (tmp_path / "w8a8sc_tool" / "__init__.py").write_text("")
    asked = [
        {"do": "load", "dir": str(directories["tp1"]), "tp": 1},
        {"do": "files", "dir": str(directories["tp1"]), "tp": 1},
    ]
    ours, stock = run(environment(pair), "loader_check.py", asked, tmp_path / "log", PYTHONPATH=str(tmp_path))
    assert "Load format `w8a8sc` is not supported" in ours["error"]
    assert stock["errors"] == []
    shutil.rmtree(tmp_path / "w8a8sc_tool")
