"""The commands that use a directory: generate, serve, fit, and doctor, which says whether the machine can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .group import F, common, group
from .models import size_option, takes_models
from .output import Output
from .spelling import spelled

if TYPE_CHECKING:
    from ..jobs.generate import Generated
    from ..jobs.serving import Prepared
    from ..serving import Estimate
    from ..serving.environment import Row


def chip_options(function: F) -> F:
    """What decides how long sequences may get: --chip-memory and --compressed-masks."""
    for option in (
        click.option(
            "--compressed-masks/--no-compressed-masks",
            default=False,
            help="Whether torch_npu has compressed masks: 2.10.0.post4 and later do [default: no].",
        ),
        click.option(
            "--chip-memory",
            default="43693M",
            show_default=True,
            help="Memory of one chip, in powers of 1024: half of a 300I Duo card's.",
        ),
    ):
        function = option(function)
    return function


@group.command(short_help="Generate text with the bundled runtime, on any machine")
@click.argument("directory")
@click.option("--prompt", help="Text to answer; the directory's chat template is applied.")
@click.option("--token-ids", metavar="1,2,3", help="Numbers of tokens instead of text; needs no tokenizer.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=32, show_default=True, help="Tokens to stop after.")
@click.option(
    "--temperature",
    type=click.FloatRange(0),
    help="Temperature of the sampling; 0 takes the likeliest token [default: generation_config.json's, else 1].",
)
@click.option(
    "--top-k",
    type=click.IntRange(0),
    help="Sample among this many tokens; 0 considers all [default: generation_config.json's, else 0].",
)
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    help="Sample among the likeliest tokens of this probability [default: generation_config.json's, else 1].",
)
@click.option(
    "--min-p",
    type=click.FloatRange(0, 1),
    help="Sample among tokens with this share of the likeliest's chance [default: generation_config.json's, else 0].",
)
@click.option(
    "--repetition-penalty",
    type=click.FloatRange(0, min_open=True),
    help="Divides logits of tokens that were there before [default: generation_config.json's, else 1].",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the sampling.")
@click.option("--compare", metavar="MODEL", help="Give this W8A8S checkpoint the same prompt, and compare.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "npu"]),
    default="cpu",
    show_default=True,
    help="What computes: this machine's processors, or its NPUs through torch_npu.",
)
@size_option
@takes_models("directory", "compare", size="size")
@common
def generate(
    directory: str,
    prompt: str | None,
    token_ids: str | None,
    max_new_tokens: int,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    repetition_penalty: float | None,
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
    generated = job.generate(
        directory,
        prompt=prompt,
        token_ids=_tokens_of(token_ids),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        compare=compare,
        device=device,
        on_token=lambda token, text: out.stream(text),
    )
    out.document(generated.document())
    _show_generated(generated, out)
    return generated.exit_code


@group.command(
    context_settings={"ignore_unknown_options": True}, short_help="Start vLLM with the options that 310P needs"
)
@click.argument("directory")
@click.option("--print", "print_only", is_flag=True, help="Print the command for a shell, and start nothing.")
@click.option(
    "--container", "in_container", is_flag=True, help="Print a docker run line that serves, and start nothing."
)
@click.option("--plugin-in-image", is_flag=True, help="The container's image has the plugin for vLLM (docs/vllm.md).")
@click.option(
    "--device",
    type=click.Choice(["npu", "cpu"]),
    default="npu",
    show_default=True,
    help="cpu: vLLM's engine on this machine's processors, to check a directory.",
)
@click.option("--force", is_flag=True, help="Only warn about what cannot work or does not fit, instead of refusing it.")
@chip_options
@click.option("--tp", type=click.IntRange(1, 1024), help="Tensor-parallel size: chooses a published tree's directory.")
@takes_models("directory", size="tp")
@click.argument("vllm_args", nargs=-1, type=click.UNPROCESSED)
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
def serve(
    directory: str,
    print_only: bool,
    in_container: bool,
    plugin_in_image: bool,
    device: str,
    force: bool,
    chip_memory: str,
    compressed_masks: bool,
    tp: int | None,
    vllm_args: tuple[str, ...],
    quiet: bool,
) -> None:
    """Serve a sharded_state DIRECTORY, or a W8A8S checkpoint, with vLLM Ascend on 310P.

    Options after -- are vLLM's, and win over those chosen here.

    \b
    Example:
      w8a8sc serve Qwen3-32B-w8a8sc-310-vllm/TP4/Qwen3-32B-w8a8sc-310-vllm-tp4 -- --port 8000
    """
    from ..jobs import serving as job
    from ..serving import parse_size

    out = Output(quiet=quiet)
    if tp is not None:
        vllm_args = ("--tensor-parallel-size", str(tp), *vllm_args)
    if device == "cpu" and (in_container or plugin_in_image):
        raise UsageError("--container and --plugin-in-image are for NPUs", remedy="leave out --device cpu, or them")
    if plugin_in_image and not in_container:
        raise UsageError("--plugin-in-image speaks of a container's image", remedy="give --container, too")
    if device == "cpu":
        _serve(job.prepare_for_cpu(directory, vllm_args, force=force), print_only, out)
        return
    prepared = job.prepare_serving(
        *(directory, vllm_args),
        in_container=in_container,
        plugin_in_image=plugin_in_image,
        force=force,
        chip_memory=parse_size(chip_memory),
        compressed_masks=compressed_masks,
    )
    _serve(prepared, print_only or in_container, out)


def _serve(prepared: Prepared, print_only: bool, out: Output) -> None:
    """Show the command, or become it."""
    from ..jobs import serving as job

    for note in prepared.notes:
        out.note(note)
    if print_only:
        Output().result(str(prepared.command))
    else:
        job.start_serving(prepared.command)


@group.command(short_help="Say what fits on a chip, and how long sequences may get")
@click.argument("path")
@click.option(
    *("--tp", "--tensor-parallel-size", "tp"),
    type=click.IntRange(1, 1024),
    multiple=True,
    help="Tensor-parallel size; may be given several times [default: all that work].",
)
@chip_options
@click.option(
    "--max-model-len", type=click.IntRange(1), help="Tokens of the longest sequence [default: the largest that fits]."
)
@click.option("--max-num-seqs", type=click.IntRange(1), help="Sequences served at a time [default: the preset's].")
@click.option("--plot", metavar="FILE", help="Also draw memory against max-model-len into this PNG or SVG file.")
@takes_models("path", size="tp")
@common
def fit(
    path: str,
    tp: tuple[int, ...],
    chip_memory: str,
    max_model_len: int | None,
    max_num_seqs: int | None,
    compressed_masks: bool,
    plot: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Say whether a checkpoint or directory fits on the chips, and how long sequences may get.

    \b
    Example:
      w8a8sc fit /models/Qwen3-32B-w8a8s-310 --max-model-len 20480
    """
    from pathlib import Path

    from ..jobs import serving as job
    from ..serving import parse_size

    out = Output(as_json=as_json, quiet=quiet)
    estimates = job.fit(
        path,
        tp=tp or None,
        chip_memory=parse_size(chip_memory),
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        compressed_masks=compressed_masks,
    )
    if plot is not None:
        from ..serving.plot import plot as draw

        draw(estimates, Path(plot))
    out.document([estimate.document() for estimate in estimates])
    _show_fit(estimates, out)
    return job.exit_code(estimates, every=bool(tp))


