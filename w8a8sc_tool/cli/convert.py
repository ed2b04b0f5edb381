"""The commands that make directories: options, one call into the API, and what is printed of its result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from ..errors import UsageError
from ..io.amounts import size
from ..options import CompressOptions
from .group import F, common, group, logged
from .meter import duration
from .models import download_option, hub_option, size_option, takes_models
from .options import takes
from .output import Output
from .report import ready, reports, say_written
from .spelling import spelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..conversion.convert import Compressed
    from ..conversion.preparation import Prepared
    from ..jobs.serving import Advice
    from ..options import CompressKeywords
    from ..planning import Plan
    from .job_log import JobLog


@group.command(short_help="Turn a W8A8S checkpoint into directories that vLLM serves")
@click.argument("model")
@takes("tp")
@click.option("-o", "--output", default=".", help="Folder below which the directories are created [default: here].")
@takes("name", "processes", "backend", "executor", "preset", "keep", "max_ratio", "target", "compress", "max_file_size")
@click.option("--dry-run", is_flag=True, help="Print what would be made, and make nothing.")
@takes("overwrite", "resume", "verify")
@reports
@logged
@takes_models("model")
@common
def compress(
    model: str,
    output: str,
    dry_run: bool,
    report: str | None,
    as_json: bool,
    quiet: bool,
    log: JobLog | None,
    **keywords: Any,
) -> None:
    """Compress the W8A8S checkpoint MODEL for one or more tensor-parallel sizes.

    \b
    Example:
      w8a8sc compress /models/Qwen3-32B-w8a8s-310 --tp 4 -o /models/compressed
    """
    from ..jobs import compress as job

    out = Output(as_json=as_json, quiet=quiet, makes=not dry_run, log=log)
    options = CompressOptions.of(cast("CompressKeywords", keywords))
    if dry_run and report is not None:
        raise UsageError("--report does not go with --dry-run, which makes nothing to report on")
    if dry_run:
        _dry_run(job.prepare(model, output, options, out), out)
        return
    ready(report)
    results = job.carry_out(model, output, options, out)
    _show_results(results, out)
    if report is not None:
        from ..reporting.report import report_results

        say_written(report_results(results, Path(report), read_back=options.verify), out)


def _of_directory(function: F) -> F:
    """What commands take that make directories of directories."""
    for option in (
        common,
        takes_models("directory", size="size"),
        logged,
        takes("processes", "max_file_size", "overwrite", "resume", "verify"),
        click.option("-o", "--output", default=".", help="Folder below which it is created [default: here]."),
        click.argument("directory"),
    ):
        function = option(function)
    return function


@group.command(short_help="Cut a directory for other tensor-parallel sizes")
@_of_directory
@click.option(
    *("--tp", "--tensor-parallel-size", "tp"),
    type=click.IntRange(1, 1024),
    multiple=True,
    required=True,
    help="Tensor-parallel size to cut for; may be given several times.",
)
@click.option(
    *("--from-tp", "size"), type=click.IntRange(1, 1024), help="Of a published tree, start from this size's directory."
)
def reshard(directory: str, tp: tuple[int, ...], **how: Any) -> None:
    """Cut a sharded_state DIRECTORY for other tensor-parallel sizes, without its source.

    \b
    Example:
      w8a8sc reshard Qwen3-32B-w8a8sc-310-vllm/TP4/Qwen3-32B-w8a8sc-310-vllm-tp4 --tp 2 -o /models
    """
    _reshard(directory, tp, compress=True, **how)


@group.command(short_help="Turn a directory back into W8A8S")
@_of_directory
@click.option("--checkpoint", is_flag=True, help="Write an unsharded checkpoint with the original tensor names.")
@size_option
def decompress(directory: str, checkpoint: bool, **how: Any) -> None:
    """Turn a W8A8SC sharded_state DIRECTORY back into W8A8S: a directory of the same size, or a checkpoint.

    \b
    Example:
      w8a8sc decompress Qwen3-8B-w8a8sc-310-vllm/TP1/Qwen3-8B-w8a8sc-310-vllm-tp1 --checkpoint -o /models
    """
    if not checkpoint:
        _reshard(directory, None, compress=False, **how)
        return
    others = {"processes": "-j", "max_file_size": "--max-file-size", "verify": "--no-verify", "resume": "--no-resume"}
    for name, flag in others.items():
        if how[name] not in (True, None):
            raise UsageError(
                f"{flag} does not go with --checkpoint, which is one file, written by one process in one go"
            )
    from ..jobs.reshard import to_checkpoint

    out = Output(as_json=how["as_json"], quiet=how["quiet"], makes=True, log=how["log"])
    path = to_checkpoint(directory, how["output"], overwrite=how["overwrite"], progress=out)
    out.times()
    out.document({"checkpoint": str(path)})
    out.result(str(path))


def _reshard(
    directory: str,
    tp: tuple[int, ...] | None,
    *,
    compress: bool,
    output: str,
    as_json: bool,
    quiet: bool,
    log: JobLog | None,
    **how: Any,
) -> None:
    from ..jobs import reshard as job

    out = Output(as_json=as_json, quiet=quiet, makes=True, log=log)
    results = job.reshard(directory, output, tp=tp, compress=compress, progress=out, **how)
    _show_results(results, out)


@group.command(short_help="Carry out many conversions that a YAML file lists")
@click.argument("file")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where jobs run: one after the other on this machine, or spread over a Ray cluster.",
)
@click.option(
    "--ray-address", metavar="ADDRESS", help="Address of the Ray cluster [default: the one this machine belongs to]."
)
@takes("processes")
@reports
@hub_option
@download_option
@common
@logged
def batch(
    file: str,
    engine: Any,
    ray_address: str | None,
    processes: int | None,
    hub: Any,
    download: bool,
    report: str | None,
    as_json: bool,
    quiet: bool,
    log: JobLog | None,
) -> int:
    """Carry out all conversions of a batch FILE (YAML).

    configs/batch.yaml explains the format. All jobs are checked before the first begins; the same command goes on where
    a run stopped.

    \b
    Example:
      w8a8sc batch models.yaml
    """
    from ..jobs import batch as job

    out = Output(as_json=as_json, quiet=quiet, makes=True, log=log)
    ready(report)
    outcomes = job.run_batch(
        file, engine=engine, address=ray_address, processes=processes, hub=hub, download=download, progress=out
    )
    out.times()
    out.document([outcome.document() for outcome in outcomes])
    rows = [("model", "TP", "state", "made", "time", "")]
    for outcome in outcomes:
        sizes, made = ", ".join(map(str, outcome.tp)), size(outcome.output_bytes) if outcome.ok else ""
        error = spelled(outcome.error).replace("\n", "; ")[:200]
        rows.append((outcome.model, sizes, outcome.state, made, duration(outcome.seconds), error))
    out.table(rows, right=(3, 4))
    if report is not None:
        from ..reporting.report import report_outcomes

        say_written(report_outcomes(outcomes, Path(report)), out)
    return max(outcome.exit_code for outcome in outcomes)


def _dry_run(prepared: Prepared, out: Output) -> None:
    """Show what a run would do, which has been prepared and goes no further."""
    targets = list(zip(prepared.plans, prepared.targets, prepared.done))
    out.document(prepared.document())
    for plan, target, done in targets:
        if done is not None:
            out.result(f"already done: {target} holds this checkpoint, made with these options")
        else:
            _show_plan(plan, out)


def _show_plan(plan: Plan, out: Output) -> None:
    rows = [("tensor", "dtype", "shape per rank", "type", "cut", "fallback", "about")]
    for record in plan.records():
        rows.append(
            (
                record["name"],
                record["dtype"],
                "x".join(map(str, record["shape"])) or "scalar",
                record["quantization"],
                record["cut"],
                record["fallback"] or ("open" if record["ratio"] else ""),
                size(record["bytes"]),
            )
        )
    out.table(rows, right=(2, 6))
    total = size(plan.estimated_rank_bytes)
    out.result(f"TP {plan.tp}: {len(rows) - 1} tensors per rank, about {total} each, {size(plan.source_bytes)} read")
    for warning in plan.warnings:
        out.note(warning)


def _show_results(results: Sequence[Compressed], out: Output) -> None:
    if out.silent:  # the advice takes a twentieth of a second to import
        return
    from ..jobs.serving import advise

    out.times()
    advices = [advise(result) for result in results]
    out.document([result.document() | advice.document() for result, advice in zip(results, advices)])
    for result, advice in zip(results, advices):
        _show_compressed(result, advice, out)


@group.command(short_help="Write the model card of a published tree")
@click.argument("tree")
@click.option(
    "--base-model", metavar="OWNER/NAME", help="The model it was made of, as hubs name it [default: the source's word]."
)
@click.option("--license", metavar="ID", help="Its licence, as hubs name it [default: the source's word].")
@click.option(
    "--overwrite", is_flag=True, help="Replace a README.md that card did not write, or that was changed since."
)
@common
def card(tree: str, base_model: str | None, license: str | None, overwrite: bool, as_json: bool, quiet: bool) -> int:
    """Write README.md, the model card, into TREE: the folder that holds TP1, TP2, ... with a sealed directory each.

    \b
    Example:
      w8a8sc card Qwen3-8B-w8a8sc-310-vllm --base-model Qwen/Qwen3-8B
    """
    from ..jobs import card as job

    out = Output(as_json=as_json, quiet=quiet, makes=True)
    written = job.card(tree, base_model=base_model, license=license, overwrite=overwrite)
    for warning in written.warnings:
        out.note(warning)
    out.document(written.document())
    out.result(f"{written.readme}")
    for item in written.sizes:
        ratio = item.manifest.weight_ratio
        part = f", compressed weights take {ratio:.3f} of their int8 size" if ratio is not None else ""
        out.result(f"  TP {item.tp}: {item.path}, {size(item.largest_rank)} per rank{part}")
    return written.exit_code


def _show_compressed(result: Compressed, advice: Advice, out: Output) -> None:
    from ..planning import FALLBACK_REASONS

    if result.already_done:
        out.result(f"already done: {result.directory} holds this checkpoint, made with these options")
    else:
        speed = f"{result.source_bytes / 1e6 / max(result.seconds, 1e-6):.0f} MB/s"
        out.result(f"{result.directory}")
        out.result(
            f"  TP {result.tp}: {size(result.source_bytes)} in, {size(result.output_bytes)} out, "
            f"{duration(result.seconds)}, {speed}"
        )
    if result.weight_ratio is not None:
        share = result.compressed_share
        part = f"; they were {share:.0%} of all int8 weights" if share is not None and share < 1 else ""
        out.result(f"  compressed weights take {result.weight_ratio:.3f} of their int8 size{part}")
    elif result.manifest.options.get("compress", True):
        out.result("  nothing was compressed: the checkpoint has no layer that can be W8A8SC")
    for reason, count in sorted(result.fallbacks.items()):
        out.result(f"  {count} layers not compressed ({reason}: {FALLBACK_REASONS[reason]})")
    problem = f"  it cannot be served on usual chips: {advice.problem}"
    out.result(f"  serve it with: {advice.command}" if advice.command else problem)
