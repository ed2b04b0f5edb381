"""A rank in several files: which module is in which, the same tensors as in one, and whatever reads a directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from w8a8sc_tool.checking.compare import compare
from w8a8sc_tool.checking.verify import verify
from w8a8sc_tool.conversion import conversion, draft, parts, preparation
from w8a8sc_tool.conversion.convert import target_folder
from w8a8sc_tool.conversion.parts import DEFAULT_FILE_BYTES, deal, number_of_files, split_of
from w8a8sc_tool.errors import InputError
from w8a8sc_tool.jobs.card import card
from w8a8sc_tool.jobs.compress import compress, plan
from w8a8sc_tool.jobs.inspect import Inspection, ModuleRow, inspect
from w8a8sc_tool.jobs.reshard import reshard, to_checkpoint
from w8a8sc_tool.jobs.serving import fit
from w8a8sc_tool.sharded_state import ShardedState
from w8a8sc_tool.sharded_state import manifest as manifest_file
from w8a8sc_tool.vllm.shard import Shard

from ..conftest import MOST_BYTES
from ..jobs.test_compress import digests
from .test_resume import Stopped, Watch, record_everything, stop

__all__ = ["record_everything"]  # a fixture that every test here has, too


def by_name(folder: Path, rank: int) -> dict[str, Any]:
    """All tensors of a rank, as the safetensors library reads them; each is in one file."""
    files = [load_file(path) for path in folder.glob(f"model-rank-{rank}-part-*.safetensors")]
    tensors = {name: values for file in files for name, values in file.items()}
    assert len(tensors) == sum(map(len, files))
    return tensors


def by_module(inspection: Inspection) -> dict[str, ModuleRow]:
    return {row.name: row for row in inspection.modules}


# ---------------------------------------------------------------------------------------------------- which file

MODULES = st.lists(st.tuples(st.integers(1, 1000), st.booleans()), min_size=1, max_size=60)


@given(MODULES, st.integers(1, 3000))
def test_no_file_is_too_large_unless_one_module_is(drawn: list[tuple[int, bool]], most: int) -> None:
    sizes, compressed = [size for size, _ in drawn], [each for _, each in drawn]
    count = number_of_files(sizes, compressed, most)
    parts = deal(sizes, compressed, count)
    assert sorted(set(parts)) == list(range(count))  # no file is empty
    assert (count == 1) == (sum(sizes) <= most or len(sizes) == 1)
    for part in range(count):
        inside = [size for size, its in zip(sizes, parts) if its == part]
        assert sum(inside) <= most or len(inside) == 1
    assert parts == deal(sizes, compressed, count)


@given(MODULES, st.integers(1, 3000))
def test_no_fewer_files_would_do(drawn: list[tuple[int, bool]], most: int) -> None:
    """One that is much larger than a file is a file; the others do not get more of them for that."""
    sizes, compressed = [size for size, _ in drawn], [each for _, each in drawn]
    for count in range(1, number_of_files(sizes, compressed, most)):
        parts = deal(sizes, compressed, count)
        filled = [[size for size, its in zip(sizes, parts) if its == part] for part in range(count)]
        assert any(sum(inside) > most and len(inside) > 1 for inside in filled)


def test_files_of_thousands_of_modules_are_soon_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    dealt: list[int] = []

    def counted(sizes: list[int], compressed: list[bool], count: int) -> list[int]:
        dealt.append(count)
        return deal(sizes, compressed, count)

    monkeypatch.setattr(parts, "deal", counted)
    for size, most, count in ((34, 100, 1500), (51, 100, 3000), (26, 100, 1000), (101, 100, 3000)):
        assert number_of_files([size] * 3000, [True] * 3000, most) == count
    assert len(dealt) <= 4


@given(MODULES, st.integers(3, 60))
def test_compressed_modules_that_follow_each_other_are_apart(drawn: list[tuple[int, bool]], count: int) -> None:
    parts = deal([size for size, _ in drawn], [each for _, each in drawn], count)
    in_turn = [part for part, (_, compressed) in zip(parts, drawn) if compressed]
    assert all(first != second for first, second in pairwise(in_turn))


@pytest.mark.parametrize("count", [1, 2, 5, 64])
def test_modules_of_one_size_go_round(count: int) -> None:
    assert deal([7] * 64, [True] * 64, count) == [number % count for number in range(64)]


# Bytes of Qwen3-8B's modules at TP 1, as its recipe leaves them; norms and scalars are a few kilobytes.
_EMBEDDING = 151936 * 4096 * 2
_LAYER = ((9_000, False), (6144 * 4096, True), (4096 * 4096, True), (9_000, False), (24576 * 4096, True))
QWEN3_8B = [
    (_EMBEDDING, False),
    *(module for layer in range(36) for module in (*_LAYER, (12288 * 4096 * (2 if layer < 6 else 1), layer >= 6))),
    (8_200, False),
    (_EMBEDDING, False),
]


def test_a_whole_model_in_files_of_the_default_size() -> None:
    """Either table is larger than that and alone; 64 workers write to all of the others nearly evenly."""
    sizes, compressed = [size for size, _ in QWEN3_8B], [each for _, each in QWEN3_8B]
    count = number_of_files(sizes, compressed, DEFAULT_FILE_BYTES)
    parts = deal(sizes, compressed, count)
    assert count <= -(-sum(sizes) // DEFAULT_FILE_BYTES) + 2
    alone = {parts[0], parts[-1]}
    assert len(alone) == 2 and all(parts.count(part) == 1 for part in alone)
    in_turn = [(parts[n], size) for n, size in enumerate(sizes) if compressed[n]]
    for first in range(len(in_turn) - 64):
        busy = [sum(size for part, size in in_turn[first : first + 64] if part == number) for number in range(count)]
        assert max(busy) < 1.6 * sum(busy) / (count - len(alone))


def test_files_are_as_many_as_a_journal_says_unless_a_size_is_given(tiny: Path) -> None:
    (made,) = plan(tiny)
    count = split_of(made, MOST_BYTES).count
    assert split_of(made, None).count == 1
    assert split_of(made, None, {}).count == 1
    assert split_of(made, None, {"files_per_rank": 2}).count == 2
    assert split_of(made, MOST_BYTES, {"files_per_rank": 2}).count == count
    for nonsense in (0, -1, True, "2", 10**9, None):
        assert split_of(made, None, {"files_per_rank": nonsense}).count == 1


# ------------------------------------------------------------------------------------------------- the same tensors


@pytest.mark.parametrize("tp", [1, 2])
def test_tensors_are_those_of_one_file(tp: int, sealed: Callable[[int], Path], in_parts: Callable[[int], Path]) -> None:
    folder = in_parts(tp)
    sizes = {path.name: path.stat().st_size for path in folder.glob("model-rank-*")}
    count = len(sizes) // tp
    assert sorted(sizes) == sorted(f"model-rank-{r}-part-{p}.safetensors" for r in range(tp) for p in range(count))
    assert count >= 3
    for rank in range(tp):
        one, several = by_name(sealed(tp), rank), by_name(folder, rank)
        assert one.keys() == several.keys()
        for name, values in one.items():
            np.testing.assert_array_equal(several[name], values, err_msg=name)
    manifest = manifest_file.load(folder)
    assert manifest is not None
    assert (manifest.format_version, manifest.files_per_rank) == (2, count)
    for file in manifest.rank_files:
        assert file.size <= MOST_BYTES or len({t.name.rpartition(".")[0] for t in file.tensors}) == 1
    assert manifest.rank_bytes == [sum(s for n, s in sizes.items() if f"rank-{r}-" in n) for r in range(tp)]


def test_a_module_is_in_one_file(in_parts: Callable[[int], Path]) -> None:
    manifest = manifest_file.load(in_parts(2))
    assert manifest is not None
    tensors = [(file.rank, tensor.name, file.file) for file in manifest.rank_files for tensor in file.tensors]
    files = {(rank, name.rpartition(".")[0], file) for rank, name, file in tensors}
    assert len(files) == len({(rank, module) for rank, module, _ in files})


@pytest.mark.slow
def test_files_do_not_depend_on_processes(tiny: Path, in_parts: Callable[[int], Path], tmp_path: Path) -> None:
    (result,) = compress(tiny, tmp_path, tp=2, name="Tiny", processes=1, max_file_size="3MB", verify=False)
    assert digests(result.directory) == digests(in_parts(2))


# ----------------------------------------------------------------------------------------------- what is there already


def test_going_on_in_as_many_files(tiny: Path, in_parts: Callable[[int], Path], tmp_path: Path) -> None:
    """Without a size, and with the one that it was begun with; another one is refused."""
    begin = {"tp": [2], "name": "Tiny", "processes": 1}
    with pytest.raises(Stopped):
        compress(tiny, tmp_path, **begin, max_file_size=MOST_BYTES, progress=Watch(0.6))  # type: ignore[arg-type]
    count = len(list(in_parts(2).glob("model-rank-0-*")))
    with pytest.raises(InputError, match=rf"files_per_rank was {count}, now it is 1;.*resume=False"):
        compress(tiny, tmp_path, **begin, max_file_size="1GB")  # type: ignore[arg-type]
    watch = Watch()
    (result,) = compress(tiny, tmp_path, tp=2, name="Tiny", processes=2, progress=watch)
    assert watch.stages["checking what an earlier run made"] > 0
    assert digests(result.directory) == digests(in_parts(2))


def test_going_on_with_what_was_begun_in_one_file(
    tiny: Path, sealed: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a version that made nothing else, and does not say how many files there are."""
    with monkeypatch.context() as older:
        expected = draft.expected_head

        def without(*arguments: Any) -> dict[str, Any]:
            return {key: value for key, value in expected(*arguments).items() if key != "files_per_rank"}

        older.setattr(conversion, "expected_head", without)
        stop(tiny, tmp_path, 0.6, [2])
    with pytest.raises(InputError, match=r"files_per_rank was 1, now it is \d"):
        compress(tiny, tmp_path, tp=2, name="Tiny", processes=1, max_file_size=MOST_BYTES)
    monkeypatch.setattr(parts, "DEFAULT_FILE_BYTES", MOST_BYTES)
    (result,) = compress(tiny, tmp_path, tp=2, name="Tiny", processes=2)
    assert digests(result.directory) == digests(sealed(2))


