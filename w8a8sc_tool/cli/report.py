"""The report: its command, and the option by which commands that make directories write one at their end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..io.amounts import size
from .group import F, common, group
from .models import takes_models
from .options import takes
from .output import Output

if TYPE_CHECKING:
    from ..reporting.report import ReportPage


def reports(function: F) -> F:
    """--report, of a command that makes directories."""
    text = "Also write a report of what was made into this HTML file, at the end."
    return click.option("--report", metavar="FILE", help=text)(function)


def ready(file: str | None) -> None:
    """Raises, before any work, if the report that is asked for could not be written."""
    if file is not None:
        from ..reporting.report import check_ready

        check_ready(Path(file))


def say_written(page: ReportPage, out: Output) -> None:
    """A line on the report of what a command made."""
    out.note(f"report: {page.page}")


@group.command(short_help="Write an HTML page about checkpoints, directories or a batch")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "-o", "--output", metavar="FILE", help="The HTML file [default: NAME-report.html here, after the first PATH]."
)
@click.option("--read", is_flag=True, help="Also read and check every byte of directories, as verify does.")
@click.option("--source", metavar="MODEL", help="Also compare every value with this W8A8S checkpoint.")
@click.option("--overwrite", is_flag=True, help="Replace the output even if it is no report.")
@takes("processes")
@takes_models("paths", "source")
@common
def report(
    paths: tuple[str, ...],
    output: str | None,
    read: bool,
    source: str | None,
    overwrite: bool,
    processes: int | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Write one HTML file about checkpoints, directories, published trees, or the outcome of a batch.

    Several PATHs stand side by side. A PATH that is a file is what batch --json printed.

    \b
    Example:
      w8a8sc report Qwen3-8B-w8a8sc-310-vllm -o Qwen3-8B.html
    """
    from ..reporting import report as job

    out = Output(as_json=as_json, quiet=quiet, makes=True)
    page = job.report(
        paths,
        output,
        source=source,
        read=read,
        overwrite=overwrite,
        processes=processes,
        progress=out,
    )
    out.document(page.document())
    for subject in page.subjects:
        count = len(subject.problems)
        out.result(
            f"{subject.path}: {f'{count} problems' if count > 1 else subject.problems[0] if count else 'no problems'}"
        )
    out.result(f"{page.page}: {size(page.bytes)}")
    return page.exit_code
