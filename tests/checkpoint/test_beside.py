"""What lies beside the weights: what comes along, what is left out and named, and what is not what it seems."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from w8a8sc_tool.checking.verify import verify
from w8a8sc_tool.checkpoint import Checkpoint
from w8a8sc_tool.checkpoint import beside as rules
from w8a8sc_tool.errors import InputError
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.jobs.reshard import reshard, to_checkpoint
from w8a8sc_tool.layouts import ARCHITECTURES
from w8a8sc_tool.sharded_state import manifest as manifest_file
from w8a8sc_tool.sharded_state.manifest import Manifest

from .. import tensors
from ..conftest import edit_json, writable_copy
from .test_open import split

WEIGHTS = "quant_model_weight_w8a8s.safetensors"
DESCRIPTION = "quant_model_description.json"
POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


def opened(folder: Path) -> Checkpoint:
    return Checkpoint.open(folder, ARCHITECTURES)


def names(folder: Path) -> set[str]:
    return {file.name for file in opened(folder).side_files}


def put(path: Path, text: str = "{}") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def with_folders(checkpoint: Path) -> Path:
    """With a folder of templates beside the default one, and a rotation that the description names."""
    put(checkpoint / "chat_template.jinja", "{{ messages[0].content }}")
    put(checkpoint / "additional_chat_templates" / "tool_use.jinja", "{{ messages[0].content }}")
    put(checkpoint / "chat_template.jinja", "{{ messages[-1].content }}")
    (checkpoint / "optional").mkdir()
    tensors.write(checkpoint / "optional" / "turn.safetensors", {"r": ("F32", [1], bytes(4))})
    optional = {"turn": {"rotation_map": {"global_rotation": "optional/turn.safetensors"}}}
    edit_json(checkpoint / DESCRIPTION, lambda content: content.update(optional=optional))
    return checkpoint


@pytest.fixture
def full(tiny_copy: Path) -> Path:
    return with_folders(tiny_copy)


@pytest.fixture(scope="module")
def sealed_full(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sealed directory of such a checkpoint. Read only."""
    folder = tmp_path_factory.mktemp("full")
    (result,) = compress(with_folders(writable_copy(tiny, folder / tiny.name)), folder / "out", processes=1)
    assert verify(result.directory).ok
    return result.directory


def test_folders_come_along_through_every_conversion(full: Path, tmp_path: Path) -> None:
    wanted = {name: (full / name).read_bytes() for name in names(full)}
    assert {"additional_chat_templates/tool_use.jinja", "optional/turn.safetensors"} < set(wanted)
    assert opened(full).warnings == []
    (first,) = compress(full, tmp_path / "first", processes=1)
    (second,) = reshard(first.directory, tmp_path / "second", tp=[2], processes=1)
    back = to_checkpoint(second.directory, tmp_path / "back")
    for result in (first.directory, second.directory, back):
        assert {name: (result / name).read_bytes() for name in names(full)} == wanted
    for made in (first, second):
        assert verify(made.directory, source=full).ok
        assert set(wanted) < {file.file for file in made.manifest.files}
    assert names(back) == set(wanted)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: put(folder / "additional_chat_templates" / "tool_use.jinja", "x" * 25), "hash differs"),
        (lambda folder: put(folder / "additional_chat_templates" / "more.jinja"), "more.jinja.*does not belong"),
        (lambda folder: (folder / "optional" / "turn.safetensors").unlink(), "turn.safetensors.*missing"),
        (lambda folder: (folder / "empty").mkdir(), "empty.*does not belong"),
        (lambda folder: put(folder / "optional" / "deep" / "x"), "deep.*does not belong"),
        (lambda folder: put(folder / "tokenizer.json", POINTER), "tokenizer.json.*Git LFS pointer"),
    ],
)
def test_damage_in_folders_is_found(damage: Any, message: str, sealed_full: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(sealed_full, tmp_path / sealed_full.name))
    damage(directory)
    text = "\n".join(f"{finding.where}: {finding.message}" for finding in verify(directory).findings)
    assert re.search(message, text), text


def test_a_linked_folder_in_a_sealed_directory(sealed_full: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(sealed_full, tmp_path / sealed_full.name))
    (directory / "optional").rename(tmp_path / "elsewhere")
    (directory / "optional").symlink_to(tmp_path / "elsewhere")
    assert not verify(directory).ok


