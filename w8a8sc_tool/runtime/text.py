"""Text to tokens and back: the tokenizer files of a directory, and its chat template."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..checkpoint import chat_templates
from ..errors import InputError, MissingError
from ..io import reading
from ..io.documents import parse_json, read_small
from ..text import is_utf8

_LARGEST_TOKENIZER: Final = 128 << 20
_OLD_NAMES: Final = "special_tokens_map.json"
_NAMES: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# What tokenizer classes of transformers assume where tokenizer_config.json says nothing.
_OF_CLASSES: Final[Mapping[str, Mapping[str, str]]] = {
    "Qwen2Tokenizer": dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
}


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
            raise InputError(f"not a tokenizer ({str(error)[:200]})", str(path), "give token_ids=") from None
        self._folder = folder

    def encode(self, prompt: str) -> list[int]:
        """The tokens of a prompt, through the chat template if there is one.

        Raises MissingError without jinja2, InputError for a template that cannot be rendered.
        """
        template = chat_templates.find(self._folder)
        if template is None:
            return list(self._tokenizer.encode(prompt, add_special_tokens=True).ids)
        try:
            from . import chat
        except ImportError:
            raise MissingError("jinja2 is not installed", remedy="pip install 'w8a8sc[runtime]'") from None
        text = chat.rendered(template, prompt, self._special_tokens(), str(self._folder))
        if not is_utf8(text):
            raise InputError("the chat template makes half of a surrogate pair", str(self._folder), "give token_ids=")
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: list[int]) -> str:
        """The text of tokens, without special ones."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def end_token(self) -> int | None:
        """The token that ends a text as the tokenizer knows it."""
        text = self._special_tokens().get("eos_token")
        number: int | None = None if text is None else self._tokenizer.token_to_id(text)
        return number

    def _special_tokens(self) -> dict[str, str]:
        """The named special tokens: texts in the settings, or objects with a `content`."""
        settings = chat_templates.settings_of(self._folder)
        old = self._folder / _OLD_NAMES
        if "added_tokens_decoder" not in settings and reading.exists(old):
            settings |= parse_json(read_small(old, _LARGEST_TOKENIZER), str(old))
        defaults = _OF_CLASSES.get(str(settings.get("tokenizer_class")).removesuffix("Fast"), {})
        tokens = {name: settings.get(name, defaults.get(name)) for name in _NAMES}
        texts = {name: token.get("content") if isinstance(token, dict) else token for name, token in tokens.items()}
        return {name: text for name, text in texts.items() if isinstance(text, str)}