@group.command(short_help="Say whether this machine can convert, and serve")
@click.option(
    "--device", is_flag=True, help="Run the runtime's operators on NPU 0 and compare them with the CPU's, instead."
)
@click.option(
    "--for",
    "task",
    type=click.Choice(["convert", "serve", "cpu"]),
    help="Judge by this task alone; cpu: serve --device cpu [default: convert, and serve where there is an NPU].",
)
@common
def doctor(device: bool, task: Any, as_json: bool, quiet: bool) -> int:
    """Examine this machine: can it convert, and can it serve? With --device: does its NPU compute what it should?

    Without --for, serving counts only where there is an NPU.

    \b
    Example:
      w8a8sc doctor --for serve
    """
    out = Output(as_json=as_json, quiet=quiet)
    if device:
        return _doctor_device(out)
    from ..jobs.doctor import examine_for

    examination = examine_for(task)
    out.document(examination.document())
    _show_rows(examination.rows, examination.tasks, out)
    return examination.exit_code


def _doctor_device(out: Output) -> int:
    from ..jobs.device import check_device

    report = check_device()
    out.document(report.document())
    for missing in report.missing:
        out.result(f"missing: {missing}")
    for o in report.outcomes:
        outcome = o.error or f"difference {o.difference:.2g}, allowed {o.allowed:g}"
        out.result(f"{'ok    ' if o.ok else 'WRONG '} {o.operator}, {o.shape}: {outcome}")
    return report.exit_code


def _show_rows(rows: Sequence[Row], tasks: Sequence[str], out: Output) -> None:
    """A table per task; below each row that is wrong, why it matters and what mends it."""
    for task in ("convert", "serve", *(["cpu"] if "cpu" in tasks else [])):
        purpose = "serve with a CPU's engine" if task == "cpu" else task
        out.result(f"to {purpose}:" + ("" if task in tasks else " (not judged: there is no NPU here)"))
        for row in (row for row in rows if row.task == task):
            state = {True: "ok", False: "MISSING", None: "-"}[row.ok]
            out.result(f"  {state:8} {row.subject}: {row.state} (wanted: {row.wanted})")
            if row.ok is False:
                out.result(f"           {spelled(f'{row.why}; {row.mend}')}")


