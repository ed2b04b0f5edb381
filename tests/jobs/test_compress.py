"""The main job: right values on every rank, the same bytes however it runs, nothing half-done."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from w8a8sc_tool.checking.verify import verify, verify_opened
from w8a8sc_tool.codec import decode_matrix
from w8a8sc_tool.conversion.convert import Compressed, target_folder
from w8a8sc_tool.errors import InputError, UsageError, WorkError
from w8a8sc_tool.jobs.compress import compress, model_name, plan
from w8a8sc_tool.synthesis.synthesize import MODELS, Model, synthesize
from w8a8sc_tool.workers.progress import Progress

from .. import tensors
from ..conftest import edit_json
from ..expected import Model as Oracle

WEIGHTS = "quant_model_weight_w8a8s.safetensors"


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def check_values(source: Path, directory: Path, tp: int, target: str = "0.18") -> None:
    """Every tensor of every rank against the oracle; compressed weights by what they decode to."""
    oracle = Oracle(source, target)
    for rank in range(tp):
        stored = load_file(directory / f"model-rank-{rank}-part-0.safetensors")
        expected = oracle.rank(rank, tp)
        for name in [name for name in stored if name.endswith(".info")]:
            module = name.removesuffix(".info")
            parts = (stored.pop(f"{module}.{leaf}") for leaf in ("weight", "index", "info"))
            stored[f"{module}.weight"] = decode_matrix(*parts, sparsity="low")
        assert set(stored) == set(expected)
        for name, values in expected.items():
            assert stored[name].dtype == values.dtype, name
            assert stored[name].shape == values.shape, name
            assert stored[name].tobytes() == np.ascontiguousarray(values).tobytes(), name


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_values_of_every_rank(tiny: Path, sealed: Callable[[int], Path], tp: int) -> None:
    check_values(tiny, sealed(tp), tp)


def test_bfloat16_norm_bias_tied_odd_vocabulary_and_w8a8(tmp_path: Path) -> None:
    source = synthesize(
        tmp_path / "m",
        *("tiny",),
        layers=2,
        dtype="bfloat16",
        tied=True,
        m4=True,
        vocabulary=1001,
        types=[("*.1.self_attn.*", "W8A8"), ("*.mlp.down_proj", "FLOAT")],
        part_bytes=2_000_000,
    )
    # One norm without a bias: it gets zeros, as vLLM's does.
    index = source / "quant_model_weight_w8a8s.safetensors.index.json"
    edit_json(index, lambda content: content["weight_map"].pop("model.norm.bias"))
    edit_json(source / "quant_model_description.json", lambda content: content.pop("model.norm.bias"))
    for part in source.glob("*.safetensors"):
        content = tensors.read(part)
        if content.pop("model.norm.bias", None):
            tensors.write(part, content)
    for result in compress(source, tmp_path / "out", tp=[1, 4], processes=2):
        check_values(source, result.directory, result.tp)


def test_more_ranks_than_kv_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "narrow", Model(512, 2048, 1, 16, 2, 128, 3001, ("*.down_proj",)))
    source = synthesize(tmp_path / "m", "narrow")
    (result,) = compress(source, tmp_path / "out", tp=[8], processes=2)
    check_values(source, result.directory, 8)


def test_directory_holds_what_vllm_looks_for(sealed: Callable[[int], Path], tiny: Path) -> None:
    directory = sealed(2)
    assert {path.name for path in directory.iterdir()} == {
        "model-rank-0-part-0.safetensors",
        "model-rank-1-part-0.safetensors",
        "quant_model_description.json",
        "w8a8sc_manifest.json",
        *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    }
    before = json.loads((tiny / "quant_model_description.json").read_text())
    after = json.loads((directory / "quant_model_description.json").read_text())
    assert list(after) == list(before)
    changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    assert set(changed.values()) == {("W8A8S", "W8A8SC")}
    assert "model_quant_type" in changed
    assert "model.layers.0.self_attn.k_proj.weight" in changed
    assert all(key == "model_quant_type" or key.endswith("_proj.weight") for key in changed)


def test_quantization_config_is_dropped(tiny_copy: Path, tmp_path: Path) -> None:
    edit_json(tiny_copy / "config.json", lambda content: content.update(quantization_config={"bits": 8}))
    (result,) = compress(tiny_copy, tmp_path / "out", processes=1)
    assert "quantization_config" not in json.loads((result.directory / "config.json").read_text())


def test_output_does_not_depend_on_the_number_of_processes(
    tiny: Path, sealed: Callable[[int], Path], tmp_path: Path
) -> None:
    for processes in (1, 3):
        (result,) = compress(tiny, tmp_path / str(processes), tp=[2], name="Tiny", processes=processes)
        assert digests(result.directory) == digests(sealed(2))


def test_output_does_not_depend_on_path_files_or_times(
    tiny: Path, sealed: Callable[[int], Path], tmp_path: Path
) -> None:
    content = tensors.read(tiny / WEIGHTS)
    other = tmp_path / "elsewhere"
    other.mkdir()
    for path in tiny.iterdir():
        if path.name != WEIGHTS:
            (other / path.name).write_bytes(path.read_bytes())
    names = list(reversed(content))
    half = len(names) // 2
    for number, part in enumerate((names[:half], names[half:]), 1):
        tensors.write(other / f"model-0000{number}-of-00002.safetensors", {name: content[name] for name in part})
    (result,) = compress(other, tmp_path / "out", tp=[2], name="Tiny", processes=2)
    assert digests(result.directory) == digests(sealed(2))


def test_layers_that_do_not_pay_stay_w8a8s(tiny_copy: Path, tmp_path: Path) -> None:
    """One rank's shard over the limit keeps the layer uncompressed on all ranks."""
    content = tensors.read(tiny_copy / WEIGHTS)
    name = "model.layers.0.mlp.up_proj.weight"
    noise = tensors.array(content[name]).copy()
    noise[len(noise) // 2 :] = np.random.default_rng(0).integers(-128, 128, noise[len(noise) // 2 :].shape)
    content[name] = ("I8", list(noise.shape), noise.tobytes())
    tensors.write(tiny_copy / WEIGHTS, content)
    (result,) = compress(tiny_copy, tmp_path / "out", tp=[2], max_ratio=0.75, processes=2)
    layers = {layer.name: layer for layer in result.manifest.layers}
    kept = layers["model.layers.0.mlp.gate_up_proj"]
    assert (kept.quantization, kept.fallback) == ("W8A8S", "ratio")
    assert kept.ratio is not None and kept.ratio > 0.6
    assert layers["model.layers.0.self_attn.qkv_proj"].quantization == "W8A8SC"
    assert result.fallbacks["ratio"] == 1
    check_values(tiny_copy, result.directory, 2)
    description = json.loads((result.directory / "quant_model_description.json").read_text())
    assert description["model.layers.0.mlp.up_proj.weight"] == "W8A8S"
    assert verify(result.directory, source=tiny_copy, processes=2).ok


def test_layers_that_outgrow_their_consumers_stay_w8a8s(tmp_path: Path) -> None:
    source = synthesize(tmp_path / "m", "tiny", layers=1, types=[])
    content = tensors.read(source / WEIGHTS)
    for name in content:
        if name.endswith("_proj.weight"):
            shape = content[name][1]
            noise = np.random.default_rng(1).integers(-128, 128, shape).astype(np.int8)
            content[name] = ("I8", shape, noise.tobytes())
    tensors.write(source / WEIGHTS, content)
    (result,) = compress(source, tmp_path / "out", tp=[4], processes=2)
    assert result.fallbacks == {"ratio": 4}
    assert result.weight_ratio is None
    check_values(source, result.directory, 4)


# --------------------------------------------------------------------------------------- names, targets, doing it again


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Qwen3-8B-w8a8s-310", "Qwen3-8B"),
        ("Qwen3-14B-W8A8S", "Qwen3-14B"),
        ("model w8a8s", "model w8a8s"),
        ("通义 @+w8a8s-310p", "通义 @+w8a8s-310p"),
        ("x_w8a8s_310", "x"),
    ],
)
def test_model_names(folder: str, name: str) -> None:
    assert model_name(Path("/models") / folder) == name


