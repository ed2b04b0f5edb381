"""Arguments that are models: a path, or the name that a hub gives. One decorator makes folders of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from ..hub.names import HUBS
from .group import F
from .output import Output

hub_option = click.option(
    "--hub",
    type=click.Choice(HUBS),
    help="The hub that OWNER/NAME is a model of [default: ModelScope, then Hugging Face].",
)
download_option = click.option(
    "--download",
    is_flag=True,
    help="Fetch OWNER/NAME from the hub, ModelScope unless --hub says otherwise, as far as it is not in the cache.",
)
size_option = click.option(
    *("--tp", "--tensor-parallel-size", "size"),
    type=click.IntRange(1, 1024),
    help="Of a published tree, take the directory of this tensor-parallel size.",
)


def takes_models(*names: str, size: str | None = None) -> Callable[[F], F]:
    """Gives a command --hub and --download; its arguments of these names, each a word or several, arrive as folders.

    size: the option that chooses a directory of a published tree. One called size is not handed on; of one that can be
    given several times, a single number chooses.
    """

    def give(function: F) -> F:
        @functools.wraps(function)
        def command(hub: Any, download: bool, **arguments: Any) -> Any:
            from ..hub.locate import locate

            out = Output(quiet=arguments.get("quiet", False), log=arguments.get("log"))
            tp = arguments.pop("size", None) if size == "size" else arguments.get(size or "")
            if isinstance(tp, tuple):
                tp = tp[0] if len(tp) == 1 else None

            def folder(word: str) -> str:
                return str(locate(word, tp=tp, hub=hub, download=download, progress=out))

            for name in names:
                given = arguments[name]
                if isinstance(given, tuple):
                    arguments[name] = tuple(map(folder, given))
                elif given is not None:
                    arguments[name] = folder(given)
            return function(**arguments)

        return hub_option(download_option(command))  # type: ignore[return-value]

    return give
