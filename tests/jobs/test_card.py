"""The model card: what stands in it, whose README is left alone, and names that would be more than names."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from w8a8sc_tool.cli.main import run
from w8a8sc_tool.conversion.convert import target_folder
from w8a8sc_tool.errors import InputError, UsageError
from w8a8sc_tool.jobs.card import Card, card
from w8a8sc_tool.jobs.card_origin import Origin
from w8a8sc_tool.jobs.card_text import escaped, fenced, render
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.jobs.serving import Advice
from w8a8sc_tool.layouts import UNCOMPRESSED

from ..architectures import make
from ..conftest import edit_json


def slow(*values: object) -> Any:
    """A case of a kind that others stand for in the default suite."""
    return pytest.param(*values, marks=pytest.mark.slow)


def directory(tree: Path, tp: int) -> Path:
    return tree / f"TP{tp}" / f"Tiny-w8a8sc-310-vllm-tp{tp}"


def tree_of(checkpoint: Path, output: Path, readme: str = "", license_text: str = "", name: str = "Tiny") -> Path:
    """A tree of one, of a checkpoint to which its publisher added these files."""
    for file, text in (("README.md", readme), ("LICENSE", license_text)):
        if text:
            (checkpoint / file).write_text(text)
    compress(checkpoint, output, tp=1, name=name, processes=1)
    return target_folder(output, name, 1).parents[1]


def metadata(text: str) -> dict[str, Any]:
    """The YAML on top, read by another reader than ours, with the rules of hubs: first line, to the next hyphens."""
    match = re.match(r"\A---\n(.*?)\n---\n", text, re.DOTALL)
    assert match
    content = yaml.safe_load(match[1])
    assert isinstance(content, dict)
    return content


def files_of(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_what_the_card_says(tree: Path) -> None:
    before = files_of(tree)
    made = card(tree, base_model="Qwen/Qwen3-8B", license="apache-2.0")
    assert files_of(tree) == before | {made.readme: files_of(tree)[made.readme]}  # and nothing else was written
    text = made.readme.read_text()
    assert text.startswith(made.text)
    assert metadata(text) == {
        "license": "apache-2.0",
        "base_model": ["Qwen/Qwen3-8B"],
        "base_model_relation": "quantized",
        "pipeline_tag": "text-generation",
        "tasks": ["text-generation"],
        "tags": ["w8a8sc", "ascend", "310p", "atlas-300i-duo", "vllm", "vllm-ascend"],
    }
    rows = [line.split(" | ") for line in text.splitlines() if re.match(r"\| \d+ \| \[", line)]
    assert len(rows) == 2
    for tp, row in zip((1, 2), rows):
        manifest = made.sizes[tp - 1].manifest
        sizes = [path.stat().st_size for path in directory(tree, tp).glob("model-rank-*")]
        compressed = sum(layer.quantization in UNCOMPRESSED for layer in manifest.layers)
        assert row[0] == f"| {tp}" and f"(TP{tp}/{directory(tree, tp).name})" in row[1]
        assert row[2].startswith(f"{max(sizes)} (")
        assert row[3] == f"{manifest.weight_ratio:.3f}" and row[4].startswith(
            f"{compressed} of {len(manifest.layers)}, "
        )
        assert row[5] == "3 source |"
        digest = json.loads((directory(tree, tp) / "w8a8sc_manifest.json").read_text())["digest"]
        assert f"`{digest}`" in text
        assert f"\nw8a8sc serve TP{tp}/{directory(tree, tp).name}\n" in text
        assert re.search(rf"vllm serve TP{tp}/\S+ .*--tensor-parallel-size {tp} .*--load_format sharded_state\n", text)
    assert "\nw8a8sc verify .\n" in text
    assert str(tree) not in text  # nothing of this machine


def test_the_card_is_found_whole_by_a_hubs_own_reader(tree: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    made = card(tree, base_model="Qwen/Qwen3-8B", license="mit")
    read = hub.ModelCard.load(made.readme)
    assert (read.data.base_model, read.data.license, read.data.pipeline_tag) == (
        ["Qwen/Qwen3-8B"],
        "mit",
        "text-generation",
    )


def test_what_a_tree_verifies_as_with_its_card(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the card says it: in this folder."""
    card(tree)
    monkeypatch.chdir(tree)
    assert run(["verify", ".", "--quick"]) == 0
    out = capsys.readouterr().out
    assert out.endswith(".: 2 directories, all verified\n") and "README" not in out