def test_published_tree() -> None:
    assert target_folder(Path("/o"), "Qwen3-8B", 4) == Path(
        "/o/Qwen3-8B-w8a8sc-310-vllm/TP4/Qwen3-8B-w8a8sc-310-vllm-tp4"
    )


def test_paths_with_spaces_and_other_characters(tiny: Path, tmp_path: Path) -> None:
    source = tmp_path / "模型 @+ 1-w8a8s"
    source.symlink_to(tiny)
    (result,) = compress(tiny, tmp_path / "输出 @+", name="模型 @+", processes=1)
    assert verify(result.directory, processes=1).ok


def test_doing_it_again_is_reported_as_done(tiny: Path, tmp_path: Path) -> None:
    (first,) = compress(tiny, tmp_path, tp=[2], processes=2)
    before = {path: path.stat().st_mtime_ns for path in first.directory.iterdir()}
    (second,) = compress(tiny, tmp_path, tp=[2], processes=2)
    assert second.already_done and second.directory == first.directory
    assert {path: path.stat().st_mtime_ns for path in first.directory.iterdir()} == before
    with pytest.raises(InputError, match=r"exists already.*overwrite=True"):
        compress(tiny, tmp_path, tp=[2], max_ratio=0.9, processes=2)
    (third,) = compress(tiny, tmp_path, tp=[2], max_ratio=0.9, overwrite=True, processes=2)
    assert third.manifest.options["max_ratio"] == 0.9
    assert [path.name for path in first.directory.parent.iterdir()] == [first.directory.name]


def test_another_source_is_not_taken_for_the_same(tiny: Path, tiny_copy: Path, tmp_path: Path) -> None:
    compress(tiny, tmp_path / "out", name="m", processes=2)
    content = tensors.read(tiny_copy / WEIGHTS)
    name = "model.norm.weight"
    content[name] = tensors.entry("F16", tensors.array(content[name]) + 1)
    tensors.write(tiny_copy / WEIGHTS, content)
    with pytest.raises(InputError, match="exists already"):
        compress(tiny_copy, tmp_path / "out", name="m", processes=2)


