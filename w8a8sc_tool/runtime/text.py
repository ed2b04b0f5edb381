"""Text to tokens and back: the tokenizer files of a directory, and its chat template in a sandbox."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from ..errors import InputError, MissingError
from ..io import reading
from ..io.documents import read_small
from ..text import is_utf8

_LARGEST_TOKENIZER: Final = 128 << 20
_LARGEST_TEMPLATE: Final = 256 << 10
_LARGEST_PROMPT: Final = 4 << 20  # characters that a template may make of a prompt


class Tokenizer:
    """The tokenizer of a checkpoint or directory."""

    def __init__(self, folder: Path) -> None:
        """Raises MissingError without the tokenizers package, InputError without a usable tokenizer.json."""
        try:
            import tokenizers
        except ImportError:
            raise MissingError("tokenizers is not installed", remedy="pip install 'w8a8sc[runtime]'") from None
        path = folder / "tokenizer.json"
        data = read_small(path, _LARGEST_TOKENIZER)
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_buffer(data)
        except Exception as error:
            raise InputError(f"not a tokenizer ({str(error)[:200]})", str(path), "give --token-ids") from None
        self._folder = folder

    def encode(self, prompt: str) -> list[int]:
        """The tokens of a prompt, through the chat template if there is one."""
        template = self._template()
        text = _rendered(template, prompt, str(self._folder)) if template else prompt
        if not is_utf8(text):
            raise InputError("the chat template makes half of a surrogate pair", str(self._folder), "give --token-ids")
        return list(self._tokenizer.encode(text, add_special_tokens=not template).ids)

    def decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def _template(self) -> str | None:
        """The chat template: of tokenizer_config.json, or a file of its own."""
        alone = self._folder / "chat_template.jinja"
        if reading.exists(alone):
            return read_small(alone, _LARGEST_TEMPLATE).decode("utf-8", "replace")
        settings = self._folder / "tokenizer_config.json"
        if not reading.exists(settings):
            return None
        try:
            found = json.loads(read_small(settings, _LARGEST_TOKENIZER))
        except (ValueError, RecursionError):
            raise InputError("not valid JSON", str(settings)) from None
        template = found.get("chat_template") if isinstance(found, dict) else None
        return template if isinstance(template, str) else None


def _rendered(template: str, prompt: str, where: str) -> str:
    """A prompt through a chat template: sandboxed, with loops, size and output limited."""
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise MissingError("jinja2 is not installed", remedy="pip install 'w8a8sc[runtime]'") from None
    if len(template) > _LARGEST_TEMPLATE:
        raise InputError(f"the chat template is longer than {_LARGEST_TEMPLATE} characters", where)
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    messages = [{"role": "user", "content": prompt}]
    text, size = [], 0
    try:
        for piece in environment.from_string(template).generate(messages=messages, add_generation_prompt=True):
            text.append(piece)
            size += len(piece)
            if size > _LARGEST_PROMPT:
                raise InputError(f"the chat template makes more than {_LARGEST_PROMPT} characters of a prompt", where)
    except (TemplateError, ArithmeticError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"the chat template fails ({str(error)[:200]})", where, "give --token-ids") from None
    return "".join(text)
