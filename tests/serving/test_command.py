"""The vllm command: equal to the guide's, with options that exist, and no combination that cannot work."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from w8a8sc_tool.checkpoint import ModelConfig
from w8a8sc_tool.cli.main import run
from w8a8sc_tool.errors import InputError, MissingError, UsageError
from w8a8sc_tool.jobs import serving as job
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.layouts import ARCHITECTURES, REGISTRY
from w8a8sc_tool.planning import preset as presets
from w8a8sc_tool.serving import Service, build, estimate
from w8a8sc_tool.serving.options import length_of
from w8a8sc_tool.synthesis.synthesize import MODELS, synthesize

from . import vllm

# The guide's commands (vLLM Ascend v0.18, Atlas 300I Duo), as options and values.
GUIDE = {
    "--host": ["127.0.0.1"],
    "--port": ["8080"],
    "--gpu-memory-utilization": ["0.90"],
    "--served-model-name": ["qwen"],
    "--dtype": ["float16"],
    "--additional-config": [{"ascend_compilation_config": {"fuse_norm_quant": False}}],
    "--quantization": ["ascend"],
    "--no-enable-prefix-caching": [],
    "--load-format": ["sharded_state"],
}
MODELS_OF_GUIDE = [
    ("qwen3-8b", 1, "32", "16384", [1, 2, 4, 8, 16, 32]),
    ("qwen3-14b", 1, "16", "16384", [1, 2, 4, 8, 16]),
    ("qwen3-32b", 4, "32", "20480", [16, 32]),
]


def config(model: str) -> ModelConfig:
    sizes = MODELS[model]
    table = REGISTRY[sizes.architecture]
    content: dict[str, Any] = {
        "hidden_size": sizes.hidden_size,
        "intermediate_size": sizes.intermediate_size,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.head_dim,
        "vocab_size": sizes.vocabulary,
        "max_position_embeddings": 1 << 20,
        **(sizes.text or {}),
    }
    content = {"architectures": [table.name], **({table.text: content} if table.text else content)}
    return ModelConfig.of(content, Path("config.json"), ARCHITECTURES)


def service(model: str, tp: int, kind: Any = "directory", version: str = "0.18.0") -> Service:
    model_config = config(model)
    return Service(Path(f"/models/{model}"), kind, tp, model, model_config, presets.choose(model_config), version)


def parsed(words: list[str], version: str = "0.18") -> dict[str, list[Any]]:
    """As the stand-in for vllm takes them, JSON decoded."""
    parsed_words: dict[str, list[Any]] = dict(vllm.parse(words, version))
    for name in vllm.JSON & set(parsed_words):
        parsed_words[name] = [json.loads(parsed_words[name][0])]
    return parsed_words


def captures(sizes: list[int]) -> list[Any]:
    return [{"cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": sizes}]


@pytest.mark.parametrize(("model", "tp", "seqs", "length", "sizes"), MODELS_OF_GUIDE)
def test_the_commands_of_the_guide(model: str, tp: int, seqs: str, length: str, sizes: list[int]) -> None:
    command = build(service(model, tp))
    assert parsed(command.words) == GUIDE | {
        "": [f"/models/{model}"],
        "--tensor-parallel-size": [str(tp)],
        "--max-num-seqs": [seqs],
        "--max-model-len": [length],
        "--compilation-config": captures(sizes),
    }
    assert command.environment == ({"ASCEND_RT_VISIBLE_DEVICES": "0,1,2,3"} if tp == 4 else {})


def test_a_plain_checkpoint_as_the_guide_serves_it() -> None:
    wanted = GUIDE | {
        "": ["/models/qwen3-8b"],
        "--tensor-parallel-size": ["1"],
        "--max-model-len": ["16384"],
        "--compilation-config": captures([1, 2, 4, 8, 16, 32]),
    }
    for name in ("--load-format", "--no-enable-prefix-caching"):
        del wanted[name]
    assert parsed(build(service("qwen3-8b", 1, "checkpoint")).words) == wanted


@pytest.mark.parametrize("model", ["qwen3-8b", "qwen3-14b", "qwen3-32b", "tiny", "qwen3.6-27b"])
@pytest.mark.parametrize("tp", [1, 2, 4, 8])
@pytest.mark.parametrize("version", ["0.18", "0.23"])
def test_every_model_and_size_has_a_command(model: str, tp: int, version: str) -> None:
    options = parsed(build(service(model, tp, version=f"{version}.0")).words, version)
    sizes = options["--compilation-config"][0]["cudagraph_capture_sizes"]
    assert len(sizes) <= 2 or tp == 1
    assert max(sizes) <= int(options["--max-num-seqs"][0])


@pytest.mark.parametrize(
    ("version", "keys"),
    [
        ("0.18.0rc1", {"fuse_norm_quant"}),
        ("0.23.0", {"enable_npugraph_ex"}),
        ("0.24.0.dev3", {"fuse_norm_quant", "enable_npugraph_ex"}),
        ("unknown", {"fuse_norm_quant", "enable_npugraph_ex"}),
    ],
)
def test_additional_config_by_release(version: str, keys: set[str]) -> None:
    options = parsed(build(service("qwen3-8b", 1, version=version)).words)["--additional-config"][0]
    assert options == {"ascend_compilation_config": dict.fromkeys(keys, False)}


def test_what_the_user_gives_wins() -> None:
    more = ["--max_model_len=8192", "--port", "80", "--enable-prefix-caching", "-tp", "1", "--no-async-scheduling"]
    words = build(service("qwen3-8b", 1), more).words
    options = parsed(words)
    assert options["--max-model-len"] == ["8192"] and options["--port"] == ["80"]
    assert "--enable-prefix-caching" in options and "--no-enable-prefix-caching" not in options
    assert sum(word in ("-tp", "--tensor-parallel-size") for word in words) == 1
    eager = parsed(build(service("qwen3-8b", 1), ["--enforce-eager"]).words)
    assert "--compilation-config" not in eager


@pytest.mark.parametrize(
    ("tp", "more", "reason"),
    [
        (2, ["-tp", "4"], "made for 2 ranks"),
        (2, ["--tensor_parallel_size=1"], "made for 2 ranks"),
        (1, ["--dtype", "bfloat16"], "float16 alone"),
        (1, ["--dtype", "auto"], "float16 alone"),
        (1, ["--max-model-len", "auto"], "has to be a number"),
        (1, ["--max-model-len", "-1"], "has to be a number"),
        (1, ["--load-format", "auto"], "one checkpoint"),
        (1, ["--quantization", "fp8"], "no other method"),
        (1, ["--pipeline-parallel-size", "2"], "stages"),
        (4, ["--cudagraph-capture-sizes", "1", "2", "4"], "Qwen3-32B can capture 2"),
        (4, ["--compilation-config", '{"cudagraph_capture_sizes": [1, 2, 4]}'], "Qwen3-32B can capture 2"),
    ],
)
def test_contradictions_are_refused_with_the_reason(tp: int, more: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=f"{reason}.*force=True"):
        build(service("qwen3-32b", tp), more)
    command = build(service("qwen3-32b", tp), more, force=True)
    assert any(reason in warning for warning in command.warnings)
    vllm.parse(command.words)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--mm-encoder-tp-mode", "data"], "the tower is cut like the decoder"),
        (["--language-model-only"], "vLLM would want a directory without a tower"),
        (["--limit-mm-per-prompt", '{"image": 0, "video": 0}'], "vLLM would want a directory without a tower"),
    ],
)
def test_a_tower_is_served_as_it_was_cut(more: list[str], reason: str) -> None:
    """Directories alone: of a checkpoint, vLLM takes what it wants."""
    with pytest.raises(UsageError, match=reason):
        build(service("qwen3-vl-8b", 2), more)
    assert build(service("qwen3-vl-8b", 2, kind="checkpoint"), more)
    assert build(service("qwen3-vl-8b", 2), ["--limit-mm-per-prompt", '{"image": 2, "video": 0}'])
    assert build(service("qwen3-32b", 2), more)


def test_states_of_linear_attention_are_float16() -> None:
    options = parsed(build(service("qwen3.6-27b", 4, version="0.23.0")).words, "0.23")
    assert options["--mamba-ssm-cache-dtype"] == ["float16"]
    assert (options["--max-num-seqs"], options["--compilation-config"]) == (["128"], captures([1, 8]))
    with pytest.raises(UsageError, match="float16 alone"):
        build(service("qwen3.6-27b", 4), ["--mamba-ssm-cache-dtype", "float32"])
    assert "--mamba-ssm-cache-dtype" not in parsed(build(service("qwen3-8b", 1)).words)


def test_no_draft_model_is_looked_for_in_a_directory() -> None:
    """Its mtp.* tensors are left out; a checkpoint has them, and a draft may have a folder and a format of its own."""
    more = ["--speculative-config", '{"method": "qwen3_5_mtp", "num_speculative_tokens": 1}']
    with pytest.raises(UsageError, match=r"directories have no mtp\.\* tensors"):
        build(service("qwen3.6-27b", 2), more)
    assert build(service("qwen3.6-27b", 2, kind="checkpoint"), more)
    own = '{"method": "mtp", "model": "/m", "draft_load_config": {"load_format": "auto"}, "num_speculative_tokens": 1}'
    assert build(service("qwen3.6-27b", 2), ["--speculative-config", own])
    assert build(service("qwen3-32b", 2), more)


def test_another_size_names_the_way_to_it() -> None:
    with pytest.raises(UsageError, match=r"w8a8sc reshard /models/qwen3-32b --tp 4"):
        build(service("qwen3-32b", 2), ["-tp", "4"])


def roomy(model: str, tp: int, gib: float, **more: Any) -> Service:
    """A service on chips of so much memory, with 10 GiB of weights."""
    plain = service(model, tp)
    memory = estimate(plain.config, tp, 10 << 30, chip=int(gib * 2**30), **more)
    return dataclasses.replace(plain, memory=memory)


def test_no_length_that_fit_refuses() -> None:
    """The preset's length where it fits, what fits where that is less, and nothing where nothing fits."""
    assert parsed(build(roomy("qwen3-8b", 1, 43)).words)["--max-model-len"] == ["16384"]
    small = roomy("qwen3-8b", 1, 18)
    assert small.memory is not None and 0 < small.memory.length < 16384
    assert parsed(build(small).words)["--max-model-len"] == [str(small.memory.length)]
    with pytest.raises(UsageError, match=f"{small.memory.length} is the most here.*force=True"):
        build(small, ["--max-model-len", "16k"])
    assert parsed(build(small, ["--max-model-len", "16k"], force=True).words)["--max-model-len"] == ["16k"]
    with pytest.raises(UsageError, match="nothing fits beside the weights"):
        build(roomy("qwen3-8b", 1, 8))