@pytest.mark.slow
def test_a_lost_file_of_unfinished_work_means_afresh(
    tiny: Path, in_parts: Callable[[int], Path], tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        compress(tiny, tmp_path, tp=2, name="Tiny", processes=1, max_file_size=MOST_BYTES, progress=Watch(0.6))
    target = target_folder(tmp_path, "Tiny", 2)
    (target.with_name(f"{target.name}.partial") / "model-rank-1-part-2.safetensors").unlink()
    watch = Watch()
    (result,) = compress(tiny, tmp_path, tp=2, name="Tiny", processes=2, progress=watch)
    assert any("made afresh" in note for note in watch.notes)
    assert digests(result.directory) == digests(in_parts(2))


@pytest.mark.parametrize("several", [False, True])
def test_what_is_done_is_done_whatever_its_files_unless_a_size_is_given(
    several: bool, tiny: Path, sealed: Callable[[int], Path], in_parts: Callable[[int], Path], tmp_path: Path
) -> None:
    target = target_folder(tmp_path, "Tiny", 2)
    target.parent.mkdir(parents=True)
    shutil.copytree((in_parts if several else sealed)(2), target)
    same, other = (MOST_BYTES, "1GB") if several else ("1GB", MOST_BYTES)
    for size in (None, same):
        (result,) = compress(tiny, tmp_path, tp=2, name="Tiny", processes=1, max_file_size=size)
        assert result.already_done
    message = r"with \d+ files per rank, not 1" if several else r"with 1 file per rank, not \d"
    with pytest.raises(InputError, match=rf"exists already, made by w8a8sc .*{message}"):
        compress(tiny, tmp_path, tp=2, name="Tiny", processes=1, max_file_size=other)


def test_more_files_than_may_be_open_are_refused(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "most_open_files", lambda: 16)
    plan(tiny, tmp_path, processes=1)
    with pytest.raises(InputError, match=r"\d+ rank files .* may open 12, .*: .*ulimit.* larger max_file_size"):
        plan(tiny, tmp_path, processes=1, max_file_size=1)


# -------------------------------------------------------------------------------------------------------- its readers


def test_from_several_files_to_one_and_back(
    sealed: Callable[[int], Path], in_parts: Callable[[int], Path], tmp_path: Path
) -> None:
    (one,) = reshard(in_parts(2), tmp_path / "one", tp=1, processes=2)
    assert digests(one.directory) == digests(sealed(1))
    (several,) = reshard(sealed(1), tmp_path / "several", tp=2, processes=2, max_file_size=MOST_BYTES)
    assert digests(several.directory) == digests(in_parts(2))
    assert digests(to_checkpoint(in_parts(2), tmp_path)) == digests(to_checkpoint(sealed(2), tmp_path / "other"))


def test_verified_and_compared(tiny: Path, sealed: Callable[[int], Path], in_parts: Callable[[int], Path]) -> None:
    report = verify(in_parts(2), source=tiny, processes=2)
    assert report.ok and report.tensors == verify(sealed(2), quick=True).tensors
    comparison = compare(sealed(2), in_parts(2), processes=2)
    assert not comparison.differences and comparison.same_bytes


def test_what_is_said_of_it_is_what_is_said_of_one_file(
    sealed: Callable[[int], Path], in_parts: Callable[[int], Path]
) -> None:
    one, several = inspect(sealed(2)), inspect(in_parts(2))
    assert by_module(one) == by_module(several) and one.ranks == several.ranks
    assert several.files > one.files
    assert [e.document() for e in fit(sealed(2))] == [e.document() for e in fit(in_parts(2))]
    for rank in range(2):
        with Shard.open(sealed(2), rank, 2) as first, Shard.open(in_parts(2), rank, 2) as second:
            assert first.hashes == second.hashes
            pieces = {name: bytes(piece) for name, offset, piece in first.pieces("hashes") if offset == 0}
            assert {name: bytes(piece) for name, offset, piece in second.pieces("hashes") if offset == 0} == pieces


def test_a_model_card_counts_all_of_a_ranks_files(in_parts: Callable[[int], Path], tmp_path: Path) -> None:
    folder = in_parts(2)
    tree = tmp_path / folder.parents[1].name
    shutil.copytree(folder, tree / "TP2" / folder.name)
    (size,) = card(tree, base_model="acme/tiny", license="mit").sizes
    assert size.largest_rank == max(
        sum(path.stat().st_size for path in folder.glob(f"model-rank-{rank}-*")) for rank in range(2)
    )


PART_0, PART_1 = (f"model-rank-0-part-{part}.safetensors" for part in (0, 1))


def _swapped(folder: Path) -> None:
    (folder / PART_0).rename(folder / "x")
    (folder / PART_1).rename(folder / PART_0)
    (folder / "x").rename(folder / PART_1)


def _flipped(folder: Path) -> None:
    with (folder / PART_1).open("r+b") as file:
        file.seek(-100, 2)
        byte = file.read(1)
        file.seek(-100, 2)
        file.write(bytes([byte[0] ^ 1]))


DAMAGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "missing": (lambda folder: (folder / PART_1).unlink(), "file is missing", "lists it, it is missing"),
    "swapped": (_swapped, "header is not the one", "not the file that the manifest lists"),
    "twice": (lambda f: shutil.copy(f / PART_0, f / PART_1), "is in two parts", "not the file that the manifest lists"),
    "extra": (
        lambda f: shutil.copy(f / PART_1, f / "model-rank-0-part-99.safetensors"),
        "does not belong to the sealed directory",
        "does not list this file",
    ),
    "of another rank": (
        lambda f: shutil.copy(f / PART_1.replace("rank-0", "rank-1"), f / PART_1),
        "bytes, the manifest lists",
        "not the file that the manifest lists",
    ),
}


