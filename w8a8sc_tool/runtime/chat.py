"""A prompt through a chat template: Jinja's sandbox with the variables and extensions that transformers documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..checkpoint.chat_templates import LARGEST
from ..errors import InputError

_LARGEST_PROMPT: Final = 4 << 20  # characters that a template may make of a prompt


def rendered(template: str, prompt: str, tokens: Mapping[str, str], where: str) -> str:
    """The text that the model is to continue: one message of a user, and the head of the answer.

    Raises InputError if the template is not one, fails, raises, or makes too much of the prompt.
    """
    if len(template) > LARGEST:
        raise InputError(f"the chat template is longer than {LARGEST} characters", where)
    message = {"role": "user", "content": prompt}
    values = {"messages": [message], "tools": None, "documents": None, "add_generation_prompt": True, **tokens}
    text, size = [], 0
    try:
        for piece in _environment().from_string(template).generate(values):
            text.append(piece)
            size += len(piece)
            if size > _LARGEST_PROMPT:
                raise InputError(f"the chat template makes more than {_LARGEST_PROMPT} characters of a prompt", where)
    except InputError:
        raise
    except Exception as error:  # a template calls what it likes of what it is given
        raise InputError(f"the chat template fails ({str(error)[:200]})", where, "give token_ids=") from None
    return "".join(text)


class _Generation(Extension):
    """{% generation %} ... {% endgeneration %}, which marks answers for training: here it is what is between."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's protocol)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller: Callable[[], str]) -> str:
        return caller()


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise, "strftime_now": lambda form: datetime.now().strftime(form)}
    return environment


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as it is, where Jinja's own filter escapes what HTML minds."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)
