"""The report: what stands in it, that names from files stay names, what is refused, and that no work is lost by it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from w8a8sc_tool import report
from w8a8sc_tool.cli.main import run
from w8a8sc_tool.conversion.convert import Compressed
from w8a8sc_tool.errors import InputError, MissingError, Problem, UsageError
from w8a8sc_tool.io.amounts import size
from w8a8sc_tool.jobs.batch import Outcome
from w8a8sc_tool.jobs.inspect import Inspection, ModuleRow, inspect
from w8a8sc_tool.reporting import report as job
from w8a8sc_tool.reporting.page import MARK, Content, labels_of, render
from w8a8sc_tool.reporting.subjects import Subject
from w8a8sc_tool.sharded_state import manifest as manifest_file

from .. import tensors
from ..conftest import edit_json

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


class Page(HTMLParser):
    """A page as a parser sees it: its elements, its ids, its text, and whether elements end where they should."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in {"meta", "link", "br"}:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def values(self, name: str) -> list[str]:
        return [value or "" for key, value in self.attributes if key == name]


def page_of(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def check_alone(page: Page) -> None:
    """It loads and runs nothing, every id is there once, and what refers to one finds it."""
    assert not {"script", "iframe", "img", "object", "embed", "form", "base", "image"} & set(page.tags)
    assert not [key for key, _ in page.attributes if key.startswith("on") or key in ("src", "srcset", "action")]
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = {value[1:] for value in page.values("href") if value != "data:,"}
    assert all(value.startswith("#") or value == "data:," for value in page.values("href"))
    clips = {re.fullmatch(r"url\(#(.+)\)", value)[1] for value in page.values("clip-path")}  # type: ignore[index]
    assert targets | clips <= set(ids)
    assert page.tags.count("h1") == 1 and "main" in page.tags and "en" in page.values("lang")


@pytest.fixture(scope="module")
def written(sealed: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two sizes side by side. Read only."""
    page = tmp_path_factory.mktemp("report") / "two.html"
    assert report([sealed(1), sealed(2)], page).exit_code == 0
    return page


def test_two_sizes_side_by_side(written: Path, sealed: Callable[[int], Path]) -> None:
    page = page_of(written)
    check_alone(page)
    for tp in (1, 2):
        manifest = manifest_file.load(sealed(tp))
        assert manifest is not None and manifest.weight_ratio is not None
        for text in (manifest.digest, manifest.source, f"{manifest.weight_ratio:.3f}", str(sealed(tp))):
            assert text in page.text, text
        for layer in manifest.layers:
            assert layer.fallback or f"{layer.ratio:.3f}" in page.text
            assert not layer.fallback or layer.name in page.text
        for total, (_, nbytes) in inspect(sealed(tp)).totals().items():
            assert total in page.text and size(nbytes) in page.text
    assert "the checkpoint holds them in another type" in page.text
    assert "Nothing wrong was found" in page.text and "not read by this report" in page.text
    assert "vllm serve" in page.text and f"w8a8sc serve {sealed(2)}" in page.text
    assert written.stat().st_size < 300_000


def test_the_same_report_again_replaces_it_and_leaves_nothing_beside(
    sealed: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run(["report", str(sealed(1))]) == 0
    name = f"{sealed(1).name}-report.html"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert f"{name}: " in capsys.readouterr().out


def test_a_directory_given_twice_is_shown_once(sealed: Callable[[int], Path], tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(sealed(2))
    assert len(report([sealed(2), link, os.path.relpath(sealed(2))], tmp_path / "x.html").subjects) == 1


def test_bytes_that_were_read(sealed: Callable[[int], Path], tiny: Path, tmp_path: Path) -> None:
    page = report(sealed(1), tmp_path / "r.html", source=tiny, processes=1)
    text = page_of(page.page).text
    assert page.ok and f"{tiny}: every tensor is what it becomes" in text and "not read by this report" not in text


def test_without_a_manifest_nothing_is_said_by_it(sealed_copy: Path, tmp_path: Path) -> None:
    """Neither that bytes are what it says, nor what they would be uncompressed, nor that they can be proved."""
    (sealed_copy / "w8a8sc_manifest.json").unlink()
    page = report(sealed_copy, tmp_path / "r.html", read=True, processes=1)
    text = page_of(page.page).text
    assert page.ok and "Every byte was read; without a manifest, not all of them can be proved" in text
    assert "what the manifest says" not in text and "prove every byte" not in text and "% less" not in text
    assert "the same uncompressed not known" in text


def test_commands_are_whole(sealed: Callable[[int], Path], tmp_path: Path) -> None:
    """However long they are: of other texts so long the middle is left out."""
    folder = tmp_path / ("<b>" + "long-" * 40)
    folder.symlink_to(sealed(1))
    text = page_of(report(folder, tmp_path / "r.html").page).text
    command = re.search(r"vllm serve .*? --load_format sharded_state", text)
    assert command is not None and len(command[0]) > 600 and "…" not in command[0] and folder.name in command[0]


def test_a_checkpoint(tiny: Path, tmp_path: Path) -> None:
    page = page_of(report(tiny, tmp_path / "r.html").page)
    check_alone(page)
    assert "can be compressed; only doing so tells the ratio" in page.text and "Qwen3ForCausalLM" in page.text
    assert re.search(r"w8a8sc compress \S+ --tp 1 --tp 2", page.text)


def test_a_damaged_directory_says_so_on_top(sealed_copy: Path, tmp_path: Path) -> None:
    """By what can be read of it still; and what would serve it is not said."""
    (sealed_copy / "model-rank-1-part-0.safetensors").unlink()
    made = report(sealed_copy, tmp_path / "r.html")
    assert made.exit_code == 1
    page = page_of(made.page)
    check_alone(page)
    head, _, rest = page.text.partition("At a glance")
    assert "Not in order" in head and "damaged" in head and "rank 1" in head
    assert "by its manifest" in rest and "self_attn.o_proj" in rest and "vllm serve" not in rest


@pytest.mark.parametrize("name", ["w8a8sc_manifest.json", "config.json", "quant_model_description.json"])
def test_files_that_are_no_more_what_they_were(sealed_copy: Path, tmp_path: Path, name: str) -> None:
    (sealed_copy / name).write_bytes(b"<script>")
    made = report(sealed_copy, tmp_path / "r.html")
    assert not made.ok and name in page_of(made.page).text.partition("At a glance")[0]


def test_a_damaged_checkpoint(tiny_copy: Path, tmp_path: Path) -> None:
    edit_json(tiny_copy / "config.json", lambda content: content.update(hidden_size=17))
    made = report(tiny_copy, tmp_path / "r.html")
    assert made.exit_code == 1 and "cannot be used as it is" in page_of(made.page).text


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "$\\frac{1}{2}$",
    "\x1b[31mred\x00\u202eevil\u2066",
    "]]>--><!--",
    "x" * 5000,
    "模型 🤖",
    "\udcff",
)


def directory(name: str, rows: list[ModuleRow], problems: list[Problem] | None = None) -> Subject:
    """A directory of which these modules are known."""
    path = Path(name[:99].replace("\0", ""))
    by_rank = ({row.group: row.bytes for row in rows},)
    inspection = Inspection(path, "sharded_state", name, 1, False, 1, rows, [], by_rank)
    return Subject(path, "directory", name, 1, problems or [], rows=rows, inspection=inspection)


def hostile_row(name: str, layer: int) -> ModuleRow:
    return ModuleRow(name, layer, name, f"TYPE{name}", (8, 8), 64, None if layer % 2 else 0.5, "source", True)


def test_names_stay_names_in_every_place() -> None:
    """Also those that a manifest would refuse: the page does not count on that."""
    rows = [hostile_row(name, number) for number, name in enumerate(HOSTILE)]
    problems = [Problem(name, name, name) for name in HOSTILE]
    towers = [replace(row, layer=-1) for row in rows]
    subjects = [
        directory(name, [*rows, *towers] if not number else [], problems) for number, name in enumerate(HOSTILE)
    ]
    outcomes = [Outcome(name, (1,), "failed", name) for name in HOSTILE]
    html = render(Content(subjects, outcomes, problems, HOSTILE))
    page = Page(html)
    check_alone(page)
    assert "<script>alert(1)</script>" in page.text and "{{ 7 * 7 }}{% raw %}" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", html)
    assert "x" * 700 not in html and "svg" in page.tags


def test_names_in_files(sealed_copy: Path, tmp_path: Path) -> None:
    """Tensors of a directory that nobody vouches for, in a folder with such a name."""
    (sealed_copy / "w8a8sc_manifest.json").unlink()
    path = sealed_copy / "model-rank-0-part-0.safetensors"
    content = tensors.read(path)
    content["model.layers.0.<img src=x onerror=alert(1)>.weight"] = ("I8", [1, 1], b"\1")
    tensors.write(path, content)
    folder = shutil.move(sealed_copy, tmp_path / "<svg onload=alert(1)>")
    page = page_of(report(folder, tmp_path / "r.html").page)
    check_alone(page)
    assert "<img src=x onerror=alert(1)>" in page.text and "<svg onload=alert(1)>" in page.text


def rows_of(layers: int, columns: int, outside: int) -> list[ModuleRow]:
    inside = [
        ModuleRow(f"model.layers.{layer}.m{column}", layer, f"m{column}", "W8A8SC", (64, 64), 64, 0.5, None, True)
        for layer in range(layers)
        for column in range(columns)
    ]
    names = [f"visual.blocks.{number}.attn.qkv" for number in range(outside)]
    return inside + [ModuleRow(name, -1, name, "FLOAT", (64, 64), 64, None, "source", True) for name in names]


def test_maps_beyond_measure_are_cut_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("w8a8sc_tool.reporting.page._MOST_CELLS", 9)
    page = Page(render(Content([directory("a", rows_of(4, 3, 201)), directory("b", rows_of(2, 3, 2))])))
    assert "3 more modules are left out here" in page.text and "6 more modules are left out here" in page.text
    assert "201 linear layers outside of the decoder, the first 200 " in page.text
    assert "2 linear layers outside of the decoder module" in page.text


@pytest.mark.slow
def test_a_page_is_below_two_megabytes_whatever_there_is() -> None:
    rows = rows_of(400, 40, 300)
    html = render(Content([directory(f"m{number}", rows) for number in range(20)]))
    assert 1_000_000 < len(html) < 2_000_000


def test_labels_tell_subjects_apart() -> None:
    def subject(name: str, tp: int) -> Subject:
        return Subject(Path(name), "directory", name, tp)

    assert labels_of([subject("a", 1), subject("a", 4)]) == ["TP 1", "TP 4"]
    assert labels_of([subject("a", 1), subject("b", 1)]) == ["a TP 1", "b TP 1"]
    assert labels_of([subject("a", 1), subject("a", 1), Subject(Path("a"), "checkpoint", "a")]) == [
        "TP 1 (1)",
        "TP 1 (2)",
        "checkpoint",
    ]


def test_a_tree_and_the_outcome_of_a_batch(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [subject.tp for subject in report(tree, tmp_path / "r.html").subjects] == [1, 2]
    directories = sorted(map(str, tree.glob("*/*")))
    outcomes = [
        Outcome("a", (1, 2), "made", directories=tuple(directories), output_bytes=5, seconds=1.0),
        Outcome("b", (1,), "failed", "there is no <b>"),
    ]
    file = tmp_path / "outcome.json"
    file.write_text(json.dumps([outcome.document() for outcome in outcomes]))
    made = report(file, tmp_path / "o.html")
    assert [str(subject.path) for subject in made.subjects] == directories and made.exit_code == 1
    head = page_of(made.page).text.partition("At a glance")[0]
    assert "The job of b failed: there is no <b>" in head
    for wrong in ("{}", json.dumps([outcomes[0].document() | {"output_bytes": 10**400}])):
        file.write_text(wrong)
        assert run(["report", str(file)]) == 3
        assert "not the outcome of a batch" in capsys.readouterr().err


def test_what_is_refused_before_anything_is_read(
    sealed: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.html"
    other.write_text("mine")
    with pytest.raises(InputError, match="is no report of w8a8sc"):
        report(sealed(1), other)
    assert other.read_text() == "mine" and report(sealed(1), other, overwrite=True).ok
    assert other.read_text().startswith(MARK)
    with pytest.raises(InputError, match="may not be put into a sharded_state directory"):
        report(sealed(1), sealed(1) / "report.html")
    with pytest.raises(InputError, match="no such folder"):
        report(sealed(1), tmp_path / "none" / "r.html")
    with pytest.raises(InputError, match="exists already"):
        report(sealed(1), tmp_path)
    with pytest.raises(InputError, match="no such file"):
        report(tmp_path / "none")
    with monkeypatch.context() as patch, pytest.raises(InputError, match="nothing that a report could be about"):
        patch.setattr(job, "_Collection", None)
        report([sealed(1), tmp_path], tmp_path / "r.html")
    with pytest.raises(UsageError):
        report([], tmp_path / "r.html")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"matplotlib and jinja2: pip install 'w8a8sc\[report\]'"):
        report(tmp_path / "none", tmp_path / "r.html")


def test_compress_writes_one(
    tiny: Path, sealed: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "r.html"
    assert run(["compress", str(tiny), "-o", str(sealed(1).parents[2]), "--report", str(page)]) == 0
    assert f"report: {page}" in capsys.readouterr().err
    assert "compress read all of it back" not in page_of(page).text  # it was done already
    manifest = manifest_file.load(sealed(1))
    assert manifest is not None
    made = Compressed(sealed(1), 1, False, 1, 1, 1.0, manifest)
    job.report_results([made], page, read_back=False)
    assert "compress read all of it back" not in page_of(page).text
    job.report_results([made], page, read_back=True)
    assert "compress read all of it back" in page_of(page).text


def test_a_report_that_cannot_be_made_costs_no_work(
    tiny: Path,
    sealed: Callable[[int], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is known before is refused before; what fails later leaves the directory, its result, and an error."""
    output = ["-o", str(tmp_path), "--name", "Tiny"]
    assert run(["compress", str(tiny), *output, "--report", str(tmp_path / "none" / "r.html")]) == 3
    assert run(["compress", str(tiny), *output, "--report", str(tmp_path / "r.html"), "--dry-run"]) == 2
    assert not list(tmp_path.iterdir())
    capsys.readouterr()
    monkeypatch.setattr(job, "render", lambda content: str(1 / 0))
    again = ["compress", str(tiny), "-o", str(sealed(1).parents[2]), "--report", str(tmp_path / "r.html"), "--json"]
    assert run(again) == 1
    printed = capsys.readouterr()
    (result,) = json.loads(printed.out)
    assert result["directory"] == str(sealed(1)) and "ZeroDivisionError" in printed.err


def test_batch_writes_one(tiny: Path, sealed: Callable[[int], Path], tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text(f"jobs: [{{model: {tiny}}}]\noutput: {sealed(1).parents[2]}\n")
    assert run(["batch", str(file), "--report", str(tmp_path / "r.html")]) == 0
    text = page_of(tmp_path / "r.html").text
    assert "done before" in text and str(sealed(1)) in text
