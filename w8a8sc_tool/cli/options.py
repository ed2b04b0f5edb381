"""Flags for the options of `compress`, and of the commands that share some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final

import click

from ..options import HELP, CompressOptions
from .group import F

_DEFAULTS: Final = {option.name: option.default for option in fields(CompressOptions)}
_NUMBERS: Final = {"max_ratio": float}


def takes(*names: str) -> Callable[[F], F]:
    """Gives a command the flags of these options, in their order; each value arrives under the option's name."""

    def give(function: F) -> F:
        for name in reversed(names):
            function = _flag(name)(function)
        return function

    return give


def _flag(name: str) -> Callable[[F], F]:
    option, default = HELP[name], _DEFAULTS[name]
    dashed = name.replace("_", "-")
    if default is True:
        return click.option(f"--no-{dashed}", name, is_flag=True, callback=_not, help=option.text)
    if default is False:
        return click.option(f"--{dashed}", name, is_flag=True, help=option.text)
    type_: Any = _NUMBERS.get(name, str)
    if option.choices:
        type_ = click.Choice(option.choices)
    elif option.most is not None:
        type_ = click.IntRange(1, option.most)
    short = [alias for alias in option.aliases if not alias.startswith("--")]
    long = [alias for alias in option.aliases if alias.startswith("--")]
    return click.option(
        *(*short, f"--{dashed}", *long, name),
        type=type_,
        multiple=isinstance(default, tuple),
        default=default,
        show_default=bool(default),
        metavar=option.metavar,
        help=option.text,
    )


def _not(ctx: click.Context, parameter: click.Parameter, value: bool) -> bool:
    return not value