README = """---
license: other
license_name: tongyi-qianwen
license_link: https://example.org/LICENSE
language:
- en
- zh
base_model: Qwen/Qwen3-0.6B
pipeline_tag: text-generation
---
# A model
"""


def test_base_model_and_licence_are_carried_over(tiny_copy: Path, tmp_path: Path) -> None:
    tree = tree_of(tiny_copy, tmp_path, README, "A licence of our own.")
    made = card(tree)
    content = metadata(made.text)
    assert content["license"] == "other" and content["license_name"] == "tongyi-qianwen"
    assert content["license_link"] == "https://example.org/LICENSE"
    assert (content["base_model"], content["language"]) == (["Qwen/Qwen3-0.6B"], ["en", "zh"])
    assert f"[TP1/{directory(tree, 1).name}/LICENSE](TP1/{directory(tree, 1).name}/LICENSE)" in made.text
    assert any("base_model= says another" in warning for warning in made.warnings)
    mine = card(tree, base_model="me/mine", license="mit")
    assert (metadata(mine.text)["base_model"], metadata(mine.text)["license"]) == (["me/mine"], "mit")
    assert "license_name" not in metadata(mine.text)


APACHE = "\n                                 Apache License\n                           Version 2.0, January 2004\n"


@pytest.mark.parametrize(
    ("readme", "license_text", "license", "warning"),
    [
        ("", APACHE, "apache-2.0", "by LICENSE of the source"),
        slow("# no metadata\n---\nlicense: mit\n---\n", APACHE, "apache-2.0", "by LICENSE of the source"),
        ("", "All rights reserved.", "other", "by LICENSE of the source"),
        slow("---\nlicense: Apache License 2.0\n---\n", APACHE, "Apache License 2.0", "by README.md of the source"),
        (
            "---\nlicense: mit\n---\n",
            APACHE,
            "mit",
            "README.md of the source says licence mit, LICENSE reads like apache",
        ),
        slow("---\nlicense: no\n---\n", "", None, "the licence is not known: give license="),
        ("---\nlicense: [\n---\n", "", None, "the source's metadata is not used"),
        slow("---\nlicense: mit\nlicense: gpl\n---\n", "", None, "the source's metadata is not used"),
        slow("", "", None, "the licence is not known: give license="),
    ],
)
def test_the_licence(
    readme: str, license_text: str, license: str | None, warning: str, tiny_copy: Path, tmp_path: Path
) -> None:
    made = card(tree_of(tiny_copy, tmp_path, readme, license_text))
    assert made.license == license == metadata(made.text).get("license")
    assert any(warning in line for line in made.warnings)


@pytest.mark.parametrize(
    ("name", "known"), [("Qwen/Qwen3-8B", True), ("/data/Qwen3", False), slow("../x/y", False), slow(7, False)]
)
def test_a_base_model_by_config(name: object, known: bool, tiny_copy: Path, tmp_path: Path) -> None:
    edit_json(tiny_copy / "config.json", lambda content: content.update(_name_or_path=name))
    made = card(tree_of(tiny_copy, tmp_path))
    assert made.base_model == ((name,) if known else ())
    assert any(("which may be a path" if known else "give base_model=") in warning for warning in made.warnings)


@pytest.mark.parametrize(("base_model", "license"), [("Qwen3", None), ("a/b](x", None), (None, "mit\nx: y")])
def test_words_that_hubs_do_not_take(base_model: str | None, license: str | None, tree: Path) -> None:
    with pytest.raises(UsageError):
        card(tree, base_model=base_model, license=license)
    assert not (tree / "README.md").exists()


def test_a_card_of_ours_is_written_anew_and_no_other_readme(tree: Path) -> None:
    first = card(tree).readme.read_bytes()
    assert b"Qwen/Qwen3-8B" in card(tree, base_model="Qwen/Qwen3-8B").readme.read_bytes()
    assert card(tree).readme.read_bytes() == first
    for text in (b"mine\n", first.replace(b"Ascend", b"ascend"), first + b"more\n", b"", b"x" * (5 << 20)):
        (tree / "README.md").write_bytes(text)
        with pytest.raises(InputError, match="overwrite=True"):
            card(tree)
        assert (tree / "README.md").read_bytes() == text
    assert card(tree, overwrite=True).readme.read_bytes() == first
    (tree / "README.md.partial").write_text("of a run that was killed")
    assert card(tree).readme.read_bytes() == first and not (tree / "README.md.partial").exists()


