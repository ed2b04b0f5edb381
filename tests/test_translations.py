"""Pages in two languages say the same: block by block, the code, figures, names and links of both are compared.

Translated are prose, headings and the comments of code blocks. What must agree:

- the blocks of a page: headings with their levels, code blocks, table rows with as many cells, list items, paragraphs;
- code blocks byte for byte, but for comments: ``# `` at the start of a line or after a space, up to the line's end;
- table cells of code and figures byte for byte, and those of names unless the translation puts them into Chinese;
- of all text, comments included, how often it has which code span, figure (a month is one), word in capitals and link.
  A link, or a path named in prose, to a page that has a translation leads to the translation;
- paragraphs, items and cells have as many sentences as their translations;
- words in Latin letters that a translation has are in the English text, too;
- what has words in English has Chinese ones in the translation.

A sentence whose words change, and nothing else, is for whoever changes it to translate (CONTRIBUTING.md).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRANSLATIONS = {
    "README.md": "README.zh-CN.md",
    "docs/guide.md": "docs/zh/guide.md",
    "docs/models.md": "docs/zh/models.md",
    "docs/serving.md": "docs/zh/serving.md",
}
ENGLISH = {translation: page for page, translation in TRANSLATIONS.items()}

CODE = re.compile(r"`[^`]+`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"(?<![\w/.-])(?:docs|examples|scripts|configs|tests)/[\w./-]*\w", re.ASCII)
FIGURE = re.compile(r"\d+(?:[.,]\d+)*")
MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
MONTH = re.compile(rf"\b({MONTHS})(?= \d)")
CAPITALS = re.compile(r"[A-Z]{3,}")
COMMENT = re.compile(r"(?:^|(?<=\s))# .*$")
CHINESE = re.compile(r"[\u4e00-\u9fff]")
SENTENCE = re.compile(r"""[.?!](?=[\s)*"]|$)|[\u3002\uff1f\uff01]""")  # the last are Chinese: full stop, ? and !
LATIN = re.compile(r"[A-Za-z][A-Za-z_-]{2,}")
WORD = re.compile(r"(?<![\w./-])[a-z]{2,}(?![\w./-])", re.ASCII)
HEADING_WORD = re.compile(r"\b[A-Za-z][a-z]{2,}\b", re.ASCII)  # elsewhere a word with a capital may be a name


@dataclass(frozen=True)
class Block:
    """A part of a page: its form ("heading 2", "code", "row of 3 cells", "item", "paragraph"), its text, and the
    heading that it is under (of a heading, itself)."""

    form: str
    text: str
    heading: str


def blocks_of(text: str) -> Iterator[Block]:
    """The page's blocks in their order, of the part of Markdown that the pages use."""
    heading = ""
    pattern = re.compile(
        r"^```[^\n]*\n(?P<code>.*?)^```$|^(?P<level>#+) (?P<heading>[^\n]+)$|^(?P<row>\|[^\n]*\|)$"
        r"|^(?P<item>(?:[-*]|\d+\.) [^\n]+(?:\n +[^\n]+)*)|^(?P<paragraph>[^\n]+(?:\n(?!```|#+ |\||[-*] |\n)[^\n]+)*)",
        re.MULTILINE | re.DOTALL,
    )
    for match in pattern.finditer(text):
        form = str(match.lastgroup)
        content = match[form] if form != "code" else match[0]
        if form == "heading":
            form, heading = f"heading {len(match['level'])}", content
        elif form == "row":
            form = f"row of {len(cells_of(content))} cells"
        yield Block(form, content, heading)


