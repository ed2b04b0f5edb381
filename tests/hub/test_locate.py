"""Models by name: what is a name, where caches are and what is in them, and what is said of one that is not whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from w8a8sc_tool.checkpoint import weights
from w8a8sc_tool.errors import InputError, UsageError
from w8a8sc_tool.hub.caches import cache_root
from w8a8sc_tool.hub.locate import locate
from w8a8sc_tool.hub.names import Hub, HubName
from w8a8sc_tool.hub.selection import needed
from w8a8sc_tool.workers.progress import Progress

ID = "acme/Toy-1.5B-w8a8s-310"
COMMITS = ("a" * 40, "b" * 40)
FILES = ("config.json", "quant_model_weight_w8a8s.safetensors")
TREE = tuple(f"TP{tp}/Toy-tp{tp}/model-rank-{rank}-part-0.safetensors" for tp in (1, 2) for rank in range(tp))


class Notes(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MODELSCOPE_CACHE", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill(folder: Path, *names: str) -> Path:
    for name in names or FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def in_huggingface(commit: str, *names: str, ref: str | None = None, model: str = ID) -> Path:
    repository = cache_root("huggingface") / f"models--{model.replace('/', '--')}"
    if ref:
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / ref).write_text(commit)
    return fill(repository / "snapshots" / commit, *names)


def in_modelscope(revision: str, *names: str) -> Path:
    return fill(cache_root("modelscope") / "models" / ID.replace("/", "--") / "snapshots" / revision, *names)


@pytest.mark.parametrize(
    ("text", "revision"),
    [("acme/Toy", None), ("acme/Toy-1.5B_x@v2", "v2"), ("a/b@refs/pr/1", "refs/pr/1")],
)
def test_names(text: str, revision: str | None) -> None:
    name = HubName.parse(text)
    assert name is not None and (str(name), name.revision) == (text, revision)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Toy",
            "a/b/c",
            "./a",
            "/a/b",
            "a/..",
            "../a",
            "a/b/",
            "a/b..c",
            "a/.b",
            "-a/b",
            "a b/c",
            "a/b\n",
            "a/\u4e2d",
        ),
        *("a/b@", "a/b@..", "a/b@x/../../y", "a/b@/x", "a/b@x//y", "a/b@x/", "a/b@x@y", "a/" + "b" * 97, ""),
    ],
)
def test_no_names(text: str) -> None:
    """They are paths, whose opener says what is wrong with them."""
    assert HubName.parse(text) is None
    assert locate(text) == Path(text)


@pytest.mark.parametrize(
    ("variables", "hub", "root"),
    [
        ({}, "modelscope", ".cache/modelscope"),
        ({"MODELSCOPE_CACHE": "~/ms"}, "modelscope", "ms"),
        ({}, "huggingface", ".cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "$HOME/xdg"}, "huggingface", "xdg/huggingface/hub"),
        ({"HF_HOME": "~/hf", "XDG_CACHE_HOME": "/x"}, "huggingface", "hf/hub"),
        ({"HUGGINGFACE_HUB_CACHE": "~/old", "HF_HOME": "/x"}, "huggingface", "old"),
        ({"HF_HUB_CACHE": "~/new", "HUGGINGFACE_HUB_CACHE": "/x"}, "huggingface", "new"),
    ],
)
def test_roots(variables: dict[str, str], hub: Hub, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_root(hub) == tmp_path / root


def test_a_path_comes_first(tmp_path: Path) -> None:
    in_modelscope("master")
    assert locate(ID) != Path(ID)
    fill(tmp_path / ID)
    assert locate(ID) == Path(ID)
    (tmp_path / "acme" / "gone").symlink_to("nowhere")
    assert locate("acme/gone") == Path("acme/gone")


def test_huggingface() -> None:
    old = in_huggingface(COMMITS[0], ref="v1")
    assert locate(ID) == old  # the only one
    new = in_huggingface(COMMITS[1])
    with pytest.raises(InputError, match=f"several revisions, v1, {COMMITS[0]}, {COMMITS[1]}: say which as {ID}@REV"):
        locate(ID)
    in_huggingface(COMMITS[1], ref="main")
    assert locate(ID) == new
    assert locate(f"{ID}@v1") == locate(f"{ID}@{COMMITS[0]}") == old
    with pytest.raises(InputError, match="revision v3 is not there, but main, v1, a"):
        locate(f"{ID}@v3")


@pytest.mark.parametrize(
    "layout",
    [
        *("models/acme/Toy-1___5B-w8a8s-310", "hub/models/acme/Toy-1___5B-w8a8s-310", ID, "hub/" + ID, "models/" + ID),
        *("acme/Toy-1___5B-w8a8s-310", "hub/acme/Toy-1___5B-w8a8s-310"),
    ],
)
def test_older_layouts_of_modelscope(layout: str) -> None:
    folder = fill(cache_root("modelscope") / layout)
    assert locate(ID) == folder
    with pytest.raises(InputError, match="revision v1 is not there, but an unknown one"):
        locate(f"{ID}@v1")
    (folder / ".mv").write_text("Revision:v1,CreatedAt:1722222222")
    assert locate(f"{ID}@v1") == folder
    with pytest.raises(InputError, match="revision v2 is not there, but v1"):
        locate(f"{ID}@v2")


def test_modelscope() -> None:
    first = in_modelscope("v1")
    assert locate(ID) == locate(f"{ID}@v1") == first
    branch = in_modelscope("feature/x")
    with pytest.raises(InputError, match="several revisions, feature, v1: say which"):
        locate(ID)
    assert locate(f"{ID}@feature/x") == branch
    master = in_modelscope("master")
    assert locate(ID) == master


def test_both_hubs() -> None:
    """ModelScope's comes first, if it is whole; the note says where a model is from."""
    huggingface = in_huggingface(COMMITS[0], ref="main")
    in_modelscope("master", "config.json")
    notes = Notes()
    assert locate(ID, progress=notes) == huggingface
    (note,) = notes.notes
    assert note == f"{ID} is taken from the cache of Hugging Face, without asking the network: {huggingface}"
    modelscope = in_modelscope("master")
    assert locate(ID) == modelscope
    assert locate(ID, hub="huggingface") == huggingface
    with pytest.raises(UsageError, match="there is no hub 'github'"):
        locate(ID, hub="github")  # type: ignore[arg-type]