def test_what_is_in_the_place_of_a_card(tree: Path, tmp_path: Path) -> None:
    readme = tree / "README.md"
    aim = tmp_path / "elsewhere"
    aim.write_text("theirs")
    readme.symlink_to(aim)
    with pytest.raises(InputError, match="overwrite=True"):
        card(tree)
    card(tree, overwrite=True)
    assert not readme.is_symlink() and aim.read_text() == "theirs"
    readme.unlink()
    readme.mkdir()
    with pytest.raises(InputError, match="a folder is in the place"):
        card(tree, overwrite=True)


def cut(tree: Path) -> str:
    path = directory(tree, 2) / "model-rank-1-part-0.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    return str(path)


def lose_manifest(tree: Path) -> str:
    (directory(tree, 2) / "w8a8sc_manifest.json").unlink()
    return "there is no manifest"


def swap(tree: Path) -> str:
    directory(tree, 2).rename(tree / "TP1" / "two")
    return "its folder says TP 1"


def edit_readme_inside(tree: Path) -> str:
    (directory(tree, 1) / "README.md").write_text("---\nlicense: mit\n---\n")
    return "does not belong to the sealed directory"


def name_with_escapes(tree: Path) -> str:
    directory(tree, 2).rename(tree / "TP2" / "a\nb")
    return "has control characters"


@pytest.mark.parametrize("damage", [cut, lose_manifest, swap, edit_readme_inside, name_with_escapes])
def test_a_tree_that_may_not_be_handed_on(damage: Callable[[Path], str], tree: Path) -> None:
    text = damage(tree)
    with pytest.raises(InputError) as error:
        card(tree)
    assert text in str(error.value)
    assert not (tree / "README.md").exists()


def test_side_files_that_were_changed_are_not_believed(tiny_copy: Path, tmp_path: Path) -> None:
    """Without a change in size, which the quick verification does not see."""
    tree = tree_of(tiny_copy, tmp_path, "---\nlicense: mit\n---\n")
    path = directory(tree, 1) / "README.md"
    path.write_text(path.read_text().replace("mit", "gpl"))
    with pytest.raises(InputError, match="not those that the manifest lists"):
        card(tree)


def test_unfinished_and_foreign_folders_are_not_on_the_card(tree: Path) -> None:
    unfinished = tree / "TP4" / "Tiny-w8a8sc-310-vllm-tp4.partial"
    shutil.copytree(directory(tree, 1), unfinished)
    (tree / "notes").mkdir()
    made = card(tree)
    assert len(made.sizes) == 2 and "TP4" not in made.text and "notes" not in made.text
    assert [w for w in made.warnings if w.startswith("not on the card")] == [
        f"not on the card: {unfinished}: unfinished work, or what a replacement left",
        f"not on the card: {tree / 'notes'}: no sharded_state directory",
    ]


HOSTILE = "a|b`c```<script>alert(1)<,script>[x](javascript:y)*_$&www.x.org#"