def test_a_left_over_partial_folder_is_discarded(tiny: Path, tmp_path: Path) -> None:
    target = target_folder(tmp_path, "Tiny", 1)
    partial = target.with_name(target.name + ".partial")
    partial.mkdir(parents=True)
    (partial / "model-rank-0-part-0.safetensors").write_text("half")
    compress(tiny, tmp_path, processes=1)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


# --------------------------------------------------------------------------------------------------------- refusals


def nothing_written(folder: Path) -> bool:
    return not folder.exists() or not any(folder.iterdir())


def test_sizes_that_do_not_divide(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sizes that work: 1, 2, 4") as error:
        compress(tiny, tmp_path / "out", tp=[1, 3, 8])
    assert len(error.value.problems) == 2
    assert nothing_written(tmp_path / "out")


def test_one_bad_target_stops_all_before_work(tiny: Path, tmp_path: Path) -> None:
    target_folder(tmp_path, "Tiny", 2).mkdir(parents=True)
    with pytest.raises(InputError, match="exists already"):
        compress(tiny, tmp_path, tp=[1, 2])
    assert not target_folder(tmp_path, "Tiny", 1).exists()


def test_no_disk_space_for_the_estimate(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(InputError, match=r"about .* MB more are needed, with a margin of .*, and 1\.0 kB are free"):
        compress(tiny, tmp_path / "out")
    assert nothing_written(tmp_path / "out")


def test_calls_that_cannot_mean_anything(tiny: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ({"tp": []}, "each once"),
        ({"tp": [1, 1]}, "each once"),
        ({"name": "a/b"}, "folder's name"),
        ({"processes": -1}, "positive"),
        ({"max_ratio": 1.0}, "max ratio"),
    ):
        with pytest.raises(UsageError, match=message):
            compress(tiny, tmp_path / "out", **arguments)
    assert nothing_written(tmp_path / "out")


def test_overflow_is_found_while_working(tmp_path: Path) -> None:
    source = synthesize(tmp_path / "m", "tiny", layers=1, dtype="bfloat16")
    content = tensors.read(source / WEIGHTS)
    name = "model.layers.0.mlp.down_proj.weight"
    bits = tensors.array(content[name]).copy()
    bits[3, 5] = 0x4800  # 131072 in bfloat16
    content[name] = ("BF16", list(bits.shape), bits.tobytes())
    tensors.write(source / WEIGHTS, content)
    with pytest.raises(InputError, match=f"{name} holds 131072"):
        compress(source, tmp_path / "out", processes=2)
    assert not target_folder(tmp_path / "out", "m", 1).exists()


def test_source_that_shrinks_during_the_work(tiny_copy: Path, tmp_path: Path) -> None:
    class Shrinking(Progress):
        def begin(self, label: str, total_bytes: int, copied_bytes: int = 0) -> None:
            path = tiny_copy / WEIGHTS
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size // 2)

    with pytest.raises(WorkError, match="changed during the work"):
        compress(tiny_copy, tmp_path / "out", processes=2, progress=Shrinking())


def test_a_read_back_that_fails_is_not_put_in_place(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from w8a8sc_tool.conversion import conversion as job

    def damaged(directory: Path, source: None, read: Set[tuple[str, str]], **arguments: Any) -> object:
        path = directory / "model-rank-0-part-0.safetensors"
        with path.open("r+b") as file:
            file.seek(-3, 2)
            file.write(b"\x55")
        return verify_opened(directory, source, read, **arguments)

    monkeypatch.setattr(job, "verify_opened", damaged)
    with pytest.raises(WorkError, match="reading back"):
        compress(tiny, tmp_path, processes=1)
    assert not target_folder(tmp_path, "Tiny", 1).exists()


def test_a_script_without_a_main_guard(tiny: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom w8a8sc_tool import compress\n"
        "print(compress(sys.argv[1], sys.argv[2], processes=2)[0].directory)\n"
    )
    result = subprocess.run(
        [sys.executable, str(script), str(tiny), str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert result.stdout.count("\n") == 1


def test_dry_run_writes_nothing(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (made,) = plan(tiny, tp=[2])
    assert made.tp == 2
    assert nothing_written(tmp_path)


def test_results_tell_the_same_story_as_the_manifest(tiny: Path, tmp_path: Path) -> None:
    (result,) = compress(tiny, tmp_path, tp=[2], processes=2)
    assert isinstance(result, Compressed)
    on_disk = sum(path.stat().st_size for path in result.directory.iterdir() if path.name != "w8a8sc_manifest.json")
    manifest_size = (result.directory / "w8a8sc_manifest.json").stat().st_size
    assert on_disk <= result.output_bytes <= on_disk + manifest_size
    assert result.fallbacks == {"source": 3}
    assert result.weight_ratio is not None and 0.5 < result.weight_ratio < 0.7
