"""How the command line says what the library says of options: overwrite=True there is --overwrite here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Final

import click

from ..errors import Problem
from .group import group

# A keyword as messages write it: name=True, name="text", name=4, or name= for whatever value.
_KEYWORD: Final = re.compile(r"""\b([a-z]\w*)=(?:(True|False)\b|"([^"\s]*)"|(\d+)\b|(?=[\s,;:.)]|$))""")


def spelled(text: str) -> str:
    """A message with flags in place of keywords; names that no command has stay as they are."""
    return _KEYWORD.sub(_flag, text)


def spelled_problem(problem: Problem) -> Problem:
    """What is wrong and its remedy in flags; where it is may be a path that looks like one."""
    return replace(problem, message=spelled(problem.message), remedy=spelled(problem.remedy))


def _flag(match: re.Match[str]) -> str:
    name, switch, text, number = match.groups()
    option = _options().get(name)
    if option is None:
        return match[0]
    on = max(option.opts, key=len)
    off = max(option.secondary_opts, key=len, default=on)
    value = text or number or ""
    return f"{off if switch == 'False' else on} {value}".rstrip()


@lru_cache(maxsize=1)
def _options() -> dict[str, click.Option]:
    """The options of all commands by the names of their keywords."""
    return dict(_named())


def _named() -> Iterator[tuple[str, click.Option]]:
    for command in group.commands.values():
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name is not None:
                yield parameter.name, parameter