@pytest.mark.parametrize("length", ["65537", "66k", "64.1K", "1M"])
def test_no_length_beyond_the_positions(length: str) -> None:
    plain = service("qwen3-8b", 1)
    config = dataclasses.replace(plain.config, positions=65536)
    memory = estimate(config, 1, 10 << 30, chip=1 << 40, compressed_masks=True)
    plain = dataclasses.replace(plain, config=config, memory=memory)
    with pytest.raises(UsageError, match="because of the model's positions|has to be a number"):
        build(plain, ["--max-model-len", length])
    assert build(plain, ["--max-model-len", "64K"]).words[-1] == "64K"


@pytest.mark.parametrize(
    ("words", "length"), [("16k", 16000), ("16K", 16384), ("1.5k", 1500), ("1.5K", None), ("auto", None), ("0", None)]
)
def test_lengths_are_vllms(words: str, length: int | None) -> None:
    assert length_of({"max-model-len": [words]}, "max-model-len") == length


@pytest.mark.parametrize("chips", ["3,2", "0,0", "a", "0,,1", "", "0;1", "0,-1"])
def test_lists_of_chips_that_cannot_work(chips: str) -> None:
    with pytest.raises(UsageError, match="ASCEND_RT_VISIBLE_DEVICES"):
        build(service("qwen3-8b", 1), environment={"ASCEND_RT_VISIBLE_DEVICES": chips})


