"""Before the work: the dry run refuses what the run refuses; what another version made is taken for what it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from w8a8sc_tool import codec
from w8a8sc_tool.cli.main import run
from w8a8sc_tool.conversion import draft
from w8a8sc_tool.conversion.convert import target_folder
from w8a8sc_tool.errors import InputError, W8A8SCError
from w8a8sc_tool.io import reading
from w8a8sc_tool.jobs.compress import compress, plan
from w8a8sc_tool.jobs.reshard import reshard
from w8a8sc_tool.sharded_state import Manifest
from w8a8sc_tool.sharded_state import manifest as manifest_file

from ..jobs.test_compress import digests
from .test_resume import Watch, record_everything, stop

__all__ = ["record_everything"]  # a fixture that every test here has, too


def _file_in_the_way(output: Path) -> None:
    target = target_folder(output, "Tiny", 2)
    target.parent.mkdir(parents=True)
    target.write_text("")


def _folder_in_the_way(output: Path) -> None:
    target_folder(output, "Tiny", 2).mkdir(parents=True)


def _nothing(output: Path) -> None: ...


REFUSED: list[tuple[str, Callable[[Path], object], dict[str, Any]]] = [
    ("a backend that is not installed", _nothing, {"backend": "msmodelslim"}),
    ("a backend that does not exist", _nothing, {"backend": "other"}),
    ("an executor that is not there", _nothing, {"executor": "/nowhere/executor"}),
    ("a name that is a path", _nothing, {"name": "a/b"}),
    ("an empty name", _nothing, {"name": ""}),
    ("no processes", _nothing, {"processes": 0}),
    ("a size that does not divide", _nothing, {"tp": 3}),
    ("a size twice", _nothing, {"tp": [2, 2]}),
    ("a ratio of 1", _nothing, {"max_ratio": 1.0}),
    ("a release that does not exist", _nothing, {"target": "0.30"}),
    ("a preset that is not there", _nothing, {"preset": "nowhere.yaml"}),
    ("a pattern that fits nothing", _nothing, {"keep": "*.experts.*"}),
    ("a file in the way", _file_in_the_way, {"overwrite": True}),
    ("a folder in the way", _folder_in_the_way, {}),
    ("an output that is a file", lambda output: output.write_text(""), {}),
]


@pytest.mark.parametrize(("arrange", "options"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_the_dry_run_refuses_what_the_run_refuses(
    arrange: Callable[[Path], object], options: dict[str, Any], tiny: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    arrange(output)
    before = sorted(tmp_path.rglob("*"))
    refusals = []
    for attempt in (plan, compress):
        with pytest.raises(W8A8SCError) as refusal:
            attempt(tiny, output, **{"tp": 2, "name": "Tiny", **options})
        refusals.append((refusal.type, str(refusal.value)))
    assert refusals[0] == refusals[1]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "more",
    [["--backend", "msmodelslim"], ["--name", "a/b"], ["--tp", "3"], []],
    ids=["backend", "name", "size", "in the way"],
)
def test_the_same_on_the_command_line(
    more: list[str], tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _folder_in_the_way(tmp_path)
    command = ["compress", str(tiny), "-o", str(tmp_path), "--tp", "2", "--name", "Tiny", *more]
    codes, texts = [], []
    for words in (command, [*command, "--dry-run"]):
        codes.append(run(words))
        texts.append(capsys.readouterr().err)
    assert codes[0] == codes[1] != 0
    assert texts[0] == texts[1]


def test_no_room_is_refused_by_both(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "free_bytes", lambda folder: 1_000_000)
    for attempt in (plan, compress):
        with pytest.raises(InputError, match=r"MB more are needed, with a margin of .* 1\.0 MB are free.*make room"):
            attempt(tiny, tmp_path)
    assert not list(tmp_path.iterdir())


def test_unfinished_work_of_another_kind_is_refused_by_both(tiny: Path, tmp_path: Path) -> None:
    partial = stop(tiny, tmp_path, 0.5, [2])
    before = digests(partial)
    for attempt in (plan, compress):
        with pytest.raises(InputError, match=r"begun by w8a8sc .0\.\d.*options was"):
            attempt(tiny, tmp_path, tp=2, name="Tiny", max_ratio=0.9)
    plan(tiny, tmp_path, tp=2, name="Tiny")
    plan(tiny, tmp_path, tp=2, name="Tiny", max_ratio=0.9, resume=False)
    assert digests(partial) == before


def test_what_is_done_already_is_said_by_the_dry_run(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (result,) = compress(tiny, tmp_path, tp=2, name="Tiny", processes=1)
    command = ["compress", str(tiny), "-o", str(tmp_path), "--tp", "2", "--tp", "1", "--name", "Tiny", "--dry-run"]
    assert run([*command, "--json"]) == 0
    done, new = json.loads(capsys.readouterr().out)
    assert (done["directory"], done["already_done"]) == (str(result.directory), True)
    assert (new["tensor_parallel_size"], new["already_done"]) == (1, False)
    assert run(command) == 0
    assert f"already done: {result.directory}" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------ versions


def _rewritten(directory: Path, **changes: Any) -> None:
    """The directory as a program of another version would have left it."""
    manifest = manifest_file.load(directory)
    assert manifest is not None
    content = {name: getattr(manifest, name) for name in Manifest.__struct_fields__}
    (directory / manifest_file.NAME).write_bytes(Manifest(**{**content, **changes}).to_bytes())


@pytest.fixture
def made(tiny: Path, sealed: Callable[[int], Path], tmp_path: Path) -> Path:
    """A directory in its place below tmp_path."""
    target = target_folder(tmp_path, "Tiny", 2)
    target.parent.mkdir(parents=True)
    return Path(shutil.copytree(sealed(2), target))


@pytest.mark.parametrize("version", ["0.0.9", "7.0"])
def test_another_version_of_the_tool_changes_nothing(version: str, made: Path, tiny: Path, tmp_path: Path) -> None:
    _rewritten(made, tool_version=version)
    before = digests(made)
    (result,) = compress(tiny, tmp_path, tp=2, name="Tiny", processes=1)
    assert result.already_done and result.manifest.tool_version == version
    assert digests(made) == before


def test_options_that_a_manifest_does_not_name_have_their_defaults(made: Path, tiny: Path, tmp_path: Path) -> None:
    manifest = manifest_file.load(made)
    assert manifest is not None
    _rewritten(made, options={key: value for key, value in manifest.options.items() if key != "backend"})
    (result,) = compress(tiny, tmp_path, tp=2, name="Tiny", processes=1)
    assert result.already_done


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codec_version": 2}, r"made by w8a8sc 7\.0 \(this is .*\) with version 2 of the codec, not 1"),
        ({"source": "blake3:" + "1" * 64}, r"made by w8a8sc 7\.0 \(this is .*\) of another checkpoint"),
        ({"options": {"max_ratio": 0.9}}, r"made by w8a8sc 7\.0 \(this is .*\) with other options \(max_ratio 0\.9\)"),
        ({"format_version": manifest_file.FORMATS[-1] + 1}, r"exists already \(manifest format 3, of w8a8sc '7\.0'"),
        ({"options": {"target": "0.30"}}, r"exists already \(was made for vLLM Ascend '0\.30'"),
    ],
)
def test_where_it_must_refuse_it_says_who_made_it(
    changes: dict[str, Any], message: str, made: Path, tiny: Path, tmp_path: Path
) -> None:
    _rewritten(made, tool_version="7.0", **changes)
    with pytest.raises(InputError, match=message):
        compress(tiny, tmp_path, tp=2, name="Tiny", processes=1)


def test_unfinished_work_of_another_version_is_gone_on_with(
    tiny: Path, sealed: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(draft, "VERSION", "0.0.9")
        stop(tiny, tmp_path, 0.6, [2])
    watch = Watch()
    (result,) = compress(tiny, tmp_path, tp=2, name="Tiny", processes=1, progress=watch)
    assert watch.stages["checking what an earlier run made"] > 0
    assert digests(result.directory) == digests(sealed(2))


def test_unfinished_work_of_another_codec_says_who_began_it(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(draft, "VERSION", "7.0")
        newer.setattr(codec, "CODEC_VERSION", 2)
        stop(tiny, tmp_path, 0.6, [2])
    with pytest.raises(InputError, match=r'begun by w8a8sc "7\.0" \(this is .*codec_version was 2, now it is 1'):
        compress(tiny, tmp_path, tp=2, name="Tiny", processes=1)


def test_sealed_by_another_version_and_not_put_in_place(
    tiny: Path, sealed: Callable[[int], Path], tmp_path: Path
) -> None:
    target = target_folder(tmp_path, "Tiny", 2)
    partial = target.with_name(target.name + ".partial")
    target.parent.mkdir(parents=True)
    shutil.copytree(sealed(2), partial)
    _rewritten(partial, tool_version="0.0.9")
    watch = Watch()
    (result,) = compress(tiny, tmp_path, tp=2, name="Tiny", processes=1, progress=watch)
    assert "compressing" not in watch.stages
    assert result.manifest.tool_version == "0.0.9"


def test_resharding_is_prepared_alike(made: Path, tmp_path: Path) -> None:
    _rewritten(made, tool_version="0.0.9")
    (again,) = reshard(made, tmp_path, tp=2, processes=1)
    assert again.already_done
    _folder_in_the_way(tmp_path / "other")
    with pytest.raises(InputError, match="exists already, without a manifest"):
        reshard(made, tmp_path / "other", tp=2, processes=1)
