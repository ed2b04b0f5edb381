"""Verification: what is broken is found and named, what could not be checked is said."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from w8a8sc_tool.checking.tree import _size
from w8a8sc_tool.checking.verify import Report, verify
from w8a8sc_tool.errors import AccessError, InputError
from w8a8sc_tool.io.safetensors import TensorFile
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.synthesis.synthesize import synthesize

from .. import tensors
from ..conftest import edit_json

RANK0, RANK1 = "model-rank-0-part-0.safetensors", "model-rank-1-part-0.safetensors"


def check(directory: Path, **options: object) -> Report:
    return verify(directory, processes=1, **options)  # type: ignore[arg-type]


def assert_findings(report: Report, *texts: str) -> None:
    assert not report.ok
    text = "\n".join(f"{finding.where}: {finding.message}" for finding in report.findings)
    for part in texts:
        assert part in text


def strip_manifest(directory: Path) -> Path:
    (directory / "w8a8sc_manifest.json").unlink()
    return directory


def flip(path: Path, position: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1 << bit]))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_a_file_that_is_not_given_is_no_finding(
    number: int, sealed: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More files than may be open say nothing about the directory; those that were opened are closed."""
    folder, real = sealed(2), os.open
    opened: list[int] = []

    def refuse(path: Path, *arguments: Any, **options: Any) -> int:
        if Path(path).name == RANK1:
            raise OSError(number, os.strerror(number))
        fd = real(path, *arguments, **options)
        opened.extend([fd] if Path(path).name == RANK0 else [])
        return fd

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(AccessError, match=f"cannot be opened .{os.strerror(number)}.*{RANK1}"):
        check(folder, quick=True)
    (rank0,) = opened
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(rank0)


def test_a_good_directory(sealed: Callable[[int], Path], tiny: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in sealed(2).iterdir()}
    for options in ({}, {"source": tiny}, {"quick": True}):
        report = check(sealed(2), **options)
        assert report.ok
        assert (report.tp, report.has_manifest, report.compressed_weights) == (2, True, 10)
    assert any("quick=True" in gap for gap in check(sealed(2), quick=True).not_checked)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in sealed(2).iterdir()} == before


def test_every_kind_of_byte_is_covered(sealed_copy: Path) -> None:
    """Single bits flipped all over: header length, header, padding, every part of the data, side files, manifest."""
    chooser = random.Random(0)
    with TensorFile(sealed_copy / RANK1) as file:
        header = file.header_bytes
        tensors_at = [t.begin for t in file.tensors.values() if t.nbytes]
        size = file.size
    cases = [(RANK1, p) for p in (0, 7, 9, header - 1, size - 1, *chooser.sample(tensors_at, 5))]
    cases += [(RANK1, chooser.randrange(size)) for _ in range(5)]
    for name in ("config.json", "tokenizer.json", "quant_model_description.json", "w8a8sc_manifest.json"):
        cases.append((name, chooser.randrange((sealed_copy / name).stat().st_size)))
    for name, position in cases:
        bit = chooser.randrange(8)
        flip(sealed_copy / name, position, bit)
        assert not check(sealed_copy).ok, (name, position, bit)
        flip(sealed_copy / name, position, bit)
    assert check(sealed_copy).ok


def test_files_missing_extra_truncated_swapped(sealed_copy: Path, sealed: Callable[[int], Path]) -> None:
    def restore() -> None:
        shutil.rmtree(sealed_copy)
        shutil.copytree(sealed(2), sealed_copy)

    (sealed_copy / RANK1).unlink()
    assert_findings(check(sealed_copy), "no file of rank 1", "the file is missing")
    restore()
    (sealed_copy / "tokenizer.json").unlink()
    assert_findings(check(sealed_copy, quick=True), "tokenizer.json: the file is missing")
    restore()
    shutil.copy(sealed_copy / RANK1, sealed_copy / "model-rank-1-part-1.safetensors")
    assert_findings(check(sealed_copy, quick=True), "does not belong", "is in two parts")
    restore()
    (sealed_copy / "notes.txt").write_text("hello")
    assert_findings(check(sealed_copy, quick=True), "notes.txt: the file does not belong")
    restore()
    os.truncate(sealed_copy / RANK0, (sealed_copy / RANK0).stat().st_size - 1)
    assert_findings(check(sealed_copy, quick=True), RANK0, "the file at")
    restore()
    (sealed_copy / RANK0).rename(sealed_copy / "x")
    (sealed_copy / RANK1).rename(sealed_copy / RANK0)
    (sealed_copy / "x").rename(sealed_copy / RANK1)
    assert_findings(check(sealed_copy), RANK0, RANK1, "hash differs")
    restore()
    shutil.copy(sealed(4) / RANK0, sealed_copy / RANK0)
    assert_findings(check(sealed_copy, quick=True), RANK0, "header is not the one")
    restore()
    (sealed_copy / RANK0).rename(sealed_copy.parent / "away")
    (sealed_copy / RANK0).symlink_to(sealed_copy.parent / "away")
    assert_findings(check(sealed_copy, quick=True), "holds no links")