def test_what_is_left_out_is_named(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = names(tiny_copy)
    put(tiny_copy / "original" / "consolidated.pth")
    put(tiny_copy / "original" / "params.json")
    put(tiny_copy / "model.gguf")
    put(tiny_copy / "notes" / "deep" / "x.txt")
    put(tiny_copy / "notes" / "kept.txt")
    put(tiny_copy / "large" / "x.txt", "x" * 2000)
    for number in range(3):
        put(tiny_copy / "many" / str(number))
    os.mkfifo(tiny_copy / "pipe")
    (tiny_copy / "nothing").symlink_to("nowhere")
    put(tiny_copy / "huge.txt", "x" * 3000)
    monkeypatch.setattr(rules, "_LARGEST_FOLDER", 1999)
    monkeypatch.setattr(rules, "_MOST_FILES", 2)
    monkeypatch.setattr(rules, "_LARGEST_FILE", 30_000_000)
    os.truncate(tiny_copy / "huge.txt", 30_000_001)
    assert names(tiny_copy) == before | {"notes/kept.txt"}
    (note,) = opened(tiny_copy).warnings
    for name in ("original (it holds weights)", "model.gguf", "notes/deep", "large (", "many (", "pipe (", "nothing ("):
        assert name in note
    assert "huge.txt (larger" in note


def test_hidden_files_are_nobodys(tiny_copy: Path, tmp_path: Path) -> None:
    """macOS puts a ._ file beside every file, downloads a .cache, git its own."""
    before = names(tiny_copy)
    split(tiny_copy)
    (result,) = compress(tiny_copy, tmp_path / "out", processes=1)
    for folder in (tiny_copy, result.directory):
        for path in list(folder.iterdir()):
            (folder / f"._{path.name}").write_bytes(b"\x00\x05\x16\x07" + bytes(4092))
        put(folder / ".cache" / "huggingface" / "x.lock")
        put(folder / ".gitattributes")
    assert names(tiny_copy) == before
    assert opened(tiny_copy).warnings == []
    assert verify(result.directory, source=tiny_copy).ok


@pytest.mark.parametrize(
    "name", ["../secret.json", "/etc/passwd", "a/../../x.json", "a//b.json", "a/b/c.json", "./x.json"]
)
def test_the_description_names_nothing_outside(name: str, tiny_copy: Path, tmp_path: Path) -> None:
    put(tmp_path / "secret.json")
    put(tiny_copy / "a" / "b" / "c.json")
    before = names(tiny_copy)
    edit_json(tiny_copy / DESCRIPTION, lambda content: content.update(optional={"x": [name]}))
    assert names(tiny_copy) == before
    assert any(repr(name) in note and "cannot be taken along" in note for note in opened(tiny_copy).warnings)


@pytest.mark.parametrize(
    "name", ["config.json", DESCRIPTION, "model-rank-0-part-0.safetensors", "w8a8sc_manifest.json"]
)
def test_the_description_names_nothing_of_the_outputs_own(name: str, tiny_copy: Path, tmp_path: Path) -> None:
    edit_json(tiny_copy / DESCRIPTION, lambda content: content.update(optional=[name]))
    assert name not in names(tiny_copy)


def test_what_the_description_names_is_no_weight(tiny_copy: Path) -> None:
    tensors.write(tiny_copy / "turn.safetensors", {"r": ("F32", [1], bytes(4))})
    with pytest.raises(InputError, match="two checkpoints"):
        opened(tiny_copy)
    edit_json(
        tiny_copy / DESCRIPTION, lambda c: c.update(optional={"r": "turn.safetensors", "s": "gone/x.safetensors"})
    )
    assert "turn.safetensors" in names(tiny_copy)
    (note,) = opened(tiny_copy).warnings
    assert "'gone/x.safetensors', which is not there" in note


def test_the_float_models_index(tiny_copy: Path) -> None:
    """Copied along or left from before: it is named, with what it misses and what to do."""
    stale = tiny_copy / "model.safetensors.index.json"
    files = [f"model-0000{number}-of-00005.safetensors" for number in range(1, 6)]
    stale.write_text(json.dumps({"weight_map": {f"t{number}": file for number, file in enumerate(files)}}))
    message = rf"names 5 files that are not here: {files[0]}, .* and 2 more, {stale}: .*remove it.*quant_model_weight"
    with pytest.raises(InputError, match=message):
        opened(tiny_copy)
    split(tiny_copy)
    with pytest.raises(InputError, match=message) as error:
        opened(tiny_copy)
    assert len(error.value.problems) == 1
    stale.unlink()
    opened(tiny_copy)


@pytest.mark.parametrize("name", ["config.json", DESCRIPTION, WEIGHTS, "index"])
def test_a_git_lfs_pointer_is_called_that(name: str, tiny_copy: Path) -> None:
    """Nothing can be made without these files."""
    if name == "index":
        split(tiny_copy)
        name = "quant_model_weight_w8a8s.safetensors.index.json"
    put(tiny_copy / name, POINTER)
    with pytest.raises(InputError, match=rf"Git LFS pointer.*{name}.*git lfs pull") as error:
        opened(tiny_copy)
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("name", ["tokenizer.json", "generation_config.json", "extra/x.jinja"])
def test_a_pointer_in_place_of_a_side_file_is_named(name: str, tiny_copy: Path) -> None:
    """The weights can be converted all the same, and the file be fetched afterwards."""
    path = put(tiny_copy / name, POINTER)
    (note,) = opened(tiny_copy).warnings
    assert note.startswith(f"{path} is a Git LFS pointer, not the file itself: fetch it")
    (result,) = compress(tiny_copy, tiny_copy.with_name("out"), processes=1)
    assert (result.directory / name).read_text() == POINTER


def test_pointers_in_a_directory(sealed_copy: Path) -> None:
    put(sealed_copy / "model-rank-0-part-0.safetensors", POINTER)
    assert any("Git LFS pointer" in finding.message for finding in verify(sealed_copy).findings)
    put(sealed_copy / "w8a8sc_manifest.json", POINTER)
    assert any("Git LFS pointer" in finding.message for finding in verify(sealed_copy).findings)


def test_a_manifest_that_names_files_elsewhere_brings_none(full: Path, tmp_path: Path) -> None:
    """Resealed by somebody: what is copied is what lies in the folder."""
    (result,) = compress(full, tmp_path / "out", processes=1)
    path = result.directory / manifest_file.NAME
    manifest = manifest_file.load(result.directory)
    assert manifest is not None
    put(tmp_path / "secret.json")
    entry = manifest.files[0].__class__("../secret.json", 2, "x")
    hostile: Manifest = msgspec.structs.replace(manifest, files=[*manifest.files, entry])
    path.write_bytes(hostile.to_bytes())
    assert not verify(result.directory).ok
    with pytest.raises(InputError):
        reshard(result.directory, tmp_path / "again", tp=[2], processes=1)
