"""Reports in a real browser: nothing is fetched, nothing complains, and all of it fits on screens large and small.

W8A8SC_BROWSER names a Chromium; without it those that distributions install are looked for.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from w8a8sc_tool import report
from w8a8sc_tool.jobs.compress import compress
from w8a8sc_tool.synthesis.synthesize import synthesize

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
PROGRAM = os.environ.get("W8A8SC_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed, and W8A8SC_BROWSER names none"),
]

SCREENS = ((1280, "light"), (390, "light"), (1280, "dark"), (390, "dark"))
HEADINGS = ("glance", "checked", "origin", "layers", "bytes", "tokens", "memory", "serve", "not-checked")
# Elements that stick out of what they are in, but for regions that scroll.
OVERFLOWING = """() => [...document.querySelectorAll('main *, header *')].filter(element =>
    !element.closest('.scroll') && element.getBoundingClientRect().right > innerWidth + 1)
    .map(element => element.outerHTML.slice(0, 99))"""
CONTRAST = """() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
    getComputedStyle(document.querySelector('svg text')).fill]"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as machinery:
        chromium = machinery.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(sealed: Callable[[int], Path], tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports by what they are about. Read only."""
    folder = tmp_path_factory.mktemp("pages")
    damaged = Path(shutil.copytree(sealed(2), folder / ("<img src=x onerror=alert(1)> " + "long-" * 40)))
    (damaged / "model-rank-1-part-0.safetensors").unlink()
    mixed = synthesize(
        folder / "mixed-w8a8s-310", "tiny", layers=4, types=[("*.0.mlp.*", "FLOAT"), ("*.1.mlp.*", "W8A8")]
    )
    (made,) = compress(mixed, folder, tp=2, keep="*.o_proj", processes=1)
    subjects = {
        "sizes": [sealed(1), sealed(2)],
        "damaged": [damaged],
        "checkpoint": [tiny],
        "mixed": [made.directory, tiny],
    }
    return {name: report(paths, folder / f"{name}.html").page for name, paths in subjects.items()}


@pytest.mark.parametrize("name", ["sizes", "damaged", "checkpoint", "mixed"])
def test_a_page(name: str, browser: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    for width, scheme in SCREENS:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        messages: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message: messages.append(message.text))  # noqa: B023 - used before the next turn
        page.on("pageerror", lambda error: messages.append(str(error)))  # noqa: B023
        page.on("request", lambda request: requests.append(request.url))  # noqa: B023
        page.goto(pages[name].as_uri())
        assert [page.locator(f"h2#{heading}").count() for heading in HEADINGS] == [1] * len(HEADINGS)
        assert page.locator("svg[role=img]").count() >= (1 if name == "damaged" else 2)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(OVERFLOWING) == []
        paper, ink, text = page.evaluate(CONTRAST)
        assert ink == text and (sum(channels(paper)) < sum(channels(ink))) == (scheme == "dark")
        assert distinct_colours(page.screenshot(full_page=True), tmp_path) > 20
        assert messages == [] and requests == [pages[name].as_uri()]
        context.close()


def channels(colour: str) -> list[int]:
    return [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]


def distinct_colours(png: bytes, folder: Path) -> int:
    """How many colours a picture has: an empty page has one or two."""
    from matplotlib.image import imread

    path = folder / "page.png"
    path.write_bytes(png)
    pixels = (imread(path)[::3, ::3, :3] * 255).astype("uint32")
    return len(set((pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]).ravel().tolist()))


def test_the_top_of_a_damaged_one(browser: Any, pages: dict[str, Path]) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(pages["damaged"].as_uri())
    verdict = page.locator(".verdict")
    assert "Not in order" in verdict.inner_text() and "rank 1" in verdict.inner_text()
    assert page.locator("img, script").count() == 0
    page.close()


def test_with_a_keyboard_alone(browser: Any, pages: dict[str, Path]) -> None:
    """The first stop skips to the content; what scrolls and what opens is reached, and Enter opens it."""
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(pages["sizes"].as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    unreachable = (
        "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth && e.tabIndex < 0).length"
    )
    assert page.evaluate(unreachable) == 0
    assert page.evaluate("[...document.querySelectorAll('.scroll')].every(e => e.getAttribute('aria-label'))")
    page.locator("details:not([open]) > summary").first.focus()
    shut = page.locator("details:not([open])").count()
    page.keyboard.press("Enter")
    assert page.locator("details:not([open])").count() == shut - 1
    page.close()


def test_text_in_pictures_can_be_selected_and_numbers_stand_in_tables(browser: Any, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["sizes"].as_uri())
    page.evaluate("getSelection().selectAllChildren(document.querySelector('svg'))")
    assert "self_attn.o_proj" in page.evaluate("getSelection().toString()")
    assert page.locator("table.map td").count() >= 2 * 2 * 4
    page.close()


def test_in_print(browser: Any, pages: dict[str, Path]) -> None:
    """Everything is there, also what is folded away on the screen, and nothing is cut off at the paper's edge."""
    page = browser.new_page(viewport={"width": 718, "height": 1000})  # A4 without its margins, at 96 dots per inch
    page.emulate_media(media="print", color_scheme="dark")
    page.goto(pages["sizes"].as_uri())
    assert page.evaluate(CONTRAST)[0] == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    assert page.evaluate(
        "[...document.querySelectorAll('table.map')].every(e => e.getBoundingClientRect().height > 50)"
    )
    assert not page.locator("nav").is_visible()
    assert len(page.pdf()) > 20_000
    page.close()
