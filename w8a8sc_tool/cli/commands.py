"""The commands: options, one call into the API, and what is printed of its result."""

# Jobs are imported inside the commands: `w8a8sc --help` has to answer without loading numpy or numba.

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .. import VERSION
from ..errors import MissingError, UsageError
from .output import Output, duration, size

if TYPE_CHECKING:
    from ..jobs.compare import Comparison
    from ..jobs.compress import Compressed
    from ..jobs.generate import Generated
    from ..jobs.inspect import Inspection, ModuleRow
    from ..jobs.verify import Report
    from ..plan import Plan

F = TypeVar("F", bound=Callable[..., Any])


def _common(function: F) -> F:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document."),
        click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
    ):
        function = option(function)
    return function


_processes = click.option(
    "-j", "--processes", type=click.IntRange(1, 1024), help="Worker processes [default: cores and memory allow]."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="w8a8sc", message="%(prog)s %(version)s")
def group() -> None:
    """Compress W8A8S checkpoints into W8A8SC sharded_state directories for Ascend 310P."""


@group.command()
@click.argument("model")
@click.option(
    *("--tp", "--tensor-parallel-size", "tp"),
    type=click.IntRange(1, 1024),
    multiple=True,
    default=(1,),
    show_default=True,
    help="Tensor-parallel size to serve with; may be given several times.",
)
@click.option("-o", "--output", default=".", help="Folder below which the directories are created [default: here].")
@click.option("--name", help="The model's name in folder names [default: from MODEL].")
@_processes
@click.option("--backend", type=click.Choice(["auto", "native", "msmodelslim"]), default="auto", show_default=True)
@click.option("--executor", metavar="vendor|builtin|PATH", help="What msmodelslim starts for each tensor.")
@click.option(
    "--preset", default="auto", show_default=True, metavar="auto|none|FILE", help="What is known of the model."
)
@click.option(
    "--keep", multiple=True, metavar="PATTERN", help="Leave these layers uncompressed; * and ? as in a shell."
)
@click.option("--max-ratio", type=float, help="Keep layers W8A8S that do not compress below this [default: 0.95].")
@click.option("--target", type=click.Choice(["0.18", "0.23"]), default="0.18", show_default=True, help="vLLM Ascend.")
@click.option("--no-compress", is_flag=True, help="Write an uncompressed W8A8S directory.")
@click.option("--dry-run", is_flag=True, help="Print what would be made, and make nothing.")
@click.option("--overwrite", is_flag=True, help="Replace an existing directory once the new one is complete.")
@click.option("--no-resume", is_flag=True, help="Discard what an interrupted run left instead of going on with it.")
@click.option("--no-verify", is_flag=True, help="Do not read the output back.")
@_common
def compress(
    model: str,
    tp: tuple[int, ...],
    output: str,
    name: str | None,
    processes: int | None,
    backend: str,
    executor: str | None,
    preset: str,
    keep: tuple[str, ...],
    max_ratio: float | None,
    target: Any,
    no_compress: bool,
    dry_run: bool,
    overwrite: bool,
    no_resume: bool,
    no_verify: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compress the W8A8S checkpoint MODEL for one or more tensor-parallel sizes.

    \b
    Example:
      w8a8sc compress /models/Qwen3-32B-w8a8s-310 --tp 4 -o /models/compressed
    """
    from ..jobs import compress as job

    out = Output(as_json=as_json, quiet=quiet)
    if dry_run:
        plans = job.plan(
            *(model,), tp=tp, max_ratio=max_ratio, keep=keep, preset=preset, target=target, compress=not no_compress
        )
        out.document([_plan_document(plan) for plan in plans])
        for plan in plans:
            _show_plan(plan, out)
        return
    results = job.compress(
        *(model, output),
        tp=tp,
        name=name,
        processes=processes,
        max_ratio=max_ratio,
        keep=keep,
        preset=preset,
        target=target,
        compress=not no_compress,
        backend=backend,
        executor=executor,
        overwrite=overwrite,
        resume=not no_resume,
        verify_output=not no_verify,
        progress=out,
    )
    out.document([_compressed_document(result) for result in results])
    for result in results:
        _show_compressed(result, out)


@group.command()
@click.argument("directory")
@click.option("--source", help="Also compare every tensor with this W8A8S checkpoint.")
@click.option("--quick", is_flag=True, help="Check sizes and structure only.")
@_processes
@_common
def verify(directory: str, source: str | None, quick: bool, processes: int | None, as_json: bool, quiet: bool) -> int:
    """Check that a sharded_state DIRECTORY is whole and, with --source, that it holds the right weights.

    \b
    Example:
      w8a8sc verify Qwen3-8B-w8a8sc-310-vllm/TP1/Qwen3-8B-w8a8sc-310-vllm-tp1 --source /models/Qwen3-8B-w8a8s-310
    """
    from ..jobs import verify as job

    out = Output(as_json=as_json, quiet=quiet)
    report = job.verify(directory, source=source, quick=quick, processes=processes, progress=out)
    out.document(_report_document(report))
    _show_report(report, out)
    return 0 if report.ok else 1


@group.command()
@click.argument("first")
@click.argument("second")
@_processes
@_common
def compare(first: str, second: str, processes: int | None, as_json: bool, quiet: bool) -> int:
    """Say whether two sharded_state directories hold the same model, and what differs in their coding.

    Directories of any origin: two of ours, one made by the vendor's script, one downloaded.

    \b
    Example:
      w8a8sc compare Qwen3-8B-w8a8sc-310-vllm-tp1 downloads/Qwen3-8B-w8a8sc-310-vllm-tp1
    """
    from ..jobs import compare as job

    out = Output(as_json=as_json, quiet=quiet)
    found = job.compare(first, second, processes=processes, progress=out)
    out.document(_comparison_document(found))
    _show_comparison(found, out)
    return 0 if found.same_model else 1


@group.command()
@click.argument("directory")
@click.option("--prompt", help="Text; the chat template of the directory is applied.")
@click.option("--token-ids", metavar="1,2,3", help="Tokens instead of text.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=32, show_default=True)
@click.option("--temperature", type=click.FloatRange(0), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-k", type=click.IntRange(0), default=0, show_default=True, help="0 considers all tokens.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--compare", metavar="MODEL", help="Give this W8A8S checkpoint the same prompt, and compare.")
@click.option("--device", type=click.Choice(["cpu", "npu"]), default="cpu", show_default=True)
@_common
def generate(
    directory: str,
    prompt: str | None,
    token_ids: str | None,
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    seed: int,
    compare: str | None,
    device: str,
    as_json: bool,
    quiet: bool,
) -> int:
    """Generate text from a sharded_state DIRECTORY with the bundled runtime, one process per rank.

    \b
    Example:
      w8a8sc generate Qwen3-8B-w8a8sc-310-vllm/TP2/Qwen3-8B-w8a8sc-310-vllm-tp2 --prompt "Who are you?"
    """
    from ..jobs import generate as job

    out = Output(as_json=as_json, quiet=quiet)
    found = job.generate(
        directory,
        prompt=prompt,
        token_ids=_tokens_of(token_ids),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
        compare=compare,
        device=device,
        on_token=lambda token, text: out.stream(text),
    )
    out.document(_generated_document(found))
    _show_generated(found, out)
    return 0 if found.ok else 1


@group.command()
@click.option("--device", is_flag=True, required=True, help="Run the runtime's operators on NPU 0 against the CPU.")
@_common
def doctor(device: bool, as_json: bool, quiet: bool) -> int:
    """Examine this machine. With --device: does its NPU compute what the CPU reference says?

    \b
    Example:
      w8a8sc doctor --device
    """
    from ..jobs.device import check_device

    out = Output(as_json=as_json, quiet=quiet)
    report = check_device()
    out.document(
        {
            "ok": report.ok,
            "missing": report.missing,
            "operators": [
                {"operator": o.operator, "shape": o.shape, "ok": o.ok, "difference": o.difference, "error": o.error}
                for o in report.outcomes
            ],
        }
    )
    for missing in report.missing:
        out.result(f"missing: {missing}")
    for o in report.outcomes:
        told = o.error or f"difference {o.difference:.2g}, allowed {o.allowed:g}"
        out.result(f"{'ok    ' if o.ok else 'WRONG '} {o.operator}, {o.shape}: {told}")
    return 4 if report.missing else 0 if report.ok else 1


@group.command("compile")
@_common
def compile_kernels(as_json: bool, quiet: bool) -> None:
    """Compile the kernels now, so that no later start has to: for image builds.

    \b
    Example:
      RUN pip install w8a8sc && w8a8sc compile
    """
    from ..codec.jit import CACHE_VARIABLE, cache_folder

    folder = cache_folder()
    if folder is None:
        raise MissingError("no folder for compiled kernels can be written", remedy=f"set {CACHE_VARIABLE} to one")
    import_module("w8a8sc_tool.codec.matrix")
    out = Output(as_json=as_json, quiet=quiet)
    out.document({"folder": str(folder)})
    out.result(f"compiled kernels are in {folder}")


@group.command("install-executor")
@click.option("--uninstall", is_flag=True, help="Remove it again.")
@_common
def install_executor(uninstall: bool, as_json: bool, quiet: bool) -> None:
    """Give the installed msmodelslim an executor, so that it compresses without CANN.

    The executor is this project's codec. An executor that was built with CANN is never replaced.

    \b
    Example:
      pip install 'w8a8sc[msmodelslim]' && w8a8sc install-executor
    """
    from ..backends import msmodelslim as backend

    out = Output(as_json=as_json, quiet=quiet)
    path = backend.uninstall_executor() if uninstall else backend.install_executor()
    out.document({"executor": str(path) if path else None, "installed": not uninstall})
    if uninstall:
        out.result(f"removed {path}" if path else "nothing to remove: msmodelslim has no executor of ours")
    else:
        out.result(f"{path}: msmodelslim now compresses with w8a8sc's codec")


@group.command()
@click.argument("path")
@_common
def inspect(path: str, as_json: bool, quiet: bool) -> None:
    """Show what a checkpoint or a sharded_state directory holds, layer by layer and in total.

    \b
    Example:
      w8a8sc inspect /models/Qwen3-8B-w8a8s-310
    """
    from ..jobs import inspect as job

    out = Output(as_json=as_json, quiet=quiet)
    found = job.inspect(path)
    for warning in found.warnings:
        out.note(warning)
    out.document(_inspection_document(found))
    _show_inspection(found, out)


@group.command()
@click.argument("folder")
@click.option("--preset", default="tiny", show_default=True, help="qwen3-8b, qwen3-14b, qwen3-32b or tiny.")
@click.option("--layers", type=click.IntRange(1, 4096), help="Decoder layers [default: the preset's].")
@click.option("--dtype", type=click.Choice(["float16", "bfloat16"]), default="float16", show_default=True)
@click.option("--tied/--untied", default=False, help="Share embeddings and lm_head [default: untied].")
@click.option("--norm-bias/--no-norm-bias", default=None, help="Norms with bias [default: the preset's].")
@click.option("--vocab-size", type=click.IntRange(320, 1 << 20), help="Tokens [default: the preset's].")
@click.option("--float", "floats", multiple=True, metavar="PATTERN", help="FLOAT layers instead of the recipe's.")
@click.option("--w8a8", "w8a8", multiple=True, metavar="PATTERN", help="W8A8 layers.")
@click.option("--dynamic", multiple=True, metavar="PATTERN", help="W8A8_DYNAMIC layers.")
@click.option("--no-float", is_flag=True, help="No FLOAT layers.")
@click.option("--part-size", type=float, metavar="GB", help="Split into files of about this size; 0 for one file.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@_common
def synthesize(
    folder: str,
    preset: str,
    layers: int | None,
    dtype: Any,
    tied: bool,
    norm_bias: bool | None,
    vocab_size: int | None,
    floats: tuple[str, ...],
    w8a8: tuple[str, ...],
    dynamic: tuple[str, ...],
    no_float: bool,
    part_size: float | None,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a W8A8S checkpoint with random weights to FOLDER, to try things on.

    \b
    Example:
      w8a8sc synthesize Qwen3-8B-w8a8s-310 --preset qwen3-8b --layers 2
    """
    from ..checkpoint import synthesize as job

    out = Output(as_json=as_json, quiet=quiet)
    types = None
    if floats or w8a8 or dynamic or no_float:
        recipe = () if no_float or floats else job.MODELS[preset].float_layers if preset in job.MODELS else ()
        types = (
            [(p, "W8A8") for p in w8a8]
            + [(p, "W8A8_DYNAMIC") for p in dynamic]
            + [(p, "FLOAT") for p in (*floats, *recipe)]
        )
    written = 0

    def count(nbytes: int, total: int) -> None:
        nonlocal written
        if not written:
            out.begin(f"synthesizing {preset}", total)
        written += nbytes
        out.advance(nbytes)

    path = job.synthesize(
        *(folder, preset),
        layers=layers,
        dtype=dtype,
        tied=tied,
        norm_bias=norm_bias,
        vocabulary=vocab_size,
        types=types,
        part_bytes=None if part_size is None else int(part_size * 1e9),
        seed=seed,
        advance=count,
    )
    out.end()
    out.document({"folder": str(path), "weight_bytes": written})
    out.result(f"{path}: {size(written)} of weights")


# ------------------------------------------------------------------------------------------------ what is printed


def _plan_document(plan: Plan) -> dict[str, Any]:
    return {
        "tensor_parallel_size": plan.tp,
        "source_bytes": plan.source_bytes,
        "estimated_bytes_per_rank": plan.estimated_rank_bytes,
        "warnings": list(plan.warnings),
        "tensors": list(plan.records()),
    }


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


def _compressed_document(result: Compressed) -> dict[str, Any]:
    return {
        "directory": str(result.directory),
        "tensor_parallel_size": result.tp,
        "already_done": result.already_done,
        "source_bytes": result.source_bytes,
        "output_bytes": result.output_bytes,
        "weight_ratio": result.weight_ratio,
        "fallbacks": result.fallbacks,
        "seconds": round(result.seconds, 3),
        "warnings": list(result.warnings),
        "serve": _serve_command(result),
    }


def _serve_command(result: Compressed) -> str:
    import shlex

    # The flags every sharded_state directory needs on 310P, as vLLM Ascend's guide gives them.
    words = ["vllm", "serve", str(result.directory), "--tensor-parallel-size", str(result.tp), "--dtype", "float16"]
    words += ["--quantization", "ascend", "--load_format", "sharded_state", "--max-model-len", "16384"]
    return shlex.join([*words, "--no-enable-prefix-caching"])


def _show_compressed(result: Compressed, out: Output) -> None:
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
        out.result(f"  compressed weights take {result.weight_ratio:.3f} of their int8 size")
    for reason, count in sorted(result.fallbacks.items()):
        out.result(f"  {count} layers not compressed ({reason}: {_REASONS[reason]})")
    out.result(f"  serve it with: {_serve_command(result)}")


_REASONS = {
    "source": "the checkpoint holds them in another type",
    "pinned": "as asked",
    "shape": "the 310P kernel cannot take their size",
    "ratio": "compression would not pay",
}


def _report_document(report: Report) -> dict[str, Any]:
    return {
        "directory": str(report.directory),
        "ok": report.ok,
        "tensor_parallel_size": report.tp,
        "manifest": report.has_manifest,
        "source": str(report.against_source) if report.against_source else None,
        "tensors": report.tensors,
        "bytes": report.bytes,
        "compressed_weights": report.compressed_weights,
        "findings": [{"what": finding.what, "where": finding.where} for finding in report.findings],
        "not_checked": report.not_checked,
    }


def _show_report(report: Report, out: Output) -> None:
    for finding in report.findings:
        out.result(f"{finding.where}: {finding.what}")
    for gap in report.not_checked:
        out.result(f"not checked: {gap}")
    against = f", equal to what {report.against_source} becomes" if report.against_source and report.ok else ""
    verdict = "verified" if report.ok else f"{len(report.findings)} errors"
    out.result(
        f"{verdict}: TP {report.tp}, {report.tensors} tensors ({report.compressed_weights} compressed weights), "
        f"{size(report.bytes)}{against}"
    )


def _comparison_document(found: Comparison) -> dict[str, Any]:
    return {
        "first": str(found.first),
        "second": str(found.second),
        "same_model": found.same_model,
        "same_bytes": found.same_bytes,
        "tensor_parallel_size": found.tp,
        "tensors": found.tensors,
        "compressed_weights": found.compressed_weights,
        "differences": found.differences,
        "coding": found.coding,
    }


def _show_comparison(found: Comparison, out: Output) -> None:
    for difference in found.differences:
        out.result(difference)
    for path, coding in zip((found.first, found.second), found.coding):
        told = "; ".join(
            f"{aspect}: " + ", ".join(f"{value} ({count})" for value, count in sorted(values.items()))
            for aspect, values in coding.items()
        )
        if told:
            out.result(f"coding of {path}: {told}")
    verdict = "the same model" if found.same_model else f"{len(found.differences)} differences"
    same = ", byte for byte" if found.same_model and found.same_bytes else ""
    out.result(
        f"{verdict}{same}: TP {found.tp}, {found.tensors} tensors, {found.compressed_weights} compressed weights"
    )


def _tokens_of(text: str | None) -> list[int] | None:
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and len(word) < 10 for word in words):
        raise UsageError(f"--token-ids {text[:40]} is not a list of numbers like 1,2,3")
    return [int(word) for word in words]