@pytest.mark.parametrize(("damage", "found", "refused"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_files_are_found_and_refused(
    damage: Callable[[Path], object], found: str, refused: str, in_parts: Callable[[int], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(in_parts(2), tmp_path / "copy"))
    damage(folder)
    report = verify(folder, quick=True)
    assert any(found in finding.message for finding in report.findings), report.findings
    with pytest.raises(InputError, match=refused):
        Shard.open(folder, 0, 2)
    with ShardedState.open(folder) as state, pytest.raises(InputError, match=refused):
        state.check_files()
    with pytest.raises(InputError):
        reshard(folder, tmp_path, tp=1, processes=1)


def test_a_bit_is_found_in_any_file(in_parts: Callable[[int], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(in_parts(2), tmp_path / "copy"))
    _flipped(folder)
    findings = verify(folder, processes=2).findings
    assert findings and all(str(folder / PART_1) in finding.where for finding in findings)
    with Shard.open(folder, 0, 2) as shard, pytest.raises(InputError, match=r"damaged \(its hash"):
        list(shard.pieces("hashes"))


def test_without_a_manifest_a_missing_file_is_missing_tensors(in_parts: Callable[[int], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(in_parts(2), tmp_path / "copy"))
    (folder / manifest_file.NAME).unlink()
    assert verify(folder, processes=2).ok
    (folder / PART_1).unlink()
    findings = verify(folder, quick=True).findings
    assert findings and all(" is missing" in finding.message for finding in findings)
    assert {finding.where for finding in findings} == {str(folder / "model-rank-0-part-*.safetensors")}
