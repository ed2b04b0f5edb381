"""The documents: all are in the index, what they point at exists, and the commands they show can be typed."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from w8a8sc_tool.checkpoint import Description, ModelConfig
from w8a8sc_tool.cli.commands import group
from w8a8sc_tool.layouts import ARCHITECTURES, REGISTRY, TARGETS, expert_members, linear_members, same_tensors
from w8a8sc_tool.planning.preset import shipped
from w8a8sc_tool.runtime.models import MODELS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")])
SOURCES = [path for folder in ("w8a8sc_tool", "tests", "scripts", "examples") for path in (ROOT / folder).rglob("*.py")]


def test_the_index_has_every_document() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for path in filter(Path.is_file, (ROOT / "docs").rglob("*")):
        name = path.relative_to(ROOT / "docs").as_posix()
        assert name == "README.md" or f"]({name})" in index, f"docs/README.md does not list {name}"


def test_links_lead_somewhere() -> None:
    links = [(page, target) for page in PAGES for target in re.findall(r"\]\(([^)#]+)", page.read_text())]
    assert links and not [
        f"{page}: {target}" for page, target in links if "://" not in target and not (page.parent / target).exists()
    ]


@pytest.mark.parametrize(
    ("page", "yes", "none"), [("docs/models.md", "yes", "none"), ("docs/zh/models.md", "支持", "无")]
)
def test_every_architecture_is_listed_with_what_runs_it(page: str, yes: str, none: str) -> None:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")]
    assert {row[0].strip("`"): row[5].startswith(yes) for row in rows} == {name: name in MODELS for name in REGISTRY}
    presets: dict[str, list[str]] = {name: [] for name in REGISTRY}
    for preset in shipped():
        presets[preset.match.architecture if preset.match else ""].append(preset.name)
    assert {row[0].strip("`"): row[3] for row in rows} == {
        name: ", ".join(sorted(names, key=_numbers)) or none for name, names in presets.items()
    }
    assert {row[0].strip("`"): row[4] for row in rows} == {name: _releases(name) for name in REGISTRY}


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


@functools.cache
def _releases(architecture: str) -> str:
    """The targets, those that want the same tensors of a model without W8A8_DYNAMIC linear layers together."""
    config = ModelConfig.of(
        {**REGISTRY[architecture].config, "architectures": [architecture]}, Path("config.json"), ARCHITECTURES
    )
    types = {f"{name}.weight": "FLOAT" for name in (*linear_members(config), *expert_members(config))}
    description = Description(Path("description"), types, dict(types))
    groups = [", ".join(same_tensors(config, description, 1, target)) for target in TARGETS]
    return "; ".join(dict.fromkeys(groups))


# Files that documents and comments name by their path in the repository.
PATH = re.compile(r"(?<![\w/.])(?:docs|examples|scripts|configs|tests|w8a8sc_tool|\.ci|\.github)/[\w./-]*\w", re.ASCII)


def test_files_that_are_named_exist() -> None:
    missing = []
    for page in (*PAGES, *SOURCES):
        text = page.read_text()
        if page.suffix == ".py":  # comments and docstrings; code may name files of its own
            text = "\n".join(re.findall(r'#.*|"""(?:.|\n)*?"""', text))
        names = PATH.findall(text)
        missing += [
            f"{page}: {name}" for name in names if not any((ROOT / (name + end)).exists() for end in ("", ".py"))
        ]
    assert not missing


def command_lines(page: Path) -> Iterator[str]:
    """What the page shows as command lines: in blocks and in spans of code."""
    text = page.read_text().replace("\\\n", " ")
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (line for block in fenced for line in block.splitlines())
    yield from re.findall(r"`([^`\n]+)`", text)


def test_commands_that_are_shown_can_be_typed() -> None:
    """Each has a name and options that the command line knows."""
    shown = 0
    for page in PAGES:
        for line in command_lines(page):
            words = shlex.split(line.partition(" | ")[0], comments=True) if line.count("'") % 2 == 0 else line.split()
            starts = [at for at, word in enumerate(words[:4]) if word == "w8a8sc" or word.endswith("/w8a8sc")]
            if not starts or len(words) == starts[0] + 1:
                continue
            name, *rest = words[starts[0] + 1 :]
            if not re.fullmatch(r"[a-z-]+", name) or name.startswith("-"):
                continue
            assert name in group.commands, f"{page}: {line}"
            known = {option for parameter in group.commands[name].params for option in parameter.opts}
            for word in rest[: rest.index("--") if "--" in rest else None]:
                if word.startswith("-") and word != "-":
                    assert re.split(r"[|\]=]", word)[0] in known | {"--help"}, f"{page}: {line}"
            shown += 1
    assert shown > 40
