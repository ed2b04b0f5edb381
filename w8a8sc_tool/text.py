"""Text whose origin nobody vouches for: fit to be shown, to be a name, to be written to a document.

Python reads a file name that is not UTF-8 as text with halves of surrogate pairs, which nothing but the file system
takes back; and a name may hold line ends and what makes a terminal do things. docs/reliability.md states the rules.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, Final

# Control characters, line ends, what turns the direction of writing around, and halves of surrogate pairs.
_NOT_SHOWN: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def one_line(text: str) -> str:
    r"""Text for one line of a terminal: what is not to be shown becomes \x1b or \u2028, a byte of a name \xff."""
    return _NOT_SHOWN.sub(_escape, text)


def some_lines(text: str) -> str:
    """As `one_line`, but line ends and tabs stay."""
    return _NOT_SHOWN.sub(lambda match: match[0] if match[0] in "\n\t" else _escape(match), text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # Python's stand-in for a byte
        code -= 0xDC00
        return f"\\x{code:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def is_utf8(text: str) -> bool:
    """Whether text can be written as UTF-8, which halves of surrogate pairs cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_showable(name: str) -> bool:
    """Whether a file's name is UTF-8, on the disk too, and has nothing in it that is not to be shown."""
    try:
        return not _NOT_SHOWN.search(name) and os.fsencode(name) == name.encode()
    except UnicodeEncodeError:  # it did not come from this system's disks
        return False


def is_document(content: Any) -> bool:
    r"""Whether all text in parsed JSON or YAML is UTF-8: escapes like \ud800 make text that is not."""
    return all(map(is_utf8, _texts(content)))


def _texts(content: Any) -> Iterator[str]:
    pending = [content]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple, set)):
            pending += item