@pytest.mark.parametrize(
    ("more", "chips"),
    [
        (["-dp", "2"], "0,1,2,3"),
        (["--data-parallel-size=2", "--data_parallel_size_local", "1"], "0,1"),
        (["-dpl", "3", "-dp", "6"], "0,1,2,3,4,5"),
        (["--nnodes", "2"], None),
        (["-dp", "4", "--data-parallel-rank", "1"], None),
    ],
)
def test_data_parallelism_needs_a_set_of_chips_for_each_copy(more: list[str], chips: str | None) -> None:
    command = build(service("qwen3-32b", 2), more)
    assert command.environment.get("ASCEND_RT_VISIBLE_DEVICES") == chips
    if chips is not None:
        with pytest.raises(UsageError, match="names 1 chips"):
            build(service("qwen3-32b", 2), more, environment={"ASCEND_RT_VISIBLE_DEVICES": "7"})


def test_devices() -> None:
    chosen = build(service("qwen3-32b", 4), environment={"ASCEND_RT_VISIBLE_DEVICES": "4,5,6,7"})
    assert chosen.environment == {"ASCEND_RT_VISIBLE_DEVICES": "4,5,6,7"}
    with pytest.raises(UsageError, match="names 2 chips, 4 are needed"):
        build(service("qwen3-32b", 4), environment={"ASCEND_RT_VISIBLE_DEVICES": "4,5"})


