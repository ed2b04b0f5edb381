"""A rank's part of a directory, without vLLM: what is refused before and while it is read, each in one line."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace as replace_struct

from tests.conftest import edit_json
from w8a8sc_tool.errors import InputError, W8A8SCError, WorkError
from w8a8sc_tool.sharded_state import ShardedState
from w8a8sc_tool.sharded_state import manifest as manifest_file
from w8a8sc_tool.vllm.shard import PIECE, Shard, Wanted, one_line

QKV = "model.layers.0.self_attn.qkv_proj"


def wanted_of(shard: Shard) -> dict[str, Wanted]:
    """What a model that fits the files has."""
    made = {}
    for name, (file, info) in shard.tensors.items():
        compressed = file.tensors.get(f"{name.rpartition('.')[0]}.info") if name.endswith(".weight") else None
        matrix = tuple(int(v) for v in file.read(compressed.name)[2:4]) if compressed else None
        made[name] = Wanted(info.dtype, info.shape, matrix)  # type: ignore[arg-type]
    return made


def rank_file(folder: Path, rank: int = 0) -> Path:
    return folder / f"model-rank-{rank}-part-0.safetensors"


def refusal(act: Callable[[], object], kind: type[W8A8SCError] = InputError) -> str:
    """The one line of a refusal."""
    with pytest.raises(kind) as caught:
        act()
    text = str(caught.value)
    assert "\n" not in text and ": " in text, text
    return text


def without_manifest(folder: Path) -> Path:
    (folder / manifest_file.NAME).unlink()
    return folder


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_every_byte_of_every_rank_comes_through_one_buffer(sealed: Callable[[int], Path], tp: int) -> None:
    for rank in range(tp):
        with Shard.open(sealed(tp), rank, tp) as shard:
            shard.check(wanted_of(shard))
            assert set(shard.hashes) == set(shard.tensors)
            order, begins = [], []
            got = {name: np.zeros(info.nbytes, np.uint8) for name, (_, info) in shard.tensors.items()}
            for name, offset, piece in shard.pieces("hashes"):
                assert piece.nbytes <= PIECE
                got[name][offset : offset + piece.nbytes] = piece
                order.append(name)
                begins.append(shard.tensors[name][1].begin + offset)
            assert set(order) == set(shard.tensors) and begins == sorted(begins)
            for name, (file, _) in shard.tensors.items():
                assert got[name].tobytes() == file.read(name).tobytes(), name


@pytest.mark.parametrize(("made", "served"), list(itertools.permutations((1, 2, 4), 2)))
@pytest.mark.parametrize("manifest", [True, False])
def test_another_size_is_refused_with_the_right_one(
    sealed: Callable[[int], Path], tmp_path: Path, made: int, served: int, manifest: bool
) -> None:
    folder = Path(shutil.copytree(sealed(made), tmp_path / "copy"))
    if not manifest:
        without_manifest(folder)
    text = refusal(lambda: Shard.open(folder, 0, served))
    assert f"made for {made} ranks, but served with {served}" in text
    assert f"--tensor-parallel-size {made}" in text and f"w8a8sc reshard --tp {served}" in text


def test_no_directory_is_refused(tiny: Path, tmp_path: Path) -> None:
    assert "a checkpoint, not a sharded_state directory" in refusal(lambda: Shard.open(tiny, 0, 1))
    assert "not a folder on this machine" in refusal(lambda: Shard.open("Qwen/Qwen3-8B", 0, 1))


def test_a_missing_rank_file_is_refused_on_every_rank(sealed_copy: Path) -> None:
    rank_file(sealed_copy, 1).unlink()
    for rank in (0, 1):
        assert "no file of rank 1" in refusal(partial(Shard.open, sealed_copy, rank, 2))
    without_manifest(sealed_copy)
    assert "made for 1 ranks" in refusal(lambda: Shard.open(sealed_copy, 0, 2))


def test_three_rank_files_of_a_larger_size_are_an_incomplete_copy(
    sealed: Callable[[int], Path], tmp_path: Path
) -> None:
    folder = without_manifest(Path(shutil.copytree(sealed(4), tmp_path / "copy")))
    rank_file(folder, 3).unlink()
    assert "copy the directory again" in refusal(lambda: Shard.open(folder, 0, 4))


@pytest.mark.parametrize("manifest", [True, False])
def test_a_truncated_or_longer_file_is_refused(sealed_copy: Path, manifest: bool) -> None:
    path, data = rank_file(sealed_copy), rank_file(sealed_copy).read_bytes()
    if not manifest:
        without_manifest(sealed_copy)
    for changed in (data[:-100], data + b"\0" * 8, data[:4]):
        path.write_bytes(changed)
        assert str(path) in refusal(lambda: Shard.open(sealed_copy, 0, 2))


def test_the_manifest_of_another_model_is_refused(
    sealed_copy: Path, sealed: Callable[[int], Path], tmp_path: Path
) -> None:
    shutil.copy(sealed(1) / manifest_file.NAME, sealed_copy)
    assert "made for 1 ranks" in refusal(lambda: Shard.open(sealed_copy, 0, 2))
    manifest = manifest_file.load(sealed(2))
    assert manifest is not None
    first, second = manifest.rank_files
    names = {"file": second.file, "rank": second.rank}
    swapped = [replace_struct(second, file=first.file, rank=first.rank), replace_struct(first, **names)]
    (sealed_copy / manifest_file.NAME).write_bytes(replace_struct(manifest, rank_files=swapped).to_bytes())
    assert "not the file that the manifest lists" in refusal(lambda: Shard.open(sealed_copy, 0, 2))


def test_how_a_file_differs_from_its_manifest_is_said(sealed_copy: Path) -> None:
    manifest = manifest_file.load(sealed_copy)
    assert manifest is not None
    rank, *others = manifest.rank_files
    tensor, *rest = rank.tensors
    shape, last = list(tensor.shape), rest[-1]
    bytes_of = f"{tensor.dtype} {shape} in bytes {tensor.begin} to {tensor.end}"
    differences: dict[str, dict[str, Any]] = {
        f"only the file has {tensor.name}": {"tensors": rest},
        "only the manifest has a.weight": {"tensors": [*rank.tensors, replace_struct(last, name="a.weight")]},
        f"it has {rank.size} bytes, {rank.size + 64} are listed": {"size": rank.size + 64},
        f"{tensor.name} is {bytes_of} and listed as {bytes_of.replace(tensor.dtype, 'BF16')}": {
            "tensors": [replace_struct(tensor, dtype="BF16"), *rest]
        },
    }
    for difference, changes in differences.items():
        ranks = [replace_struct(rank, **changes), *others]
        with ShardedState.open(sealed_copy) as state, pytest.raises(InputError) as refused:
            replace(state, manifest=replace_struct(manifest, rank_files=ranks)).check_files()
        problem = refused.value.problems[0]
        assert problem.message == f"not the file that the manifest lists: {difference}"
        assert problem.where == str(sealed_copy / rank.file)
        assert problem.remedy.startswith(f"copy it and {manifest_file.NAME} again, from one directory")


@pytest.mark.parametrize("name", ["config.json", "quant_model_description.json"])
def test_an_edited_or_missing_side_file_is_refused(sealed_copy: Path, name: str) -> None:
    path = sealed_copy / name
    path.write_text(path.read_text() + "\n")
    assert f"{name}: restore it" in refusal(lambda: Shard.open(sealed_copy, 0, 2))
    path.unlink()
    assert "no such file" in refusal(lambda: Shard.open(sealed_copy, 0, 2))


def test_a_config_that_hides_the_description_is_refused(sealed_copy: Path) -> None:
    without_manifest(sealed_copy)
    edit_json(sealed_copy / "config.json", lambda c: c.update(quantization_config={"quant_method": "ascend"}))
    assert "quantization_config hides" in refusal(lambda: Shard.open(sealed_copy, 0, 2))


def test_tensors_of_another_model_are_refused(sealed: Callable[[int], Path]) -> None:
    with Shard.open(sealed(2), 0, 2) as shard:
        right = wanted_of(shard)
        weight, norm = f"{QKV}.weight", "model.norm.weight"
        cases: list[tuple[dict[str, Wanted], str]] = [
            ({name: want for name, want in right.items() if name != norm}, "1 tensors do not belong to this model"),
            ({**right, "model.norm.bias": right[norm]}, "1 tensors are missing (model.norm.bias)"),
            ({**right, norm: replace(right[norm], dtype="F32")}, f"{norm} is F16, F32 is wanted"),
            ({**right, norm: replace(right[norm], shape=(513,))}, f"{norm} has shape [512], [513] is wanted"),
            ({**right, weight: replace(right[weight], matrix=(8, 8))}, "[c] with 0 < c <= 64 is wanted"),
            ({**right, weight: replace(right[weight], matrix=(1280, 512))}, f"{QKV}.info is [8, 8, 512, 1280, 1]"),
        ]
        for wanted, expected in cases:
            assert expected in refusal(partial(shard.check, wanted))
        many = {name: replace(want, dtype="F64") for name, want in right.items()}
        assert refusal(lambda: shard.check(many)).count(" is wanted") == 4


def test_an_index_that_points_past_its_weight_is_refused(sealed_copy: Path) -> None:
    without_manifest(sealed_copy)
    with Shard.open(sealed_copy, 0, 2) as shard:
        info = shard.tensors[f"{QKV}.index"][1]
        wanted = wanted_of(shard)
    with rank_file(sealed_copy).open("r+b") as file:
        file.seek(info.end - 1)
        file.write(b"\x7f")
    with Shard.open(sealed_copy, 0, 2) as shard:
        assert f"{QKV}.index points to byte" in refusal(lambda: shard.check(wanted))


def test_a_flipped_bit_is_found_by_its_hash_alone(sealed_copy: Path) -> None:
    with Shard.open(sealed_copy, 1, 2) as shard:
        info = shard.tensors[f"{QKV}.weight"][1]
    with rank_file(sealed_copy, 1).open("r+b") as file:
        file.seek(info.begin + 1000)
        byte = file.read(1)[0]
        file.seek(info.begin + 1000)
        file.write(bytes([byte ^ 4]))
    with Shard.open(sealed_copy, 1, 2) as shard:
        assert f"{QKV}.weight is damaged" in refusal(lambda: list(shard.pieces("hashes")))
        assert sum(piece.nbytes for _, _, piece in shard.pieces("sizes")) == sum(
            i.nbytes for _, i in shard.tensors.values()
        )
    without_manifest(sealed_copy)
    with Shard.open(sealed_copy, 1, 2) as shard:
        assert len(list(shard.pieces("hashes"))) >= len(shard.tensors)


def test_a_file_that_shrinks_while_it_is_read_is_an_error_not_a_signal(sealed_copy: Path) -> None:
    with Shard.open(sealed_copy, 0, 2) as shard:
        pieces = shard.pieces("hashes")
        next(pieces)
        with rank_file(sealed_copy).open("r+b") as file:
            file.truncate(100_000)
        assert "changed during the work" in refusal(lambda: list(pieces), WorkError)


def test_a_tensor_in_two_parts_is_refused(sealed_copy: Path) -> None:
    without_manifest(sealed_copy)
    shutil.copy(rank_file(sealed_copy), sealed_copy / "model-rank-0-part-1.safetensors")
    assert "is in two files" in refusal(lambda: Shard.open(sealed_copy, 0, 2))


def test_many_problems_become_one_line() -> None:
    from w8a8sc_tool.errors import Problem

    error = one_line(InputError([Problem(f"problem {i}", "a\nb") for i in range(9)]))
    assert str(error).startswith("problem 0, a b; problem 1") and "and 5 more" in str(error)
    assert str(error).endswith("w8a8sc verify tells more")
    assert json.dumps(str(error))
