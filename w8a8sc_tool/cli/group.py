"""The group of all commands, and the options that many of them have."""

# Jobs are imported inside the commands: `w8a8sc --help` has to answer without loading numpy or numba.

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import click

from .._version import VERSION

USAGE: Final = 2  # the exit code of a command line that asks for nothing

F = TypeVar("F", bound=Callable[..., Any])


def common(function: F) -> F:
    """--json and --quiet."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document instead of text."),
        click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
    ):
        function = option(function)
    return function


def logged(function: F) -> F:
    """--log: the command is given the JobLog that it names, open, or None."""

    @click.option("--log", metavar="FILE", help="Append what is done to this file, as JSON lines.")
    @wraps(function)
    def command(*arguments: Any, log: str | None, **options: Any) -> Any:
        if log is None:
            return function(*arguments, log=None, **options)
        from .job_log import JobLog

        ctx = click.get_current_context()
        given = {name: value for name, value in ctx.params.items() if name != "log"}
        with JobLog(Path(log), ctx.info_name or "", given) as journal:
            result = function(*arguments, log=journal, **options)
            journal.done(result if isinstance(result, int) else 0)
        return result

    return cast("F", command)


class Sections(click.Group):
    """A group whose help lists its commands by what they are for, in the order of a first use."""

    SECTIONS: Final = {
        "Make": ("compress", "batch", "reshard", "decompress", "card", "synthesize"),
        "Check": ("inspect", "report", "verify", "compare", "fit", "doctor"),
        "Use": ("serve", "generate", "install-executor", "compile"),
    }

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in self.SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str()) for name in names])


@click.group(
    cls=Sections,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 bad input, 4 something is missing here, 130 interrupted, "
    "143 terminated.",
)
@click.version_option(VERSION, prog_name="w8a8sc", message="%(prog)s %(version)s")
@click.pass_context
def group(ctx: click.Context) -> int:
    """Compress W8A8S checkpoints into W8A8SC sharded_state directories for Ascend 310P.

    First use: w8a8sc compress MODEL --tp 4, then w8a8sc serve DIR.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    click.echo(ctx.get_help())
    return USAGE
