"""The hubs' own clients, in a process of their own: they print, and start threads that a Ctrl-C does not end.

Tried with huggingface_hub 2.4 and modelscope_hub 0.5, which is what modelscope 1.40 downloads with.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from ..errors import InputError, MissingError, W8A8SCError, WorkError
from ..io.failures import work_failure
from .caches import NEWEST, download_folder
from .names import TITLES, Hub, HubName

T = TypeVar("T")

ENVIRONMENT: Final = {
    "TQDM_DISABLE": "1",  # the parent has a bar
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
_PACKAGES: Final[dict[Hub, str]] = {"modelscope": "modelscope_hub", "huggingface": "huggingface_hub"}
_LOGIN: Final[dict[Hub, str]] = {"modelscope": "modelscope login", "huggingface": "hf auth login"}
_AGAIN: Final = "run the same command again: what is complete is not fetched again"
_MOST_CAUSES: Final = 20


class Listing(NamedTuple):
    """What a hub has of a model. revision: a commit on Hugging Face; files: bytes by name."""

    revision: str
    files: dict[str, int]


class Client:
    """A model on a hub, to a worker process."""

    def __init__(self, hub: Hub, name: HubName) -> None:
        self._hub, self._name = hub, name
        self._client = _ModelScope(name) if hub == "modelscope" else _HuggingFace(name)

    def listing(self) -> Listing:
        """Raises InputError if the hub has no such model for this user, WorkError if it does not answer."""
        return self._call(self._client.listing)

    def fetch(self, names: list[str]) -> str:
        """Download the files of these names into the hub's cache; returns the folder of the snapshot."""
        return self._call(partial(self._client.fetch, names))

    def _call(self, function: Callable[[], T]) -> T:
        try:
            return function()
        except ImportError as error:
            package = _PACKAGES[self._hub]
            problem = f"{TITLES[self._hub]}'s client, {package}, is not installed"
            if error.name != package:
                problem = f"{TITLES[self._hub]}'s client, {package}, cannot be imported ({error})"
            raise MissingError(problem, remedy="pip install 'w8a8sc[hub]'") from None
        except Exception as error:
            raise _failure(error, self._hub, self._name) from error


class _ModelScope:
    def __init__(self, name: HubName) -> None:
        self._name = name
        self._revision = name.revision or NEWEST
        self._api: Any = None
        self._entries: list[dict[str, Any]] = []

    def listing(self) -> Listing:
        from modelscope_hub import HubApi

        # ModelScope has two sites; this asks which of them has the model, unless MODELSCOPE_ENDPOINT says it.
        self._api = HubApi(endpoint=HubApi().resolve_endpoint_for_read(self._name.repository, repo_type="model"))
        files = self._api.list_repo_files(self._name.repository, "model", revision=self._revision)
        self._entries = [{"Path": f.path, "Size": f.size, "Sha256": f.sha256} for f in files if not f.is_dir]
        return Listing(self._revision, {entry["Path"]: entry["Size"] for entry in self._entries})

    def fetch(self, names: list[str]) -> str:
        """Into the folder that later look-ups take, whose layout may be an older one."""
        folder, wanted = download_folder(self._name), set(names)
        return str(
            self._api.download_repo(
                self._name.repository,
                "model",
                revision=self._revision,
                local_dir=folder,
                file_list=[entry for entry in self._entries if entry["Path"] in wanted],
            )
        )


class _HuggingFace:
    def __init__(self, name: HubName) -> None:
        self._name = name

    def listing(self) -> Listing:
        from huggingface_hub import HfApi

        info = HfApi().model_info(self._name.repository, revision=self._name.revision, files_metadata=True)
        return Listing(str(info.sha), {file.rfilename: int(file.size or 0) for file in info.siblings or []})

    def fetch(self, names: list[str]) -> str:
        from huggingface_hub import snapshot_download

        patterns = [glob.escape(listed) for listed in names]
        return str(snapshot_download(self._name.repository, revision=self._name.revision, allow_patterns=patterns))


def _failure(error: Exception, hub: Hub, name: HubName) -> W8A8SCError:
    """What a client's error means, by HTTP's status, the system's error and the names of the clients' classes."""
    title, where = TITLES[hub], str(name)
    causes = list(_causes(error))
    classes = {each.__name__ for cause in causes for each in type(cause).__mro__}
    codes = [code for cause in causes if (code := _status(cause)) is not None]
    of_system = [cause for cause in causes if isinstance(cause, OSError) and cause.errno and _status(cause) is None]
    if refusal := _refusal(classes, codes, hub, name):
        return refusal
    if "FileIntegrityError" in classes or any("Consistency check" in str(cause) for cause in causes):
        return WorkError(f"{title} sent other bytes than it lists ({_line(error)})", where, _AGAIN)
    if codes:
        return WorkError(f"{title} answered with error {codes[0]}", where, _AGAIN)
    if not classes.isdisjoint(_CONNECTION):
        return WorkError(f"{title} cannot be reached ({_line(causes[-1])})", where, f"check the network; {_AGAIN}")
    if of_system:
        return work_failure(f"downloading from {title}", of_system[0], str(of_system[0].filename or where))
    return WorkError(f"{title}'s client failed ({type(error).__name__}: {_line(error)})", where, _AGAIN)


def _refusal(classes: set[str], codes: list[int], hub: Hub, name: HubName) -> InputError | None:
    """The error for a model that a hub does not give, None if that is not what happened."""
    title, login = TITLES[hub], f"log in: {_LOGIN[hub]}"
    revision = f" revision {name.revision}" if name.revision else ""
    if "OfflineModeIsEnabled" in classes:
        problem, remedy = f"{title}'s client is set to work offline", "unset HF_HUB_OFFLINE"
    elif "RevisionNotFoundError" in classes:
        problem, remedy = f"{title} has no{revision} of it", "see which there are on the model's page"
    elif "GatedRepoError" in classes or 403 in codes:
        problem, remedy = f"{title} does not let this user have it", f"ask its owner, and {login}"
    elif 404 in codes or "RepositoryNotFoundError" in classes:
        problem = f"{title} has no such model" + (f", or no{revision} of it" if revision else "")
        remedy = f"check the name; if it is private, {login}"
    elif 401 in codes:
        problem, remedy = f"{title} does not know this user", login
    else:
        return None
    return InputError(problem, str(name), remedy)


# Of requests, httpx and the standard library.
_CONNECTION: Final = frozenset(
    {
        "ConnectionError",
        "ConnectError",
        "Timeout",
        "TimeoutException",
        "TransportError",
        "TimeoutError",
        "ProtocolError",
    }
)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, those that it was raised for, and those of the files of a download, the outermost first."""
    pending = [error]
    seen: list[BaseException] = []
    while pending and len(seen) < _MOST_CAUSES:
        cause = pending.pop(0)
        if cause in seen:
            continue
        seen.append(cause)
        yield cause
        files = getattr(cause, "failed_files", None)
        others = [cause.__cause__, cause.__context__, *(files.values() if isinstance(files, dict) else ())]
        pending += [other for other in others if isinstance(other, BaseException)]


def _status(error: BaseException) -> int | None:
    """HTTP's status, if a server answered with an error."""
    for holder in (error, getattr(error, "response", None)):
        code = getattr(holder, "status_code", None)
        if isinstance(code, int) and code >= 400:
            return code
    return None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