def test_a_snapshot_in_the_cache_of_hugging_face(sealed: Callable[[int], Path], tmp_path: Path) -> None:
    """It is all links into the cache's own blobs, which are its files; a link to anywhere else is none."""
    blobs = tmp_path / "models--acme--Toy" / "blobs"
    folder = blobs.parent / "snapshots" / "0123" / "TP2" / "Toy-tp2"
    for path in (blobs, folder):
        path.mkdir(parents=True)
    for number, file in enumerate(sorted(sealed(2).iterdir())):
        shutil.copy(file, blobs / str(number))
        (folder / file.name).symlink_to(f"../../../../blobs/{number}")
    assert check(folder, quick=True).ok
    assert _size(folder) == _size(sealed(2))
    other = shutil.copytree(blobs, tmp_path / "models--acme--Other" / "blobs")
    for name, target in (("config.json", Path("config.json")), (RANK0, other / (folder / RANK0).readlink().name)):
        (folder / name).unlink()
        (folder / name).symlink_to(target)
    findings = (f"{folder / 'config.json'}: not a regular file", f"{folder / RANK0}: a sealed directory holds no links")
    assert_findings(check(folder, quick=True), *findings)


def test_a_manifest_edited_by_hand_is_not_trusted(sealed_copy: Path) -> None:
    edit_json(sealed_copy / "w8a8sc_manifest.json", lambda content: content.update(tensor_parallel_size=1))
    report = check(sealed_copy)
    assert_findings(report, "w8a8sc_manifest.json", "digest")
    assert "manifest cannot be trusted" in report.not_checked[0]


def test_another_source_is_noticed(sealed: Callable[[int], Path], tiny_copy: Path) -> None:
    weights = tiny_copy / "quant_model_weight_w8a8s.safetensors"
    content = tensors.read(weights)
    name = "model.layers.0.self_attn.k_proj.weight"
    changed = tensors.array(content[name]).copy()
    changed[-1, -1] ^= 1  # on the last rank alone
    content[name] = ("I8", list(changed.shape), changed.tobytes())
    norm = "model.layers.1.input_layernorm.weight"
    content[norm] = tensors.entry("F16", tensors.array(content[norm]) * 2)
    tensors.write(weights, content)
    report = check(sealed(2), source=tiny_copy)
    differing = {(Path(f.where.split(" (")[0]).name, f.where.split("(")[1].rstrip(")")) for f in report.findings}
    assert len(report.findings) == 3
    assert differing == {(RANK0, norm), (RANK1, norm), (RANK1, "model.layers.0.self_attn.qkv_proj.weight")}


def test_source_of_other_sizes_is_refused(sealed: Callable[[int], Path], tmp_path: Path) -> None:
    other = synthesize(tmp_path / "m", "tiny", layers=3)
    report = check(sealed(2), source=other)
    assert_findings(report, "config.json", "is described as None")


def test_source_of_other_types_is_noticed(sealed: Callable[[int], Path], tmp_path: Path) -> None:
    """A layer that is compressed in the directory and FLOAT in the source, of the same size."""
    name = "model.layers.0.mlp.gate_up_proj.weight"
    types = [("*.mlp.down_proj", "FLOAT"), ("model.layers.1.mlp.*_proj", "FLOAT"), ("model.layers.0.mlp.*", "FLOAT")]
    report = check(sealed(2), source=synthesize(tmp_path / "m", "tiny", layers=2, types=types))
    assert_findings(report, "it is not what the source checkpoint makes it", name)
    assert sum(name in finding.where for finding in report.findings) == 2


# --------------------------------------------------------------------------------------------- without a manifest


