"""The group of all commands, and the options that many of them have."""

# Jobs are imported inside the commands: `w8a8sc --help` has to answer without loading numpy or numba.

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from .._version import VERSION

F = TypeVar("F", bound=Callable[..., Any])


def common(function: F) -> F:
    """--json and --quiet."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document."),
        click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
    ):
        function = option(function)
    return function


processes_option = click.option(
    "-j", "--processes", type=click.IntRange(1, 1024), help="Worker processes [default: cores and memory allow]."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="w8a8sc", message="%(prog)s %(version)s")
def group() -> None:
    """Compress W8A8S checkpoints into W8A8SC sharded_state directories for Ascend 310P."""
