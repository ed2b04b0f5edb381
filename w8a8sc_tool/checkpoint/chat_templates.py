"""The chat template of a checkpoint or directory: where transformers looks for it, and which of several it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ..errors import InputError
from ..io import reading
from ..io.documents import parse_json, read_small

SETTINGS: Final = "tokenizer_config.json"
FILE: Final = "chat_template.jinja"
FOLDER: Final = "additional_chat_templates"
DEFAULT: Final = "default"  # the name of the template for messages without tools
_LARGEST_SETTINGS: Final = 128 << 20
LARGEST: Final = 256 << 10  # bytes of a template


def settings_of(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, empty if there is none; raises InputError if it is not a JSON object."""
    path = folder / SETTINGS
    return parse_json(read_small(path, _LARGEST_SETTINGS), str(path)) if reading.exists(path) else {}


def find(folder: Path) -> str | None:
    """The template, None if there is none: files come before tokenizer_config.json, the default before named ones.

    Raises InputError for templates that cannot be read, and for named ones without a default.
    """
    named = {path.name.removesuffix(".jinja"): path for path in reading.matching(folder / FOLDER, "*.jinja")}
    if reading.exists(folder / FILE):
        named[DEFAULT] = folder / FILE
    if named:
        return _read(_default(named, folder / FOLDER))
    given = settings_of(folder).get("chat_template")
    where = folder / SETTINGS
    if isinstance(given, list):
        given = _default(dict(_named(entry, where) for entry in given), where)
    if given is not None and not isinstance(given, str):
        raise InputError(f"chat_template is {str(given)[:40]}, a text is wanted", str(where), "give token_ids=")
    return given


def _named(entry: object, where: Path) -> tuple[str, str]:
    if isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get("template"), str):
        return entry["name"], entry["template"]
    raise InputError("chat_template has an entry without a name and a template", str(where), "give token_ids=")


def _default(templates: dict[str, Any], where: Path) -> Any:
    if DEFAULT in templates:
        return templates[DEFAULT]
    names = ", ".join(sorted(templates))[:200]
    raise InputError(
        f"none of the chat templates is the default: {names or 'the list is empty'}",
        str(where),
        f"add {FILE}; beside other templates, transformers and vLLM do not look into {SETTINGS}",
    )


def _read(path: Path) -> str:
    try:
        return read_small(path, LARGEST).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError("not text in UTF-8", str(path), "restore the original file") from None