def test_without_a_manifest_it_says_what_it_cannot_show(sealed_copy: Path, tiny: Path) -> None:
    report = check(strip_manifest(sealed_copy))
    assert report.ok
    assert (report.tp, report.has_manifest) == (2, False)
    assert any("no manifest" in gap for gap in report.not_checked)
    assert check(sealed_copy, source=tiny).ok


def test_without_a_manifest_structure_is_checked(sealed_copy: Path) -> None:
    content = tensors.read(strip_manifest(sealed_copy) / RANK1)
    name = "model.layers.0.self_attn.qkv_proj"
    del content["model.layers.1.self_attn.attn._k_scale"]
    content["model.stray.weight"] = tensors.entry("F16", np.zeros(3))
    content["model.norm.weight"] = tensors.entry("F32", np.zeros(512))
    content["lm_head.weight"] = tensors.entry("F16", np.zeros((7, 512)))
    content[f"{name}.index"] = tensors.entry("I8", np.zeros(8))
    tensors.write(sealed_copy / RANK1, content)
    assert_findings(
        check(sealed_copy),
        "model.layers.1.self_attn.attn._k_scale is missing",
        "model.stray.weight does not belong",
        "model.norm.weight is F32 [512], not F16 [512]",
        "lm_head.weight is F16 [7, 512], not F16 [1024, 512]",
        f"{name}.index is I8 [8]",
        "the index has 8 bytes",
    )


def test_without_a_manifest_tiles_are_decoded(sealed_copy: Path) -> None:
    content = tensors.read(strip_manifest(sealed_copy) / RANK1)
    name = "model.layers.0.self_attn.o_proj"
    weight = bytearray(content[f"{name}.weight"][2])
    weight[200] ^= 4
    content[f"{name}.weight"] = ("I8", [len(weight)], bytes(weight))
    tensors.write(sealed_copy / RANK1, content)
    assert_findings(check(sealed_copy), f"({name}.weight): tile 0")


def test_swapped_tensors_of_equal_shape_need_the_source(sealed_copy: Path, tiny: Path) -> None:
    content = tensors.read(strip_manifest(sealed_copy) / RANK0)
    a, b = (f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 1))
    content[a], content[b] = content[b], content[a]
    tensors.write(sealed_copy / RANK0, content)
    assert check(sealed_copy).ok
    assert_findings(check(sealed_copy, source=tiny), a, b, "not what the source")


def test_info_of_another_size(sealed_copy: Path, tiny: Path) -> None:
    content = tensors.read(strip_manifest(sealed_copy) / RANK0)
    name = "model.layers.0.self_attn.o_proj.info"
    info = tensors.array(content[name]).copy()
    info[3] -= 16  # as many tiles, fewer rows
    content[name] = tensors.entry("I64", info)
    tensors.write(sealed_copy / RANK0, content)
    assert_findings(check(sealed_copy, source=tiny), "info does not say")


def test_missing_ranks(sealed_copy: Path) -> None:
    (strip_manifest(sealed_copy) / RANK0).unlink()
    assert_findings(check(sealed_copy), "no file of rank 0")


def test_wrong_paths(tmp_path: Path, tiny: Path) -> None:
    for path, message in (
        (tmp_path / "missing", "no such folder"),
        (tmp_path, "no model-rank"),
        (tiny, "a checkpoint, not a sharded_state directory"),
    ):
        with pytest.raises(InputError, match=message):
            check(path)


def test_config_that_replaces_the_description(sealed_copy: Path) -> None:
    edit_json(strip_manifest(sealed_copy) / "config.json", lambda content: content.update(quantization_config={}))
    assert_findings(check(sealed_copy), "quantization_config would take the place")


def test_findings_do_not_depend_on_the_number_of_processes(sealed_copy: Path) -> None:
    for position in (-1, -5000, -100_000):
        flip(sealed_copy / RANK0, (sealed_copy / RANK0).stat().st_size + position)
    one, three = (verify(sealed_copy, processes=count).findings for count in (1, 3))
    assert one == three
    assert len(one) >= 2


def test_a_layer_kept_w8a8s_verifies(tmp_path: Path, tiny: Path) -> None:
    (result,) = compress(tiny, tmp_path, max_ratio=0.3, processes=2)
    assert result.fallbacks == {"ratio": 5, "source": 3}
    assert check(result.directory, source=tiny).ok
    assert result.weight_ratio is None