def _generated_document(found: Generated) -> dict[str, Any]:
    return {
        "prompt_tokens": found.prompt,
        "tokens": found.tokens,
        "text": found.text,
        "tensor_parallel_size": found.tp,
        "load_seconds": round(found.load_seconds, 3),
        "prompt_seconds": round(found.prompt_seconds, 3),
        "tokens_per_second": round(found.tokens_per_second, 2),
        "compared": found.compared,
        "differs_at": found.differs_at,
        "margin_there": round(found.margin_there, 4) if found.differs_at is not None else None,
        "ok": found.ok,
    }


def _show_generated(found: Generated, out: Output) -> None:
    out.result("" if found.text is not None else ",".join(map(str, found.tokens)))
    out.note(
        f"TP {found.tp}: {len(found.prompt)} tokens of prompt in {found.prompt_seconds:.2f} s, "
        f"{len(found.tokens)} generated, {found.tokens_per_second:.1f} per second"
    )
    if not found.compared:
        return
    if found.differs_at is None:
        out.result("the source checkpoint gives the same tokens")
    else:
        word = "within the rounding of the ranks' sums" if found.ok else "more than rounding explains"
        out.result(
            f"token {found.differs_at} differs from the source's, whose best two logits are {found.margin_there:.3f} "
            f"apart: {word}"
        )


