"""Downloads by the hubs' real clients from a server on this machine: what is fetched, what goes on, what is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from w8a8sc_tool.errors import InputError, MissingError, WorkError
from w8a8sc_tool.hub import download as module
from w8a8sc_tool.hub.caches import cache_root, download_folder, fetched_bytes
from w8a8sc_tool.hub.client import Client, Listing, _failure
from w8a8sc_tool.hub.locate import locate
from w8a8sc_tool.hub.names import Hub, HubName
from w8a8sc_tool.io import reading
from w8a8sc_tool.workers.progress import Progress

from .server import HubServer, commit_of

ID, NAME = "acme/Toy-1.5B-w8a8s-310", HubName("acme", "Toy-1.5B-w8a8s-310")
HUBS: tuple[Hub, ...] = get_args(Hub)
BOTH = pytest.mark.parametrize("hub", HUBS)
WEIGHTS = "quant_model_weight_w8a8s.safetensors"
NEEDED = {"config.json": b"{}", "optional/quarot.safetensors": b"q" * 2000, WEIGHTS: bytes(range(256)) * 4000}
OTHERS = {"pytorch_model.bin": b"b" * 1000, ".gitattributes": b"a", "original/x.pth": b"p"}


class Told(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.total = self.done = 0

    def note(self, message: str) -> None:
        self.notes.append(message)

    def begin(self, label: str, total_bytes: int, copied_bytes: int = 0) -> None:
        self.total = total_bytes

    def advance(self, bytes_done: int, original: int = 0, compressed: int = 0) -> None:
        self.done += bytes_done


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODELSCOPE_API_TOKEN", "HF_TOKEN", "HF_HUB_OFFLINE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, folder in {"MODELSCOPE_CACHE": "ms", "MODELSCOPE_HOME": "home", "HF_HOME": "hf", "HOME": "."}.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MODELSCOPE_DOWNLOAD_MAX_RETRIES", "1")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    for package in ("modelscope_hub", "huggingface_hub"):
        pytest.importorskip(package)
    server = HubServer(ID, NEEDED | OTHERS)
    for variable in ("MODELSCOPE_ENDPOINT", "HF_ENDPOINT"):
        monkeypatch.setenv(variable, server.address)
    yield server
    server.shutdown()
    server.server_close()


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.slow
@BOTH
def test_what_is_needed_is_fetched_once(hub: Hub, server: HubServer) -> None:
    told = Told()
    folder = locate(ID, hub=hub, download=True, progress=told)
    assert content(folder) == NEEDED
    assert told.total == told.done == sum(map(len, NEEDED.values()))
    assert told.notes == [f"{ID} is as {'ModelScope' if hub == 'modelscope' else 'Hugging Face'} has it now: {folder}"]
    sent = dict(server.sent)
    assert set(sent) == set(NEEDED)
    again = Told()
    assert locate(ID, hub=hub, download=True, progress=again) == folder
    assert (dict(server.sent), again.total) == (sent, 0)
    server.status = 500
    assert locate(ID) == locate(ID, hub=hub) == folder  # nobody is asked


@pytest.mark.slow
@BOTH
def test_revisions(hub: Hub, server: HubServer) -> None:
    server.revisions["v1"] = {**NEEDED, "config.json": b"[]"}
    newest = locate(ID, hub=hub, download=True)
    folder = locate(f"{ID}@v1", hub=hub, download=True)
    assert (newest / "config.json").read_bytes() == b"{}" and (folder / "config.json").read_bytes() == b"[]"
    assert (locate(ID, hub=hub), locate(f"{ID}@v1", hub=hub)) == (newest, folder)
    assert hub == "modelscope" or folder.name == commit_of(server.revisions["v1"])
    with pytest.raises(InputError, match=r"has no (such model, or no )?revision v2 of it, acme/.*@v2: "):
        locate(f"{ID}@v2", hub=hub, download=True)


@pytest.mark.slow
@BOTH
def test_a_connection_that_ends(hub: Hub, server: HubServer) -> None:
    """It goes on in the same run: ModelScope's client where it was, Hugging Face's after the last ten megabytes."""
    server.cut[WEIGHTS] = 400_000
    assert content(locate(ID, hub=hub, download=True)) == NEEDED
    assert server.begun[WEIGHTS] == [0, 400_000 if hub == "modelscope" else 0]


@pytest.mark.slow
@BOTH
def test_half_a_download(hub: Hub, server: HubServer) -> None:
    """What is missing is said without network; the next download fetches that alone."""
    server.withheld.add(WEIGHTS)
    with pytest.raises((InputError, WorkError)):
        locate(ID, hub=hub, download=True)
    with pytest.raises(InputError, match=r"only a part of it was downloaded: .*: download=True.* fetches it"):
        locate(ID)
    server.withheld.clear()
    assert content(locate(ID, hub=hub, download=True)) == NEEDED
    assert {name: len(begun) for name, begun in server.begun.items()} == dict.fromkeys(NEEDED, 1)


@pytest.mark.slow
def test_a_file_goes_on_where_modelscope_stopped(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_DOWNLOAD_MAX_RETRIES", "0")
    server.cut[WEIGHTS] = 400_000
    with pytest.raises(WorkError, match="run the same command again"):
        locate(ID, download=True)
    with pytest.raises(InputError, match=f"{WEIGHTS}.incomplete is unfinished"):
        locate(ID)
    told = Told()
    assert content(locate(ID, download=True, progress=told)) == NEEDED
    assert server.begun[WEIGHTS] == [0, 400_000]
    assert told.total == told.done == len(NEEDED[WEIGHTS]) - 400_000


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "", r"does not know this user, acme/.*: log in: "),
        (403, "GatedRepo", r"does not let this user have it, acme/.*: ask its owner, and log in: "),
        (404, "RepoNotFound", r"has no such model, acme/.*: check the name; if it is private, log in: "),
        (500, "", r"answered with error 500, acme/.*: run the same command again"),
    ],
)
def test_refusals(hub: Hub, status: int, code: str, message: str, server: HubServer) -> None:
    server.status, server.error_code = status, code
    with pytest.raises(WorkError if status == 500 else InputError, match=message) as error:
        locate(ID, hub=hub, download=True)
    assert str(error.value).count("\n") == 0


@pytest.mark.slow
@BOTH
def test_no_network(hub: Hub, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the cache stays, and is there without asking."""
    folder = locate(ID, hub=hub, download=True)
    server.shutdown()
    server.server_close()
    with pytest.raises(WorkError, match=r"cannot be reached \(.*\), acme/.*: check the network"):
        locate(ID, hub=hub, download=True)
    assert locate(ID, hub=hub) == folder and content(folder) == NEEDED
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if hub == "huggingface":
        with pytest.raises(InputError, match="set to work offline, .*: unset HF_HUB_OFFLINE"):
            locate(ID, hub=hub, download=True)