def cells_of(row: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def facts_of(text: str, page: str) -> Counter[str]:
    """What a text has that no language changes, and how often; links and paths as those of the English page."""
    text = " ".join(text.split())  # a code span may be broken between lines
    facts = Counter(CODE.findall(text))
    rest = CODE.sub(" ", text)
    for target in LINK.findall(rest):
        path = target if "://" in target else os.path.normpath(Path(page).parent / target)
        facts[f"link to {_english(path, page)}"] += 1
    rest = LINK.sub("]", rest)
    for path in PATH.findall(rest):
        facts[_english(path, page)] += 1
    rest = MONTH.sub(lambda match: str(MONTHS.split("|").index(match[1]) + 1), PATH.sub(" ", rest))
    return facts + Counter(FIGURE.findall(rest)) + Counter(CAPITALS.findall(rest))


def _english(path: str, page: str) -> str:
    """The English page in the place of a translation, where a translation points at it; else the path as it is."""
    return ENGLISH.get(path, f"{path} (in English)" if path in TRANSLATIONS else path) if page in ENGLISH else path


def differences(page: str, english: str, chinese: str) -> list[str]:
    """What differs between a page and its translation, each with the pages' names, the heading and the difference."""
    translation = TRANSLATIONS[page]
    ours, theirs = list(blocks_of(english)), list(blocks_of(chinese))
    links = [
        _language_link(ours, "简体中文", page, translation),
        _language_link(theirs, "English", translation, page),
    ]
    if any(links):
        return [link for link in links if link]
    del ours[1], theirs[1]
    for index, (block, translated) in enumerate(zip_longest(ours, theirs)):
        if block is None or translated is None or block.form != translated.form:
            both_are_headings = block and translated and block.form[:7] == translated.form[:7] == "heading"
            heading = ours[index if both_are_headings else index - 1].heading
            return [f"{page}, under {heading!r}: {_shown(block)}, but in {translation}: {_shown(translated)}"]
    return [
        f"{page}, under {block.heading!r}: {problem} ({translation}: {translated.text[:60]!r})"
        for block, translated in zip(ours, theirs)
        for problem in _compared(block, translated, page)
    ]


def _language_link(blocks: list[Block], language: str, page: str, other: str) -> str | None:
    """The sentence that the link to the other language is missing; it is alone beneath the title."""
    link = f"[{language}]({os.path.relpath(other, Path(page).parent)})"
    if [block.form for block in blocks[:2]] == ["heading 1", "paragraph"] and blocks[1].text == link:
        return None
    return f"{page}, beneath the title: a paragraph {link} is missing"


def _shown(block: Block | None) -> str:
    return f"{block.form} {block.text[:60]!r}" if block else "nothing"


def _compared(ours: Block, theirs: Block, page: str) -> Iterator[str]:
    if ours.form == "code":
        yield from _code_compared(ours.text.splitlines(), theirs.text.splitlines(), page)
    elif ours.form.startswith("row"):
        for cell, translated in zip(cells_of(ours.text), cells_of(theirs.text)):
            yield from _cell_compared(cell, translated, page)
    elif ours.form.startswith("heading"):
        yield from _prose_compared(ours.text, theirs.text, page, HEADING_WORD)
    else:
        yield from _prose_compared(ours.text, theirs.text, page)
        yield from _sentences_compared(ours.text, theirs.text)


def _cell_compared(ours: str, theirs: str, page: str) -> Iterator[str]:
    text = CODE.sub("", LINK.sub("]", ours))
    is_code = not re.search("[A-Za-z]", text)
    are_names = not WORD.search(text) and not CHINESE.search(theirs)
    if (is_code or are_names) and LINK.sub("]", ours) != LINK.sub("]", theirs):
        yield f"cell {ours!r} is {theirs!r}"
    else:
        yield from _prose_compared(ours, theirs, page)
        yield from _sentences_compared(ours, theirs)


def _code_compared(ours: list[str], theirs: list[str], page: str) -> Iterator[str]:
    if len(ours) != len(theirs):
        yield f"{len(ours)} lines of code, and {len(theirs)}"
    for line, translated in zip(ours, theirs):
        comments = [COMMENT.search(text) for text in (line, translated)]
        if COMMENT.sub("#", line) != COMMENT.sub("#", translated):
            yield f"code {line!r} is {translated!r}"
        elif comments[0] and comments[1]:
            yield from _prose_compared(comments[0][0], comments[1][0], page)


def _prose_compared(ours: str, theirs: str, page: str, word: re.Pattern[str] = WORD) -> Iterator[str]:
    facts, translated = facts_of(ours, page), facts_of(theirs, TRANSLATIONS[page])
    for missing in sorted((facts - translated).elements()):
        yield f"{missing} is missing in the translation"
    for surplus in sorted((translated - facts).elements()):
        yield f"{surplus} is in the translation alone"
    for name in sorted(set(LATIN.findall(LINK.sub("]", CODE.sub(" ", theirs))))):
        if name.lower() not in ours.lower():
            yield f"the word {name!r} is in the translation alone"
    if word.search(CODE.sub(" ", LINK.sub("]", ours))) and not CHINESE.search(theirs):
        yield "not translated"


def _sentences_compared(ours: str, theirs: str) -> Iterator[str]:
    counts = [len(SENTENCE.findall(CODE.sub("code", text))) for text in (ours, theirs)]
    if counts[0] != counts[1]:
        yield f"{counts[0]} sentences, and {counts[1]} in the translation"


@pytest.mark.parametrize("page", TRANSLATIONS)
def test_a_page_and_its_translation_say_the_same(page: str) -> None:
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in (page, TRANSLATIONS[page])]
    assert len(list(blocks_of(texts[0]))) > 10
    problems = differences(page, *texts)
    assert not problems, "\n" + "\n".join(problems)


def test_every_translation_is_compared() -> None:
    files = [*ROOT.glob("README.*.md"), *(path for path in (ROOT / "docs" / "zh").rglob("*") if path.is_file())]
    assert {path.relative_to(ROOT).as_posix() for path in files} == set(ENGLISH)