def outside_of_code(card: Card) -> str:
    """What Markdown is made of the card's body: without fences, spans of code and escaped characters."""
    body = card.text.partition("\n---\n")[2]
    body = re.sub(r"^(`{3,})bash\n.*?^\1$", "", body, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", re.sub(r"\\[!-/:-@\[-`{-~]", "", body))


def test_names_that_mean_something_in_markdown(tiny_copy: Path, tmp_path: Path) -> None:
    readme = (
        '---\nlicense: "mit\\n---\\n# x"\nbase_model: ["a/b](x)", "<b>/c", Qwen/Qwen3-8B]\nlanguage: [en, "zh\\n"]\n'
        'pipeline_tag: "x: y"\nlicense_link: "javascript:x"\n---\n'
    )
    made = card(tree_of(tiny_copy, tmp_path, readme, name=HOSTILE))
    content = metadata(made.text)
    assert (content["base_model"], content["language"], content["tasks"]) == (
        ["Qwen/Qwen3-8B"],
        ["en"],
        ["text-generation"],
    )
    assert not {"license", "license_link", "license_name"} & set(content)
    text = outside_of_code(made)
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert targets and all(re.fullmatch(r"TP1/[\w%.~-]+", target) for target in targets)
    shown = re.sub(r"\]\([^)]*\)", "]", text).removesuffix("\n")
    assert "<" not in shown and "`" not in shown and "www." not in shown
    rows = [line for line in text.splitlines() if line.startswith("| 1 |")]
    assert len(rows) == 1 and rows[0].count("|") == 7
    assert made.text.count("````bash\n") == 1 and len(re.findall("^# ", shown, re.MULTILINE)) == 1
    (served,) = re.findall("^w8a8sc serve (.*)$", made.text, re.MULTILINE)
    assert shlex.split(served) == [str(made.sizes[0].path)]


@pytest.mark.parametrize(
    "text", ["a|b", "<i>", "[x](y)", "**a**", "`a`", "a\nb\u202ec", "&lt;", "www.x.org", "$x$", "http://x"]
)
def test_escaping(text: str) -> None:
    shown = escaped(text)
    assert "\n" not in shown and "\u202e" not in shown
    assert not re.search(r"(?<!\\)[|<>\[\]*`&$:]", shown) and "www." not in shown


def test_fences_are_longer_than_what_they_hold() -> None:
    assert fenced(["a"]) == ["```bash", "a", "```"]
    assert fenced(["a ```` b\n```"])[0] == "`````bash" and len(fenced(["a ```` b\n```"])) == 3


def test_a_tree_of_one_and_what_is_no_tree(tree: Path) -> None:
    shutil.rmtree(tree / "TP2")
    assert [item.tp for item in card(tree).sizes] == [1]
    for other in (directory(tree, 1), tree / "TP1", tree.parent):
        with pytest.raises(InputError, match="not a tree of sharded_state directories"):
            card(other)


def test_w8a8s_directories_have_a_card_too(tiny: Path, tmp_path: Path) -> None:
    compress(tiny, tmp_path, tp=1, compress=False, name="Tiny", processes=1)
    made = card(target_folder(tmp_path, "Tiny", 1, "w8a8s").parents[1])
    assert "# Tiny, W8A8S for Ascend 310P" in made.text and "none is compressed | 0 of " in made.text
    assert "compressed without loss" not in made.text


def test_what_reads_images(tmp_path: Path) -> None:
    compress(make("qwen3-vl tied", tmp_path), tmp_path, tp=1, name="Tiny", processes=1)
    made = card(target_folder(tmp_path, "Tiny", 1).parents[1])
    assert metadata(made.text)["pipeline_tag"] == "image-text-to-text" == metadata(made.text)["tasks"][0]


def test_sizes_that_differ(tree: Path) -> None:
    """One that no chip has room for; a layer that only one size leaves uncompressed."""
    first, second = card(tree).sizes
    layers = second.manifest.layers
    number = next(n for n, layer in enumerate(layers) if layer.quantization == "W8A8SC")
    name = layers[number].name
    changed = msgspec.structs.replace(layers[number], quantization="W8A8S", fallback="shape")
    manifest = msgspec.structs.replace(second.manifest, layers=[*layers[:number], changed, *layers[number + 1 :]])
    second = replace(second, manifest=manifest, advice=Advice(None, "the weights take 99 GB | of 44"))
    text = render([first, second], Origin(), "text-generation")
    assert f"- shape (the 310P kernel cannot take their size): {escaped(name)} (TP 2)\n" in text
    assert "### TP 2\n\nIt cannot be served on chips of the usual size: the weights take 99 GB \\| of 44.\n" in text
    assert "3 source |\n| 2 |" in text and "1 shape, 3 source |\n" in text
    assert "Base model: not stated by the source" in text


def test_the_command(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["card", str(tree), "--license", "mit"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == str(tree / "README.md") and "TP 2: TP2/Tiny-" in printed.out
    assert "note: the base model is not known: give --base-model" in printed.err
    (tree / "README.md").write_text("mine")
    assert run(["card", str(tree)]) == 3
    assert "give --overwrite to replace it" in capsys.readouterr().err
