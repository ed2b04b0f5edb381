"""From what a user gives for a model to a folder: a path as it is, a hub's name by its cache."""

from __future__ import annotations

import os
from pathlib import Path

from ..io import reading
from ..io.folders import directory_of_size
from ..workers.progress import Progress
from .names import Hub, names_a_model


def locate(
    model: str | os.PathLike[str],
    *,
    tp: int | None = None,
    hub: Hub | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> Path:
    """The folder of a model: a path that is there, or OWNER/NAME or OWNER/NAME@REVISION in a hub's local cache.

    tp: of a published tree, NAME-w8a8sc-310-vllm with TP1, TP2, ..., the directory of this tensor-parallel size; a
    checkpoint has none and is taken as it is. hub: "modelscope" or "huggingface", the cache to look in; by default
    ModelScope's, then Hugging Face's. Nothing is asked of the network, unless `download`: then what the hub, by default
    ModelScope, has and the cache has not is fetched by the hub's own client. A note tells where a name's folder is.

    A word that is neither a path nor a name comes back as it is: whoever opens it says what is wrong. Raises InputError
    for a name that is not in the caches, or of which only a part is; for a size that is not there; for what the hub
    does not have, or not for this user. MissingError without the client, WorkError for a download that fails.
    """
    name = names_a_model(model)
    if name is not None:
        from .cached import locate_name  # a path needs none of that

        return locate_name(name, tp=tp, hub=hub, download=download, progress=progress)
    if download and progress is not None and reading.exists(Path(model)):
        progress.note(f"{model} is a path that is there: nothing is downloaded")
    return directory_of_size(Path(model), tp)
