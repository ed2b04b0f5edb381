"""A drawing of matplotlib's as a part of a page: text stays text, colours are the page's, ids belong to one drawing."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from xml.etree import ElementTree

# Colours that stand for the page's: the text's, that of lines, of the paper, and of a cell without a ratio.
INK: Final = "#010203"
LINE: Final = "#010204"
PAPER: Final = "#010205"
PLAIN: Final = "#010206"
_COLOURS: Final = {INK: "currentColor", LINE: "var(--line)", PAPER: "var(--paper)", PLAIN: "var(--plain)"}

_SETTINGS: Final = {
    "svg.fonttype": "none",  # text, not outlines
    "svg.hashsalt": "w8a8sc",  # the same ids every time
    "text.parse_math": False,  # names may have dollar signs
    "font.family": "DejaVu Sans",  # comes with matplotlib; the page shows its own font, which is hardly ever wider
    "font.size": 9,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK),
    "axes.edgecolor": LINE,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
}
_FONT: Final = re.compile(r"font-family:[^;]*;?\s*|font: ([\d.]+px) [^;]*;?\s*")
_REFERENCE: Final = re.compile(r"#([\w.-]+)\)?$")
_ENLARGED: Final = 1.2  # on a screen with room for it: the page's text is larger than a drawing's
_HREF: Final = "{http://www.w3.org/1999/xlink}href"


@contextmanager
def drawing() -> Iterator[None]:
    """Within it figures are made, and made into SVG."""
    import matplotlib

    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of characters that the font has not: the page's has them, or shows a box
        yield


def inline(figure: Any, name: str, label: str, titles: Mapping[str, Sequence[str]] | None = None) -> str:
    """A figure as an SVG element of a page. name: no other drawing's. label: what it shows, for who does not see it.

    titles: by the gid of a collection, what each of its elements says when it is pointed at.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    _remove(root, {"metadata", "style"})
    for gid, texts in (titles or {}).items():
        _add_titles(root, gid, texts)
    _own_ids(root, name)
    for element in root.iter():
        _restyle(element)
    width, height = (float(size) for size in root.attrib.pop("viewBox").split()[2:])
    del root.attrib["width"], root.attrib["height"]
    root.attrib |= {
        "viewBox": f"0 0 {width:g} {height:g}",
        "style": f"width:{width * _ENLARGED:g}pt;aspect-ratio:{width:g}/{height:g}",
        "role": "img",
        "aria-label": label,
    }
    return ElementTree.tostring(root, encoding="unicode")


def _remove(root: ElementTree.Element, tags: set[str]) -> None:
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in tags]:
            parent.remove(child)


def _add_titles(root: ElementTree.Element, gid: str, texts: Sequence[str]) -> None:
    group = next((element for element in root.iter("g") if element.get("id") == gid), None)
    for element, text in zip(group if group is not None else (), texts):
        title = ElementTree.SubElement(element, "title")
        title.text = text


def _own_ids(root: ElementTree.Element, name: str) -> None:
    """Ids that something refers to get the drawing's name in front, all others go."""
    used = set()
    for element in root.iter():
        for key in (_HREF, "clip-path"):
            if match := _REFERENCE.search(element.get(key, "")):
                used.add(match[1])
    for element in root.iter():
        identifier = element.attrib.pop("id", None)
        if identifier in used:
            element.set("id", f"{name}-{identifier}")
        if _HREF in element.attrib:
            element.set("href", f"#{name}-{element.attrib.pop(_HREF)[1:]}")
        if (clip := element.get("clip-path")) and (match := _REFERENCE.search(clip)):
            element.set("clip-path", f"url(#{name}-{match[1]})")


def _restyle(element: ElementTree.Element) -> None:
    """The page's font and colours, and no more white space than it takes."""
    if style := element.get("style"):
        style = _FONT.sub(lambda match: f"font-size: {match[1]}; " if match[1] else "", style)
        for colour, meaning in _COLOURS.items():
            style = style.replace(colour, meaning)
        element.set("style", style.replace(": ", ":").replace("; ", ";").strip(";"))
    if path := element.get("d"):
        element.set("d", " ".join(path.split()))
    if element.tag == "text":
        if re.match(r"rotate\(-?0 ", element.get("transform", "")):
            del element.attrib["transform"]
        if "fill:" not in element.get("style", ""):
            element.set("style", f"{element.get('style', '')};fill:currentColor".strip(";"))
    else:
        element.text = None if not (element.text or "").strip() else element.text
    element.tail = None