@pytest.mark.slow
def test_other_bytes_than_listed(server: HubServer) -> None:
    """Of files in Git itself Hugging Face lists no hash that its client compares: verify is for those."""
    server.wrong.add(WEIGHTS)
    with pytest.raises(WorkError, match="ModelScope sent other bytes than it lists"):
        locate(ID, download=True)
    assert not [path for path in cache_root("modelscope").rglob(WEIGHTS) if path.is_file()]


@pytest.mark.slow
@BOTH
def test_a_size_of_a_tree(hub: Hub, server: HubServer) -> None:
    names = [f"TP{tp}/Toy-tp{tp}/model-rank-{rank}-part-0.safetensors" for tp in (1, 2) for rank in range(tp)]
    server.files = {name: name.encode() for name in ["README.md", *names]}
    folder = locate(ID, tp=2, hub=hub, download=True)
    assert (folder.name, set(server.sent)) == ("Toy-tp2", set(names[1:]))
    assert locate(ID, tp=2) == folder
    with pytest.raises(InputError, match="it has no TP 4, but TP 1, TP 2"):
        locate(ID, tp=4, hub=hub, download=True)
    assert locate(ID, tp=1, hub=hub, download=True).name == "Toy-tp1"
    assert set(content(locate(ID, hub=hub, download=True))) == {"README.md", *names}
    assert dict(server.sent) == {name: len(name) for name in server.files}