def test_nowhere(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        locate(ID)
    (problem,) = error.value.problems
    ms, hf = tmp_path / ".cache/modelscope", tmp_path / ".cache/huggingface/hub"
    assert problem.message == f"no such folder, and not in the caches of ModelScope ({ms}) and Hugging Face ({hf})"
    assert (problem.where, problem.remedy) == (ID, "give the folder, or download=True to fetch it")
    with pytest.raises(InputError, match=r"in the cache of ModelScope \("):
        locate(ID, hub="modelscope")


def test_half_a_download_of_huggingface() -> None:
    folder = in_huggingface(COMMITS[0], "config.json", ref="main")
    with pytest.raises(InputError, match=': download=True, hub="huggingface" fetches it'):
        locate(ID)
    with pytest.raises(InputError, match=r"only a part of it was downloaded: it has no \*.safetensors file"):
        locate(ID)
    fill(folder)
    listing = folder.parents[1] / "trees" / f"{COMMITS[0]}.json"
    listed = dict.fromkeys([*FILES, "tokenizer.json", "pytorch_model.bin", ".gitattributes", "../../x"])
    fill(listing.parent, listing.name)
    listing.write_text(json.dumps({"format_version": 1, "files": listed}))
    with pytest.raises(InputError, match=r"part of it was downloaded: tokenizer.json is missing"):
        locate(ID)
    fill(folder, "tokenizer.json")
    blob = fill(folder.parents[1] / "blobs", "abc.12345678.incomplete") / "abc.12345678.incomplete"
    assert locate(ID) == folder  # the listing says that nothing is missing
    listing.write_text("[")
    with pytest.raises(InputError, match=f"{blob} is unfinished"):
        locate(ID)
    fill(blob.parent, "abc")
    assert locate(ID) == folder  # it was fetched since, in another file


@pytest.mark.parametrize("name", ["a.safetensors.incomplete", "a.safetensors_0_99", "a.safetensors.parallel_tmp"])
def test_half_a_download_of_modelscope(name: str) -> None:
    folder = in_modelscope("master")
    fill(folder, name.replace("a.safetensors", "pytorch_model.bin"), f"{FILES[1]}_0_99", "results_2024_05")
    assert locate(ID) == folder  # the first is not needed, the second is there, and the third is a name of its own
    fill(folder, name)
    with pytest.raises(InputError, match=f"{name} is unfinished"):
        locate(ID)


def test_half_a_download_of_older_clients() -> None:
    folder = fill(cache_root("modelscope") / "hub/models" / ID.replace(".", "___"))
    waiting = fill(cache_root("modelscope") / "hub/models/._____temp" / ID.replace(".", "___"), "b.safetensors")
    with pytest.raises(InputError, match=f"{waiting / 'b.safetensors'} is unfinished"):
        locate(ID)
    (waiting / "b.safetensors").unlink()
    assert locate(ID) == folder


def test_missing_parts(tmp_path: Path) -> None:
    """An index of which nothing is there belongs to other weights: what that means is the checkpoint's to say."""
    index = {"weight_map": {"a": "m-1-of-2.safetensors", "b": "m-2-of-2.safetensors"}}
    folder = in_modelscope("master", "m-1-of-2.safetensors")
    (folder / "m.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="m-2-of-2.safetensors is missing"):
        locate(ID)
    fill(folder, "m-2-of-2.safetensors")
    assert locate(ID) == folder
    for part in ("m-1-of-2.safetensors", "m-2-of-2.safetensors"):
        (folder / part).unlink()
    assert weights.missing_weights(fill(folder, "other.safetensors")) == ""


def test_sizes_of_a_tree(tmp_path: Path) -> None:
    """In a cache and as a path; a directory of another size is refused."""
    folder = in_modelscope("master", "README.md", *TREE)
    assert locate(ID) == folder
    assert locate(ID, tp=2) == locate(folder, tp=2) == folder / "TP2" / "Toy-tp2"
    with pytest.raises(InputError, match=r"it has no TP 4, but TP 1, TP 2, .*: download=True fetches it if the hub"):
        locate(ID, tp=4)
    with pytest.raises(InputError, match="the directory is made for TP 1, not 2"):
        locate(folder / "TP1" / "Toy-tp1", tp=2)
    fill(folder, "TP2/Other-tp2/model-rank-0-part-0.safetensors")
    with pytest.raises(InputError, match="it has several directories for TP 2"):
        locate(ID, tp=2)
    assert locate(fill(tmp_path / "checkpoint"), tp=2) == tmp_path / "checkpoint"


def test_a_part_of_a_listed_tree() -> None:
    """Sizes that were downloaded are whole without the others; one of which a file is missing is not."""
    folder = in_huggingface(COMMITS[0], TREE[0], ref="main")
    listing = fill(folder.parents[1] / "trees", f"{COMMITS[0]}.json") / f"{COMMITS[0]}.json"
    listing.write_text(json.dumps({"files": dict.fromkeys(["README.md", *TREE])}))
    assert (locate(ID), locate(ID, tp=1)) == (folder, folder / "TP1" / "Toy-tp1")
    fill(folder, TREE[1])
    for tp in (2, None):
        with pytest.raises(InputError, match=f"{TREE[2]} is missing"):
            locate(ID, tp=tp)


def test_half_a_tree() -> None:
    """What is unfinished of one size does not keep another from being used."""
    folder = in_modelscope("master", *TREE[:2], f"{TREE[2]}.incomplete")
    assert locate(ID, tp=1) == folder / "TP1" / "Toy-tp1"
    for tp in (2, None):
        with pytest.raises(InputError, match=f"{TREE[2]}.incomplete is unfinished"):
            locate(ID, tp=tp)


def test_what_is_needed() -> None:
    kept = ["config.json", "a.safetensors", "a.safetensors.index.json", "optional/quarot.safetensors", "README.md"]
    others = [".gitattributes", "pytorch_model.bin", "original/x.pth", ".hidden/y", "__pycache__/z", "m.gguf", "t.h5"]
    assert needed([*kept, *others], None) == needed([*kept, *others], 2) == kept
    assert needed(["README.md", *TREE], 2) == list(TREE[1:])
    assert needed(["README.md", *TREE], None) == ["README.md", *TREE]


@pytest.mark.parametrize("content", ["../../../etc", "", "a/b", "x\ny", "z" * 5000])
def test_a_reference_that_names_no_commit(content: str) -> None:
    folder = in_huggingface(COMMITS[0], ref="main")
    (folder.parents[1] / "refs" / "main").write_text(content)
    with pytest.raises(InputError, match="does not name a commit|larger than"):
        locate(ID)
