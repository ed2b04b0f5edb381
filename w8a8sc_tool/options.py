"""The options of `compress`, once: names, types, defaults, help, and which of them change the output.

The flags of the command line, the keys of a batch file's jobs and the keywords of the Python interface are made of
this, under one spelling; what a journal and a manifest record (planning.options) are those that change the output.
"""

# The command line reads this for its help, which has to answer without loading numpy or msgspec.

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypedDict, TypeVar

from .errors import UsageError
from .io.amounts import parsed_size
from .targets import DEFAULT_TARGET, TARGETS, Target

F = TypeVar("F", bound=Callable[..., Any])

BACKENDS: Final = ("auto", "native", "msmodelslim")


@dataclass(frozen=True)
class Help:
    """What is known of an option beside its name, type and default.

    text: what giving it does; for a switch that is on by default, what switching it off does. changes_output: whether
    it belongs to what a directory records. choices: all values it may have. most: its largest number. metavar: what its
    value is called. aliases: further flags.
    """

    text: str
    changes_output: bool = False
    choices: tuple[str, ...] = ()
    most: int | None = None
    metavar: str | None = None
    aliases: tuple[str, ...] = ()


def _help(text: str, **others: Any) -> dict[str, Help]:
    return {"help": Help(text, **others)}


class CompressKeywords(TypedDict, total=False):
    """The options as callers write them."""

    tp: int | Sequence[int]
    name: str | None
    processes: int | None
    backend: str
    executor: str | None
    preset: str
    keep: str | Sequence[str]
    max_ratio: float | None
    target: Target
    compress: bool
    max_file_size: int | str | None
    overwrite: bool
    resume: bool
    verify: bool


@dataclass(frozen=True, kw_only=True)
class CompressOptions:
    """The options as the program counts on them. Made by `of`."""

    tp: tuple[int, ...] = field(
        default=(1,),
        metadata=_help(
            "Tensor-parallel size to serve with; give it several times for several sizes in one pass.",
            most=1024,
            aliases=("--tensor-parallel-size",),
        ),
    )
    name: str | None = field(default=None, metadata=_help("The model's name in folder names [default: from MODEL]."))
    processes: int | None = field(
        default=None,
        metadata=_help(
            "Number of worker processes [default: as many as cores and memory allow].",
            most=1024,
            aliases=("-j",),
        ),
    )
    backend: str = field(
        default="auto",
        metadata=_help(
            "Who compresses: this tool's codec, or msmodelslim; auto takes msmodelslim where it has an executor built "
            "with CANN.",
            changes_output=True,
            choices=BACKENDS,
        ),
    )
    executor: str | None = field(
        default=None,
        metadata=_help(
            "The program that msmodelslim starts for each tensor [default: the vendor's if it is installed].",
            metavar="vendor|builtin|PATH",
        ),
    )
    preset: str = field(
        default="auto",
        metadata=_help(
            "The model's preset: the one that matches its config.json, none, or a YAML file of your own.",
            changes_output=True,
            metavar="auto|none|FILE",
        ),
    )
    keep: tuple[str, ...] = field(
        default=(),
        metadata=_help(
            "Leave layers of this name uncompressed, * and ? as in a shell; may be given several times.",
            changes_output=True,
            metavar="PATTERN",
        ),
    )
    max_ratio: float | None = field(
        default=None,
        metadata=_help(
            "Leave a layer W8A8S if its compressed size is this fraction of it or more [default: the preset's, 0.95].",
            changes_output=True,
        ),
    )
    target: Target = field(
        default=DEFAULT_TARGET,
        metadata=_help(
            "Release of vLLM Ascend that will serve; they want different tensors beside the weights.",
            changes_output=True,
            choices=TARGETS,
        ),
    )
    compress: bool = field(default=True, metadata=_help("Write an uncompressed W8A8S directory.", changes_output=True))
    max_file_size: int | None = field(
        default=None,
        metadata=_help(
            "Spread a rank over several files if it may get larger than this, as 5GB or 500MiB [default: 1GiB, or as "
            "many files as there are already].",
            metavar="SIZE",
        ),
    )
    overwrite: bool = field(
        default=False, metadata=_help("Replace an existing directory once the new one is complete.")
    )
    resume: bool = field(
        default=True, metadata=_help("Discard what an interrupted run left instead of going on with it.")
    )
    verify: bool = field(
        default=True, metadata=_help("Do not read the output back and check it before it is put in place.")
    )

    @classmethod
    def of(cls, keywords: CompressKeywords) -> CompressOptions:
        """Options from what callers write.

        Raises UsageError for sizes or patterns that are none, TypeError for a name that is no option's.
        """
        converted: dict[str, Any] = {
            "tp": as_sizes(keywords.get("tp", (1,))),
            "keep": as_patterns(keywords.get("keep", ())),
            "max_file_size": as_file_size(keywords.get("max_file_size")),
        }
        return cls(**{**keywords, **converted})


def shows_keywords(function: F) -> F:
    """Gives a function that takes **CompressKeywords a signature that names them, for help() and completion."""
    signature = inspect.signature(function)
    types = CompressKeywords.__annotations__
    named = [
        inspect.Parameter(
            option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=types[option.name]
        )
        for option in fields(CompressOptions)
    ]
    own = [parameter for parameter in signature.parameters.values() if parameter.kind != parameter.VAR_KEYWORD]
    function.__signature__ = signature.replace(parameters=[*own, *named])  # type: ignore[attr-defined]
    return function


HELP: Final[dict[str, Help]] = {option.name: option.metadata["help"] for option in fields(CompressOptions)}
"""By the name of the option, in the order of the command line."""


def as_sizes(tp: int | Sequence[int]) -> tuple[int, ...]:
    """Tensor-parallel sizes, of which there is at least one, each once; a number stands for itself alone.

    Raises UsageError for anything else.
    """
    sizes = (tp,) if isinstance(tp, int) else tuple(tp)
    if not sizes or len(set(sizes)) != len(sizes):
        raise UsageError("tensor-parallel sizes must be given, each once")
    for size in sizes:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise UsageError(f"tensor-parallel size {size!r} is not a positive number")
    return sizes


def as_patterns(keep: str | Sequence[str]) -> tuple[str, ...]:
    """Patterns of layers; a text is one pattern. Raises UsageError for what is no text."""
    patterns = (keep,) if isinstance(keep, str) else tuple(keep)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise UsageError(f"{pattern!r} is not a pattern of layers' names")
    return patterns


def as_file_size(size: int | str | None) -> int | None:
    """Bytes of a file size: a number, or text such as 5GB and 500MiB. Raises UsageError for anything else."""
    if size is None:
        return None
    try:
        nbytes = parsed_size(size) if isinstance(size, str) else size
    except ValueError as error:
        raise UsageError(str(error), remedy="give one as 5GB, 500MiB, or a number of bytes") from None
    if not isinstance(nbytes, int) or isinstance(nbytes, bool) or nbytes < 1:
        raise UsageError(f"a file size of {size!r} is not a positive number of bytes")
    return nbytes
