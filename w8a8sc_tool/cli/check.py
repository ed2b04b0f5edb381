"""The commands that look at what is there: verify, compare, inspect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..io.amounts import size
from .group import common, group, logged
from .models import size_option, takes_models
from .options import takes
from .output import Output
from .spelling import spelled

if TYPE_CHECKING:
    from ..checking.compare import Comparison
    from ..checking.tree import TreeReport
    from ..checking.verify import Report
    from ..jobs.inspect import Inspection, ModuleRow
    from .job_log import JobLog


@group.command(short_help="Prove that a directory is whole, and equal to its source")
@click.argument("path")
@click.option("--source", help="Also compare every value with this W8A8S checkpoint.")
@click.option("--quick", is_flag=True, help="Check sizes and structure only: no hashes, no decoding.")
@takes("processes")
@size_option
@logged
@takes_models("path", "source", size="size")
@common
def verify(
    path: str,
    source: str | None,
    quick: bool,
    processes: int | None,
    as_json: bool,
    quiet: bool,
    log: JobLog | None,
) -> int:
    """Check that a sharded_state directory is whole and, with --source, that it holds the right weights.

    PATH may also be a published tree, NAME-w8a8sc-310-vllm with TP1, TP2, ...: all of its directories are checked.

    \b
    Example:
      w8a8sc verify Qwen3-8B-w8a8sc-310-vllm/TP1/Qwen3-8B-w8a8sc-310-vllm-tp1 --source /models/Qwen3-8B-w8a8s-310
    """
    from ..checking import tree as job

    out = Output(as_json=as_json, quiet=quiet, log=log)
    report = job.verify_path(path, source=source, quick=quick, processes=processes, progress=out)
    out.times()
    out.document(report.document())
    if isinstance(report, job.TreeReport):
        _show_tree(report, out)
    else:
        _show_report(report, out)
    return report.exit_code


@group.command(short_help="Say whether two directories hold the same model")
@click.argument("first")
@click.argument("second")
@takes("processes")
@size_option
@takes_models("first", "second", size="size")
@common
def compare(first: str, second: str, processes: int | None, as_json: bool, quiet: bool) -> int:
    """Say whether two sharded_state directories hold the same model, and what differs in their coding.

    Directories of any origin: two of ours, one made by the vendor's script, one downloaded.

    \b
    Example:
      w8a8sc compare Qwen3-8B-w8a8sc-310-vllm-tp1 downloads/Qwen3-8B-w8a8sc-310-vllm-tp1
    """
    from ..checking import compare as job

    out = Output(as_json=as_json, quiet=quiet)
    comparison = job.compare(first, second, processes=processes, progress=out)
    out.document(comparison.document())
    _show_comparison(comparison, out)
    return comparison.exit_code


@group.command(short_help="Show what a checkpoint or a directory holds")
@click.argument("path")
@size_option
@takes_models("path", size="size")
@common
def inspect(path: str, as_json: bool, quiet: bool) -> None:
    """Show what a checkpoint or a sharded_state directory holds, layer by layer and in total.

    \b
    Example:
      w8a8sc inspect /models/Qwen3-8B-w8a8s-310
    """
    from ..jobs import inspect as job

    out = Output(as_json=as_json, quiet=quiet)
    inspection = job.inspect(path)
    for warning in inspection.warnings:
        out.note(warning)
    out.document(inspection.document())
    _show_inspection(inspection, out)


def _show_report(report: Report, out: Output) -> None:
    for finding in report.findings:
        out.result(f"{finding.where}: {finding.message}")
    for gap in report.not_checked:
        out.result(f"not checked: {spelled(gap)}")
    out.result(_verdict(report))


def _verdict(report: Report) -> str:
    against = f", equal to what {report.against_source} becomes" if report.against_source and report.ok else ""
    verdict = "verified" if report.ok else f"{len(report.findings)} errors"
    return (
        f"{verdict}: TP {report.tp}, {report.tensors} tensors ({report.compressed_weights} compressed weights), "
        f"{size(report.bytes)}{against}"
    )


def _show_tree(tree: TreeReport, out: Output) -> None:
    """What is wrong, then a line per directory, the tree's own last."""
    for finding in [*tree.findings, *(finding for report in tree.reports for finding in report.findings)]:
        out.result(f"{finding.where}: {finding.message}")
    for gap in tree.not_checked:
        out.result(f"not checked: {gap}")
    gaps = dict.fromkeys(gap for report in tree.reports for gap in report.not_checked)
    for gap in gaps:
        of = [str(report.directory.relative_to(tree.tree)) for report in tree.reports if gap in report.not_checked]
        out.result(f"not checked of {', '.join(of)}: {spelled(gap)}")
    for report in tree.reports:
        out.result(f"{report.directory.relative_to(tree.tree)}: {_verdict(report)}")
    wrong = sum(not report.ok for report in tree.reports)
    count = f"{len(tree.reports)} directories" if len(tree.reports) > 1 else "1 directory"
    errors = f"{len(tree.findings)} errors of the tree" if tree.findings else ""
    verdict = ", ".join(filter(None, [errors, f"{wrong} with errors" if wrong else ""])) or "all verified"
    out.result(f"{tree.tree}: {count}, {verdict}")