# ---------------------------------------------------------------------------------------------- through directories


def test_a_sealed_directory(sealed: Callable[[int], Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", str(sealed(2)), "--print", "--", "--port", "9000"]) == 0
    printed = capsys.readouterr()
    assignment, *words = shlex.split(printed.out)
    assert assignment == "ASCEND_RT_VISIBLE_DEVICES=0,1"
    options = parsed(words)
    assert options[""] == [str(sealed(2))]
    assert options["--tensor-parallel-size"] == ["2"] and options["--port"] == ["9000"]
    assert "0.18.0 is assumed" in printed.err
    warned = job.prepare_serving(sealed(2), ["--cudagraph-capture-sizes", "1", "2", "4"])
    assert any("event ids" in note for note in warned.notes)


def test_a_directory_without_a_manifest_and_a_checkpoint(sealed_copy: Path, tiny: Path) -> None:
    (sealed_copy / "w8a8sc_manifest.json").unlink()
    prepared = job.prepare_serving(sealed_copy)
    assert parsed(prepared.command.words)["--tensor-parallel-size"] == ["2"]
    assert any("not checked" in note for note in prepared.notes)
    checkpoint = parsed(job.prepare_serving(tiny, ["--tensor-parallel-size", "4"]).command.words)
    assert "--load-format" not in checkpoint and checkpoint["--tensor-parallel-size"] == ["4"]
    with pytest.raises(InputError, match="sizes that work"):
        job.prepare_serving(tiny, ["-tp", "3"])


def test_without_a_preset_the_numbers_are_a_guess(tiny: Path) -> None:
    """Of a model that no recipe or tutorial names, unless the user gives them."""
    (guess,) = [note for note in job.prepare_serving(tiny).notes if "guess" in note]
    assert "--max-num-seqs, --max-model-len, --cudagraph-capture-sizes are a guess" in guess
    given = ["--max-num-seqs", "4", "--max_model_len", "512", "--cudagraph-capture-sizes", "1", "2"]
    assert not any("guess" in note for note in job.prepare_serving(tiny, given).notes)
    assert [one.guessed for one in job.fit(tiny, tp=[1]) + job.fit(tiny, tp=[1], max_num_seqs=4)] == [True, False]


def test_a_broken_directory_is_not_served(sealed_copy: Path) -> None:
    (sealed_copy / "model-rank-1-part-0.safetensors").unlink()
    with pytest.raises(InputError, match="see w8a8sc verify"):
        job.prepare_serving(sealed_copy)


def test_container(sealed: Callable[[int], Path], tmp_path: Path) -> None:
    for name in ("davinci0", "davinci3", "davinci_manager"):
        (tmp_path / name).touch()
    prepared = job.prepare_serving(
        sealed(2), ["--port", "8001"], in_container=True, environment={}, device_folder=tmp_path
    )
    words = prepared.command.words
    begin = words.index("vllm")
    docker = words[:begin]
    devices = [docker[i + 1] for i, word in enumerate(docker) if word == "--device"]
    assert devices == ["/dev/davinci0", "/dev/davinci3", "/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc"]
    assert docker[docker.index("-p") + 1] == "8001:8001"
    assert f"{sealed(2)}:{sealed(2)}:ro" in docker
    options = parsed(words[begin:])
    assert options["--host"] == ["0.0.0.0"] and options["--port"] == ["8001"]


def test_a_container_for_a_cached_checkpoint(tiny: Path, tmp_path: Path) -> None:
    """Its files are links, and its folder's name is a hash."""
    hub = tmp_path / "models--acme--Toy-w8a8s-310"
    snapshot, blobs = hub / "snapshots" / "0123456789abcdef", hub / "blobs"
    shutil.copytree(tiny, blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    words = job.prepare_serving(snapshot, in_container=True, environment={}, device_folder=tmp_path).command.words
    assert f"{snapshot}:{snapshot}:ro" in words and f"{blobs}:{blobs}:ro" in words
    assert words[words.index("serve") + 1] == str(snapshot)
    assert words[words.index("--served_model_name") + 1] == "Toy"


@pytest.mark.parametrize(("target", "image"), [("0.18", "v0.18.0-310p"), ("0.23", "v0.23.0-310p")])
def test_the_image_is_that_of_the_release(
    target: Any, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever vLLM Ascend is installed on the host that prints the line."""
    model = synthesize(tmp_path / "Model", layers=1, types=[("*.o_proj", "W8A8_DYNAMIC")])
    (result,) = compress(model, tmp_path / "out", target=target, verify=False, processes=1)
    monkeypatch.setattr(job, "version_of", lambda package: "0.18.0")
    words = job.prepare_serving(result.directory, in_container=True, device_folder=tmp_path).command.words
    assert f"quay.io/ascend/vllm-ascend:{image}" in words
    config = json.loads(words[words.index("--additional-config") + 1])["ascend_compilation_config"]
    assert set(config) == ({"fuse_norm_quant"} if target == "0.18" else {"enable_npugraph_ex"})
    notes = job.prepare_serving(result.directory).notes
    assert any("does not load" in note for note in notes) == (target == "0.23")


def test_starting(sealed: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program named vllm takes the place of the command, with its exit code."""
    program = tmp_path / "vllm"
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\nprint(sys.argv, os.environ['ASCEND_RT_VISIBLE_DEVICES'])\nsys.exit(7)\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("VLLM_PLUGINS", "ascend")
    command = [sys.executable, "-m", "w8a8sc_tool.cli", "serve", str(sealed(2))]
    code = "import sys; from w8a8sc_tool.cli.main import main; main()"
    ran = subprocess.run([sys.executable, "-c", code, *command[3:]], capture_output=True, text=True)
    assert ran.returncode == 7
    assert ran.stdout.endswith(" 0,1\n") and "'--load_format', 'sharded_state'" in ran.stdout
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingError, match="vllm is not installed"):
        job.start_serving(job.prepare_serving(sealed(2)).command)