def _show_fit(estimates: Sequence[Estimate], out: Output) -> None:
    """A column per tensor-parallel size."""

    def both(estimate: Estimate, compressed: bool) -> str:
        length = estimate.largest_len(compressed_masks=compressed)
        return f"{length} ({estimate.reason(compressed_masks=compressed)})" if length else "none"

    rows: list[tuple[str, ...]] = [
        ("per chip", *(f"TP {estimate.tp}" for estimate in estimates)),
        ("memory", *(gib(estimate.chip) for estimate in estimates)),
        ("weights", *(gib(estimate.weights) for estimate in estimates)),
        ("second copy of embeddings", *(gib(estimate.embedding_copies) for estimate in estimates)),
        (
            "sequences at a time",
            *(f"{estimate.max_num_seqs}{' (a guess)' if estimate.guessed else ''}" for estimate in estimates),
        ),
        ("activations (estimated)", *(gib(estimate.activations) for estimate in estimates)),
        ("KV cache (half of the rest)", *(gib(estimate.kv_cache) for estimate in estimates)),
        *_state_rows(estimates),
        ("tokens in the cache", *(str(estimate.kv_tokens) for estimate in estimates)),
        *_plugin_rows(estimates),
        ("largest max-model-len", *(both(estimate, False) for estimate in estimates)),
        ("  with compressed masks", *(both(estimate, True) for estimate in estimates)),
        ("at max-model-len", *(str(estimate.length) for estimate in estimates)),
        ("  masks, and while built", *(_masks(estimate, False) for estimate in estimates)),
        ("  compressed masks", *(_masks(estimate, True) for estimate in estimates)),
        ("  sequences in the cache", *(f"{estimate.full_length_sequences:.1f}" for estimate in estimates)),
        ("fits", *("yes" if estimate.fits else "no" for estimate in estimates)),
    ]
    out.table(rows, right=range(1, len(estimates) + 1))


def _state_rows(estimates: Sequence[Estimate]) -> list[tuple[str, ...]]:
    """What models with linear attention have beside keys and values."""
    if not any(estimate.cache.state for estimate in estimates):
        return []
    caches = [estimate.cache for estimate in estimates]
    return [
        ("  allocated for it", *(gib(estimate.cache.allocations * estimate.kv_cache) for estimate in estimates)),
        ("  states of a sequence", *(f"{cache.state / (1 << 20):.0f} MiB" for cache in caches)),
        ("  in blocks of the cache", *(f"{cache.state_blocks} of {cache.block} tokens" for cache in caches)),
    ]


def _plugin_rows(estimates: Sequence[Estimate]) -> list[tuple[str, ...]]:
    """The same three numbers with our plugin for vLLM, for directories: only they tell what compression saved."""
    smaller = [estimate.with_plugin for estimate in estimates]
    if not any(smaller):
        return []
    return [
        ("  weights with the plugin", *(gib(estimate.weights) if estimate else "" for estimate in smaller)),
        ("  KV cache with the plugin", *(gib(estimate.kv_cache) if estimate else "" for estimate in smaller)),
        ("  tokens in it", *(str(estimate.kv_tokens) if estimate else "" for estimate in smaller)),
    ]


def _masks(estimate: Estimate, compressed: bool) -> str:
    from ..serving.memory import mask_bytes, mask_peak_bytes

    sizes = (
        mask_bytes(estimate.length, compressed=compressed),
        mask_peak_bytes(estimate.length, compressed=compressed),
    )
    return ", ".join(map(gib, sizes))


def gib(count: int) -> str:
    """Memory as npu-smi counts it, in powers of 1024."""
    return f"{count / 2**30:.2f} GiB"


def _tokens_of(text: str | None) -> list[int] | None:
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and len(word) < 10 for word in words):
        raise UsageError(f"--token-ids {text[:40]} is not a list of numbers like 1,2,3")
    return [int(word) for word in words]


def _show_generated(generated: Generated, out: Output) -> None:
    out.result("" if generated.text is not None else ",".join(map(str, generated.tokens)))
    for note in generated.notes:
        out.note(note)
    out.note(
        f"TP {generated.tp}: {len(generated.prompt)} tokens of prompt in {generated.prompt_seconds:.2f} s, "
        f"{len(generated.tokens)} generated, {generated.tokens_per_second:.1f} per second"
    )
    settings = generated.sampling.document().items()
    out.note(
        "greedy" if not generated.sampling.temperature else ", ".join(f"{name} {value:g}" for name, value in settings)
    )
    if not generated.compared:
        return
    if generated.differs_at is None:
        out.result("the source checkpoint gives the same tokens")
    else:
        word = "within the rounding of the ranks' sums" if generated.ok else "more than rounding explains"
        out.result(
            f"token {generated.differs_at} differs from the source's, "
            f"whose best two logits are {generated.margin_there:.3f} "
            f"apart: {word}"
        )