def _show_comparison(comparison: Comparison, out: Output) -> None:
    for difference in comparison.differences:
        out.result(difference)
    for path, coding in zip((comparison.first, comparison.second), comparison.coding):
        aspects = "; ".join(
            f"{aspect}: " + ", ".join(f"{value} ({count})" for value, count in sorted(values.items()))
            for aspect, values in coding.items()
        )
        if aspects:
            out.result(f"coding of {path}: {aspects}")
    verdict = "the same model" if comparison.same_model else f"{len(comparison.differences)} differences"
    same = ", byte for byte" if comparison.same_model and comparison.same_bytes else ""
    out.result(
        f"{verdict}{same}: TP {comparison.tp}, {comparison.tensors} tensors, "
        f"{comparison.compressed_weights} compressed weights"
    )


def _show_inspection(inspection: Inspection, out: Output) -> None:
    from ..layouts import REGISTRY

    sharded = f"sharded_state at TP {inspection.tp}{', sealed' if inspection.sealed else ''}"
    kind = sharded if inspection.kind == "sharded_state" else "checkpoint"
    out.result(
        f"{inspection.path}: {inspection.architecture}, {kind}, {inspection.files} files, {size(inspection.bytes)}"
    )
    present = {row.short_name: row.experts for row in inspection.modules if row.layer >= 0}
    columns = [name for name in REGISTRY[inspection.architecture].linear_names if name in present]
    columns += [name for name, experts in present.items() if experts]
    by_layer: dict[int, list[ModuleRow]] = {}
    for row in inspection.modules:
        by_layer.setdefault(row.layer, []).append(row)
    rows = [("layer", *(_heading(name) for name in columns), "bytes")]
    for layer, modules in sorted(by_layer.items()):
        if layer < 0:
            continue
        cells = {row.short_name: _cell(row) for row in modules}
        rows.append((str(layer), *(cells.get(name, "") for name in columns), size(sum(r.bytes for r in modules))))
    if len(rows) > 1:
        out.table(rows, right=(0, len(columns) + 1))
    for kind, (count, total) in inspection.totals().items():
        out.result(f"{kind}: {count} modules, {size(total)}")


def _heading(name: str) -> str:
    inside = name.partition(".")[2] or name
    return inside.removesuffix("_proj").removeprefix("in_proj_")


def _cell(row: ModuleRow) -> str:
    if row.quantization == "W8A8SC" and row.ratio is not None:
        return f"W8A8SC {row.ratio:.3f}"
    return f"{row.quantization} {row.fallback}" if row.fallback else row.quantization