SAMPLE = """# Guide

[简体中文](zh/guide.md)

Some words on 310P, with `--tp 2`,
of [serving](serving.md) and docs/models.md. One more sentence.

## 1. Begin

```
pip install .      # for 2 chips
tool --tp 4
```

| option | default | why it is |
|---|---|---|
| `--tp` | 1, 2 | set for FLOAT layers by hand |

- an item of some words
- another item of more words
"""
TRANSLATED = """# 指南

[English](../guide.md)

关于 310P 的话 `--tp 2` 见[部署](serving.md)和 docs/zh/models.md。再一句。

## 1. 开始

```
pip install .      # 用于 2 个芯片
tool --tp 4
```

| 选项 | 默认值 | 原因 |
|---|---|---|
| `--tp` | 1, 2 | 为 FLOAT 层手工设置 |

- 一项
- 另一项
"""


def test_a_translation_that_says_the_same() -> None:
    assert differences("docs/guide.md", SAMPLE, TRANSLATED) == []


@pytest.mark.parametrize(
    ("english", "chinese", "message"),
    [
        ("\n[简体中文](zh/guide.md)\n", None, "docs/guide.md, beneath the title"),
        (None, "\n[English](../guide.md)\n", "docs/zh/guide.md, beneath the title"),
        ("## 1. Begin\n", "## 1. 开始\n", "heading 2"),
        (
            "Some words on 310P, with `--tp 2`,\nof [serving](serving.md) and docs/models.md. One more sentence.\n",
            None,
            "paragraph",
        ),
        (None, "关于 310P 的话 `--tp 2` 见[部署](serving.md)和 docs/zh/models.md。再一句。\n", "paragraph"),
        ("310P", "310P", "310 is"),
        ("`--tp 2`", "`--tp 2`", "`--tp 2` is"),
        ("[serving](serving.md)", "[部署](serving.md)", "link to docs/serving.md is"),
        ("docs/models.md", "docs/zh/models.md", "docs/models.md is"),
        ("tool --tp 4\n", "tool --tp 4\n", "lines of code"),
        (" --tp 4", " --tp 4", "code 'tool"),
        ("    # for 2 chips", "    # 用于 2 个芯片", "code 'pip"),
        ("for 2 chips", "用于 2 个芯片", "2 is"),
        (" why it is |", " 原因 |", "row of 2 cells"),
        ("| `--tp` | 1, 2 | set for FLOAT layers by hand |\n", "| `--tp` | 1, 2 | 为 FLOAT 层手工设置 |\n", "row of 3"),
        ("`--tp` |", "`--tp` |", "cell"),
        (" 1, 2 |", " 1, 2 |", "row of 2"),
        ("1, 2", "1, 2", "cell"),
        ("FLOAT", "FLOAT", "FLOAT is"),
        (" One more sentence.", "再一句。", "sentences"),
        ("- another item of more words\n", "- 另一项\n", "item"),
    ],
)
def test_what_one_language_lacks(english: str | None, chinese: str | None, message: str) -> None:
    """Whichever of the two it is: the other has it."""
    for lacking, texts in ((english, (SAMPLE, TRANSLATED)), (chinese, (TRANSLATED, SAMPLE))):
        if lacking is None:
            continue
        assert texts[0].count(lacking) >= 1
        changed = texts[0].replace(lacking, "", 1), texts[1]
        problems = differences("docs/guide.md", *(changed if texts[0] is SAMPLE else reversed(changed)))
        assert problems and message in problems[0], problems


@pytest.mark.parametrize(
    ("text", "instead", "message"),
    [
        ("docs/zh/models.md", "docs/models.md", "docs/models.md (in English) is in the translation alone"),
        ("(serving.md)", "(../serving.md)", "link to docs/serving.md (in English) is in the translation alone"),
        ("## 1.", "### 1.", "under '1. Begin': heading 2 '1. Begin', but in docs/zh/guide.md: heading 3"),
        ("--tp 4", "--tp 8", "under '1. Begin': code 'tool --tp 4' is 'tool --tp 8'"),
        ("install .      #", "install . #", "code 'pip install .      # for 2 chips' is"),
        ("1, 2", "1, 3", "cell '1, 2' is '1, 3'"),
        ("1, 2", "1 和 2", "cell '1, 2' is '1 和 2'"),
        ("| 默认值 |", "|  |", "under '1. Begin': not translated"),
        ("- 另一项\n", "- 另一项\n- 第三项\n", "under '1. Begin': nothing, but in docs/zh/guide.md: item"),
        ("\n## 1.", "\n多一段\n\n## 1.", "under 'Guide': heading 2 '1. Begin', but in docs/zh/guide.md: paragraph"),
        ("1. 开始", "1. Begin", "under '1. Begin': not translated"),
        ("另一项", "另一 triton 项", "under '1. Begin': the word 'triton' is in the translation alone"),
        ("另一项", "one item that says much", "under '1. Begin': not translated"),
    ],
)
def test_what_is_wrong_in_a_translation(text: str, instead: str, message: str) -> None:
    assert text in TRANSLATED
    problems = differences("docs/guide.md", SAMPLE, TRANSLATED.replace(text, instead, 1))
    assert problems and any(message in problem for problem in problems), problems