def _inspection_document(found: Inspection) -> dict[str, Any]:
    return {
        "path": str(found.path),
        "kind": found.kind,
        "architecture": found.architecture,
        "tensor_parallel_size": found.tp if found.kind == "sharded_state" else None,
        "sealed": found.sealed,
        "files": found.files,
        "bytes": found.bytes,
        "totals": {kind: {"modules": count, "bytes": total} for kind, (count, total) in found.totals().items()},
        "modules": [
            {
                "name": row.name,
                "layer": row.layer,
                "quantization": row.quantization,
                "shape": list(row.shape) if row.shape is not None else None,
                "bytes": row.bytes,
                "ratio": row.ratio,
                "fallback": row.fallback,
            }
            for row in found.modules
        ],
        "warnings": found.warnings,
    }


def _show_inspection(found: Inspection, out: Output) -> None:
    sharded = f"sharded_state at TP {found.tp}{', sealed' if found.sealed else ''}"
    kind = sharded if found.kind == "sharded_state" else "checkpoint"
    out.result(f"{found.path}: {found.architecture}, {kind}, {found.files} files, {size(found.bytes)}")
    columns = list(dict.fromkeys(row.short_name for row in found.modules if row.linear))
    by_layer: dict[int, list[ModuleRow]] = {}
    for row in found.modules:
        by_layer.setdefault(row.layer, []).append(row)
    rows = [("layer", *(name.rpartition(".")[2].removesuffix("_proj") for name in columns), "bytes")]
    for layer, modules in sorted(by_layer.items()):
        if layer < 0:
            continue
        cells = {row.short_name: _cell(row) for row in modules}
        rows.append((str(layer), *(cells.get(name, "") for name in columns), size(sum(r.bytes for r in modules))))
    if len(rows) > 1:
        out.table(rows, right=(0, len(columns) + 1))
    for kind, (count, total) in found.totals().items():
        out.result(f"{kind}: {count} modules, {size(total)}")


def _cell(row: ModuleRow) -> str:
    if row.quantization == "W8A8SC" and row.ratio is not None:
        return f"W8A8SC {row.ratio:.3f}"
    return f"{row.quantization} {row.fallback}" if row.fallback else row.quantization
