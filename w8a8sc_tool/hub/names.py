"""How hubs name a model: OWNER/NAME, with @REVISION for another than the hub's newest."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ..io import reading
from ..io.names import is_inside

Hub = Literal["modelscope", "huggingface"]

# ModelScope first: most hosts of these cards stand where it is the nearer one.
HUBS: Final[tuple[Hub, ...]] = ("modelscope", "huggingface")
TITLES: Final[dict[Hub, str]] = {"modelscope": "ModelScope", "huggingface": "Hugging Face"}

HUB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_LEVELS: Final = 5  # of a revision such as refs/pr/1


@dataclass(frozen=True)
class HubName:
    """A model on a hub. revision: a branch, a tag or a commit; None for what the hub shows first."""

    owner: str
    name: str
    revision: str | None = None

    @property
    def repository(self) -> str:
        return f"{self.owner}/{self.name}"

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"

    @classmethod
    def parse(cls, text: str) -> HubName | None:
        """The name that a text is; None if it is none, such as a path with one level or three."""
        repository, at, revision = text.partition("@")
        if not HUB_ID.fullmatch(repository) or ".." in repository:
            return None
        if at and not (_REVISION.fullmatch(revision) and ".." not in revision and is_inside(revision, _LEVELS)):
            return None
        owner, name = repository.split("/")
        return cls(owner, name, revision if at else None)


def names_a_model(text: str | os.PathLike[str]) -> HubName | None:
    """The model on a hub that a word means: None for a path that is there, and for what no hub could have."""
    name = HubName.parse(os.fspath(text))
    return None if name is None or reading.link_status(Path(text)) is not None else name
