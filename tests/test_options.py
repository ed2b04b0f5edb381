"""The options of compress: one list, and everything that is made of it or has to agree with it."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import click
import msgspec
import pytest
import yaml

from w8a8sc_tool import compress, plan, reshard
from w8a8sc_tool.cli.commands import group
from w8a8sc_tool.conversion.preparation import Settings
from w8a8sc_tool.errors import UsageError
from w8a8sc_tool.jobs import batch
from w8a8sc_tool.options import HELP, CompressKeywords, CompressOptions
from w8a8sc_tool.planning import Options

DEFAULTS = {option.name: option.default for option in fields(CompressOptions)}


def flags(command: str) -> dict[str, click.Option]:
    """A command's flags by the name under which their values arrive."""
    return {str(flag.name): flag for flag in group.commands[command].params if isinstance(flag, click.Option)}


def test_callers_types_are_the_programs_or_wider() -> None:
    written, used = get_type_hints(CompressKeywords), get_type_hints(CompressOptions)
    assert list(written) and set(written) == set(used) == set(HELP)
    same = {name for name in used if written[name] == used[name]}
    assert set(used) - same == {"tp", "keep", "max_file_size"}
    assert all(DEFAULTS[name] in get_args(written["target"]) for name in ("target",))


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_command_line(name: str) -> None:
    """The flag has the option's name, its default when it is not given, and its help."""
    flag = flags("compress")[name]
    spelled = f"--no-{name}" if DEFAULTS[name] is True else f"--{name}"
    assert spelled.replace("_", "-") in flag.opts
    assert flag.help == HELP[name].text
    context = group.commands["compress"].make_context("compress", ["MODEL"])
    assert context.params[name] == DEFAULTS[name]


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--no-verify"], "verify", False),
        (["--overwrite"], "overwrite", True),
        (["--no-compress"], "compress", False),
        (["--tp", "2", "--tensor-parallel-size", "4"], "tp", (2, 4)),
        (["--keep", "a", "--keep", "b"], "keep", ("a", "b")),
        (["--max-ratio", "0.5"], "max_ratio", 0.5),
        (["-j", "3"], "processes", 3),
        (["--max-file-size", "5GB"], "max_file_size", "5GB"),
        (["--target", "0.23"], "target", "0.23"),
    ],
)
def test_flags_that_are_given(arguments: list[str], name: str, value: object) -> None:
    context = group.commands["compress"].make_context("compress", ["MODEL", *arguments])
    assert context.params[name] == value


@pytest.mark.parametrize("function", [compress, plan])
def test_the_python_interface(function: Any) -> None:
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in HELP} == DEFAULTS
    assert set(parameters) - set(HELP) == {"model", "output", "progress"}


def test_commands_that_share_options() -> None:
    """Under the same names with the same defaults, on the command line and in Python."""
    shared = {"processes", "max_file_size", "overwrite", "resume", "verify"}
    parameters = inspect.signature(reshard).parameters
    assert {name: parameters[name].default for name in shared} == {name: DEFAULTS[name] for name in shared}
    for command in ("reshard", "decompress"):
        assert {name: flags(command)[name].opts for name in shared} == {
            name: flags("compress")[name].opts for name in shared
        }
    settings = {field.name for field in fields(Settings)}
    assert settings & set(HELP) == shared | {"name", "backend"}


def test_batch_files() -> None:
    """Every option is a key with its default; the number of processes is the file's."""
    job = msgspec.convert({"model": "m"}, batch._Keys)
    assert {name: getattr(job, name) for name in batch.KEYS} == {
        name: value for name, value in DEFAULTS.items() if name != "processes"
    }
    assert batch._File.__struct_fields__ == ("jobs", "output", "processes", "stop_on_failure")
    written = yaml.safe_load("{model: m, tp: 2, keep: '*.o_proj', target: '0.23', max_file_size: 5GB}")
    job = msgspec.convert(written, batch._Keys)
    assert (job.keep, job.max_file_size) == ("*.o_proj", "5GB")


def test_what_manifests_and_journals_record() -> None:
    """The options that change the output, in the order that the bytes of manifests have."""
    assert set(Options.__struct_fields__) == {name for name, option in HELP.items() if option.changes_output}
    assert list(Options().document()) == ["max_ratio", "keep", "target", "preset", "compress", "backend"]


@pytest.mark.parametrize(
    ("given", "nbytes"), [(None, None), (1, 1), ("5GB", 5 * 10**9), ("1GiB", 1 << 30), ("500 mib", 500 << 20)]
)
def test_file_sizes(given: int | str | None, nbytes: int | None) -> None:
    assert CompressOptions.of({"max_file_size": given}).max_file_size == nbytes


@pytest.mark.parametrize("given", [0, -1, True, 1.5, "", "0.5B", "5 apples", "GB", "-1GB", "1e9", "9" * 5000])
def test_file_sizes_that_are_none(given: Any) -> None:
    with pytest.raises(UsageError, match=r"is not a size.*5GB|not a positive number of bytes"):
        CompressOptions.of({"max_file_size": given})


def test_an_option_that_does_not_exist() -> None:
    with pytest.raises(TypeError, match="verify_output"):
        compress("m", verify_output=False)  # type: ignore[call-arg]
