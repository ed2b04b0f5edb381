"""The commands that come before the work: a checkpoint to try things on, compiled kernels, msmodelslim's executor."""

from __future__ import annotations

from typing import Any

import click

from ..io.amounts import size
from .group import common, group
from .output import Output


@group.command("compile", short_help="Compile the kernels ahead, for image builds")
@common
def compile_command(as_json: bool, quiet: bool) -> None:
    """Compile the kernels now, so that no later start has to: for image builds.

    \b
    Example:
      RUN pip install w8a8sc && w8a8sc compile
    """
    from ..jobs.kernels import compile_kernels

    folder = compile_kernels()
    out = Output(as_json=as_json, quiet=quiet, makes=True)
    out.document({"folder": str(folder)})
    out.result(f"compiled kernels are in {folder}")


@group.command("install-executor", short_help="Let msmodelslim compress without CANN")
@click.option("--uninstall", is_flag=True, help="Remove the executor again.")
@common
def install_executor(uninstall: bool, as_json: bool, quiet: bool) -> None:
    """Give the installed msmodelslim an executor, so that it compresses without CANN.

    The executor is this project's codec. An executor that was built with CANN is never replaced.

    \b
    Example:
      pip install 'w8a8sc[msmodelslim]' && w8a8sc install-executor
    """
    from ..backends.msmodelslim import installed as backend

    out = Output(as_json=as_json, quiet=quiet, makes=True)
    path = backend.uninstall_executor() if uninstall else backend.install_executor()
    out.document({"executor": str(path) if path else None, "installed": not uninstall})
    if uninstall:
        out.result(f"removed {path}" if path else "nothing to remove: msmodelslim has no executor of ours")
    else:
        out.result(f"{path}: msmodelslim now compresses with w8a8sc's codec")


@group.command(short_help="Write a random W8A8S checkpoint to try things on")
@click.argument("folder")
@click.option(
    "--preset",
    default="tiny",
    show_default=True,
    help="Sizes and recipe: qwen3-8b, qwen3-14b, qwen3-32b, qwen3-vl-8b, qwen2.5-7b, llama-3.1-8b, qwen3.6-27b, "
    "qwen3-30b-a3b, qwen3.6-35b-a3b or tiny.",
)
@click.option(
    "--architecture", metavar="NAME", help="As config.json spells it, in the preset's sizes [default: the preset's]."
)
@click.option("--layers", type=click.IntRange(1, 4096), help="Decoder layers [default: the preset's].")
@click.option(
    "--dtype",
    type=click.Choice(["float16", "bfloat16"]),
    default="float16",
    show_default=True,
    help="Type of the FLOAT tensors.",
)
@click.option("--tied/--untied", default=False, help="Share embeddings and lm_head [default: untied].")
@click.option("--m4/--no-m4", default=None, help="Biases as anti_method m4 leaves them [default: the preset's].")
@click.option("--vocab-size", "vocabulary", type=click.IntRange(320, 1 << 20), help="Tokens [default: the preset's].")
@click.option(
    "--float",
    "floats",
    multiple=True,
    metavar="PATTERN",
    help="Layers of this name are FLOAT, instead of the recipe's; may be given several times.",
)
@click.option(
    "--w8a8", "w8a8", multiple=True, metavar="PATTERN", help="Layers of this name are W8A8; may be given several times."
)
@click.option(
    "--dynamic",
    multiple=True,
    metavar="PATTERN",
    help="Layers of this name are W8A8_DYNAMIC; may be given several times.",
)
@click.option(
    "--w16a16s", multiple=True, metavar="PATTERN", help="Layers of this name are W16A16S; may be given several times."
)
@click.option("--no-float", is_flag=True, help="No layer is FLOAT, whatever the recipe says.")
@click.option("--part-size", type=float, metavar="GB", help="Split into files of about this size; 0 for one file.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the weights.")
@common
def synthesize(
    folder: str,
    preset: str,
    floats: tuple[str, ...],
    w8a8: tuple[str, ...],
    dynamic: tuple[str, ...],
    w16a16s: tuple[str, ...],
    no_float: bool,
    part_size: float | None,
    as_json: bool,
    quiet: bool,
    **sizes: Any,
) -> None:
    """Write a W8A8S checkpoint with random weights to FOLDER, to try things on.

    \b
    Example:
      w8a8sc synthesize Qwen3-8B-w8a8s-310 --preset qwen3-8b --layers 2
    """
    from ..synthesis import synthesize as job

    out = Output(as_json=as_json, quiet=quiet, makes=True)
    types = None
    if floats or w8a8 or dynamic or w16a16s or no_float:
        recipe = () if no_float or floats else job.MODELS[preset].float_layers if preset in job.MODELS else ()
        types = (
            [(p, "W8A8") for p in w8a8]
            + [(p, "W8A8_DYNAMIC") for p in dynamic]
            + [(p, "W16A16S") for p in w16a16s]
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
        types=types,
        part_bytes=None if part_size is None else int(part_size * 1e9),
        advance=count,
        **sizes,
    )
    out.end()
    out.document({"folder": str(path), "weight_bytes": written})
    out.result(f"{path}: {size(written)} of weights")