@pytest.mark.slow
def test_an_older_layout_stays_in_use(server: HubServer) -> None:
    """modelscope before 1.38 wrote it; another revision is not mixed into it."""
    older = cache_root("modelscope") / "hub" / "models" / ID.replace(".", "___")
    older.mkdir(parents=True)
    (older / "config.json").write_bytes(NEEDED["config.json"])
    server.revisions["v1"] = {**NEEDED, "config.json": b"[]"}
    assert locate(f"{ID}@v1", download=True) != older
    assert locate(ID, download=True) == older and content(older) == NEEDED
    assert len(server.begun["config.json"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("hub", HUBS)
def test_the_command(hub: Hub, tiny: Path, server: HubServer) -> None:
    """The client's own words are not shown; the result is that of the folder."""
    server.files = content(tiny)
    command = [sys.executable, "-m", "w8a8sc_tool", "inspect", "--json"]
    result = subprocess.run([*command, ID, "--download", "--hub", hub], capture_output=True, text=True)
    lines = [line for line in result.stderr.splitlines() if not line.startswith(f"downloading {ID} from ")]
    assert (result.returncode, len(lines)) == (0, 1), result.stderr
    assert lines[0].startswith(f"note: {ID} is as ")
    shown = json.loads(result.stdout)
    plain = json.loads(subprocess.run([*command, tiny], capture_output=True, text=True, check=True).stdout)
    assert shown.pop("path") != plain.pop("path") and shown == plain


@pytest.mark.parametrize(("hub", "package"), [("modelscope", "modelscope_hub"), ("huggingface", "huggingface_hub")])
def test_a_client_that_is_not_there(hub: Hub, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingError, match=rf"'s client, {package}, is not installed: pip install 'w8a8sc\[hub\]'"):
        Client(hub, NAME).listing()


@pytest.mark.parametrize(
    ("status", "message"), [(502, "answered with error 502"), (200, "client failed (ValueError: odd)")]
)
def test_an_answer_that_is_no_error(status: int, message: str) -> None:
    """A client may fail over an answer that was none."""
    error = ValueError("odd")
    error.status_code = status  # type: ignore[attr-defined]
    assert message in str(_failure(error, "modelscope", NAME))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["config.json", "a.safetensors", "../x"], r"lists a file called '\.\./x'"),
        (["config.json", "a.safetensors", "/etc/x"], "lists a file called '/etc/x'"),
        (["config.json", "pytorch_model.bin"], r"has no \*.safetensors file of it"),
        ([], r"has no \*.safetensors file of it"),
        ([f"{number}.safetensors" for number in range(100_001)], "lists 100001 files of it"),
    ],
)
def test_listings_of_no_model(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        module._wanted(Listing("master", dict.fromkeys(names, 1)), "modelscope", NAME, None)


def test_no_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(reading, "free_bytes", lambda folder: 999)
    module._check_space("modelscope", NAME, 999)
    with pytest.raises(InputError, match=rf"{ID} takes 1.0 kB more, and 999 B are free, {tmp_path}: make room"):
        module._check_space("modelscope", NAME, 1000)


@BOTH
def test_how_far_a_download_is(hub: Hub) -> None:
    """Files, what has come of others, and never more than there is."""
    sizes = {"a.safetensors": 100, "sub/b.safetensors": 100, "c.json": 10}
    assert fetched_bytes(hub, NAME, "x", sizes) == 0
    if hub == "modelscope":
        folder = download_folder(NAME)
        pieces = ["sub/b.safetensors_0_49", "sub/b.safetensors_50_99", "sub/b.safetensors.parallel_tmp"]
    else:
        folder = cache_root(hub) / "models--acme--Toy-1.5B-w8a8s-310" / "snapshots" / "x"
        pieces = ["../../blobs/1.a.incomplete", "../../blobs/2.b.incomplete"]
    for name in ("a.safetensors", *pieces):
        path = Path(os.path.normpath(folder / name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(100 if name == "a.safetensors" else 30))
    assert fetched_bytes(hub, NAME, "x", sizes) == 160
    path.write_bytes(bytes(1000))
    assert fetched_bytes(hub, NAME, "x", sizes) == (160 if hub == "modelscope" else 210)
