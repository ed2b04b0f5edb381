"""Where a published model comes from, by small files that its source's publisher left: base model, licence, language.

Everything is text that nobody vouches for: what does not look like a value of its key is left out, with a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import InputError, UsageError
from ..hub.names import HUB_ID
from ..io import hashing, reading
from ..io.documents import parse_json, parse_yaml
from ..sharded_state import Manifest

_README: Final = "README.md"
_CONFIG: Final = "config.json"
_LICENSE_FILE: Final = re.compile(r"licen[cs]e(\.(txt|md))?", re.IGNORECASE)
_LARGEST: Final = 16 << 20  # bytes of a README, a licence or a config.json
_LARGEST_METADATA: Final = 64 << 10  # bytes; YAML is slow to parse

# What the keys of a card's metadata can be, narrower than YAML: a word, OWNER/NAME on a hub, a language, an address.
_WORDS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+ _-]{0,79}")
_TASK: Final = re.compile(r"[a-z][a-z0-9-]{0,59}")
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})?")
_ADDRESS: Final = re.compile(r"https?://[A-Za-z0-9./_~%?=&#+:@-]{1,400}")
_FURTHER: Final = {"license_name": _WORDS, "license_link": _ADDRESS}
_MOST_VALUES: Final = 50

# Sentences of licences that hubs know by an identifier (https://spdx.org/licenses), with white space as single blanks.
_TEXTS: Final = {
    "apache-2.0": ("apache license version 2.0, january 2004",),
    "mit": ("permission is hereby granted, free of charge, to any person obtaining a copy", "the software is provided"),
}
_OTHER: Final = "other"  # what hubs call every licence that is not in their list


@dataclass(frozen=True)
class Origin:
    """What is known; empty or None where nothing is.

    license: as hubs name it; license_name, license_link: what the publisher adds to "other". license_file: the name of
    its text in the directory. notes: where base model and licence were read, and what could not be.
    """

    base_model: tuple[str, ...] = ()
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    license_file: str | None = None
    languages: tuple[str, ...] = ()
    task: str | None = None
    notes: tuple[str, ...] = ()


def origin_of(directory: Path, manifest: Manifest, base_model: str | None, license: str | None) -> Origin:
    """The origin by a sealed directory's README.md, licence file and config.json; what the user says wins.

    Raises InputError if one of them is not the file that was sealed, UsageError for words that hubs would not take.
    """
    if base_model is not None and not HUB_ID.fullmatch(base_model):
        raise UsageError(f"base_model={base_model[:80]!r} is not OWNER/NAME, as hubs name models")
    if license is not None and not _WORDS.fullmatch(license):
        raise UsageError(f"license={license[:80]!r} is not a licence's identifier, such as apache-2.0")
    notes: list[str] = []
    names = {file.file for file in manifest.files}
    metadata = _metadata(directory, manifest, notes) if _README in names else {}
    license_file = next((name for name in sorted(names) if _LICENSE_FILE.fullmatch(name)), None)
    models = [base_model] if base_model else _base_models(directory, manifest, metadata, notes)
    if license is None:
        license = _license(directory, manifest, metadata, license_file, notes)
        names_of = {key: _first(_values(metadata, key, form, notes)) for key, form in _FURTHER.items()}
    else:
        names_of = dict.fromkeys(_FURTHER)
    return Origin(
        base_model=tuple(models),
        license=license,
        license_name=names_of["license_name"],
        license_link=names_of["license_link"],
        license_file=license_file,
        languages=tuple(_values(metadata, "language", _LANGUAGE, notes)),
        task=_first(_values(metadata, "pipeline_tag", _TASK, notes)),
        notes=tuple(notes),
    )


def _sealed(directory: Path, manifest: Manifest, name: str) -> bytes:
    """A side file as it was sealed."""
    data = reading.whole(directory / name, _LARGEST)
    if hashing.of_bytes(data) not in (file.hash for file in manifest.files if file.file == name):
        raise InputError("its bytes are not those that the manifest lists", str(directory / name), "copy it again")
    return data


def _metadata(directory: Path, manifest: Manifest, notes: list[str]) -> dict[str, Any]:
    """The YAML between two lines of hyphens on top of README.md; empty if there is none."""
    text = _sealed(directory, manifest, _README).decode("utf-8-sig", errors="replace")
    lines = text.splitlines()
    ends = [number for number, line in enumerate(lines) if line.rstrip() == "---"][:2]
    if len(ends) < 2 or ends[0] != 0:
        return {}
    block = "\n".join(lines[1 : ends[1]]).encode()
    where = str(directory / _README)
    if not block.strip():
        return {}
    try:
        if len(block) > _LARGEST_METADATA:
            raise InputError("its metadata is too long", where)
        return parse_yaml(block, where)
    except InputError as error:
        notes.append(f"the source's metadata is not used: {error}")
        return {}


def _values(metadata: dict[str, Any], key: str, form: re.Pattern[str], notes: list[str]) -> list[str]:
    """A key's text or list of texts, as far as they have the form that such values have."""
    given = metadata.get(key)
    items: Sequence[Any] = given if isinstance(given, list) else [] if given is None else [given]
    values = [item for item in items if isinstance(item, str) and form.fullmatch(item)][:_MOST_VALUES]
    if len(values) != len(items):
        notes.append(f"{_README} of the source: {key} has values that cannot be taken over")
    return values


def _first(values: Iterable[str]) -> str | None:
    return next(iter(values), None)


def _base_models(directory: Path, manifest: Manifest, metadata: dict[str, Any], notes: list[str]) -> list[str]:
    if models := _values(metadata, "base_model", HUB_ID, notes):
        notes.append(f"base model {', '.join(models)}: by {_README} of the source; base_model= says another")
        return models
    name = parse_json(_sealed(directory, manifest, _CONFIG), str(directory / _CONFIG)).get("_name_or_path")
    if isinstance(name, str) and HUB_ID.fullmatch(name):
        notes.append(f"base model {name}: by _name_or_path in {_CONFIG}, which may be a path; base_model= says another")
        return [name]
    notes.append("the base model is not known: give base_model=")
    return []


def _license(
    directory: Path, manifest: Manifest, metadata: dict[str, Any], license_file: str | None, notes: list[str]
) -> str | None:
    """The licence that README.md names, else the one that the licence's text is known to be; other for other texts."""
    named = _first(_values(metadata, "license", _WORDS, notes))
    read = None
    if license_file is not None:
        text = " ".join(_sealed(directory, manifest, license_file).decode("utf-8", errors="replace").lower().split())
        read = next((name for name, parts in _TEXTS.items() if all(part in text for part in parts)), _OTHER)
    if named and read not in (None, _OTHER) and read not in named.lower().replace("license ", "").replace(" ", "-"):
        notes.append(f"{_README} of the source says licence {named}, {license_file} reads like {read}")
    if named or read:
        notes.append(f"licence {named or read}: by {_README if named else license_file} of the source")
    else:
        notes.append("the licence is not known: give license=")
    return named or read
