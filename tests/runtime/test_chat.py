"""Prompts through chat templates, as transformers documents them and, where it is installed, makes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from w8a8sc_tool.errors import InputError
from w8a8sc_tool.synthesis.tokenizer import tokenizer_files

pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")

from w8a8sc_tool.checkpoint import chat_templates
from w8a8sc_tool.runtime.text import Tokenizer

EACH = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
TODAY = datetime.now().strftime("%Y")
CASES: dict[str, tuple[Any, dict[str, Any], str]] = {
    # template, settings besides, what becomes of "hi"
    "bos_token": ("{{ bos_token }}" + EACH, {"bos_token": "<|endoftext|>"}, "<|endoftext|>[hi]"),
    "an object": (
        "{{ bos_token }}" + EACH,
        {"bos_token": {"__type": "AddedToken", "content": "<|im_end|>", "lstrip": False, "special": True}},
        "<|im_end|>[hi]",
    ),
    "eos and pad": (EACH + "{{ eos_token }}{{ pad_token }}", {}, "[hi]<|im_end|><|endoftext|>"),
    "no bos": ("{{ bos_token }}{{ 'none' if bos_token is not defined }}", {}, "none"),
    "break": ("{% for m in messages * 3 %}{{ m.content }}{% break %}{% endfor %}", {}, "hi"),
    "continue": ("{% for n in range(3) %}{% if n == 1 %}{% continue %}{% endif %}{{ n }}{% endfor %}", {}, "02"),
    "generation": ("{% generation %}" + EACH + "{% endgeneration %}", {}, "[hi]"),
    "generation keeps its names": ("{% set x = 1 %}{% generation %}{% set x = 2 %}{% endgeneration %}{{ x }}", {}, "1"),
    "strftime_now": ("{{ strftime_now('%Y') }}" + EACH, {}, TODAY + "[hi]"),
    "tojson": ("{{ {'b': '<é>', 'a': [1]} | tojson }}", {}, '{"b": "<é>", "a": [1]}'),
    "tojson sorted": ("{{ {'b': 1, 'a': 2} | tojson(indent=1, sort_keys=true) }}", {}, '{\n "a": 2,\n "b": 1\n}'),
    "tools and documents": ("{{ tools is none and documents is none and tools is defined }}", {}, "True"),
    "the head of the answer": ("{% if add_generation_prompt %}go{% endif %}", {}, "go"),
    "blocks": ("  {% if true %}\nx\n  {% endif %}\ny\n", {}, "x\ny"),
    "named": ([{"name": "rag", "template": "x"}, {"name": "default", "template": EACH}], {}, "[hi]"),
    "namespace": ("{% set n = namespace(x=1) %}{% set n.x = 2 %}{{ n.x }}", {}, "2"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _, files = tokenizer_files(2000)
    del files["tokenizer_config.json"]["chat_template"]
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


def settings(folder: Path, template: Any = None, **more: Any) -> Path:
    path = folder / "tokenizer_config.json"
    added = {} if template is None else {"chat_template": template}
    path.write_text(json.dumps(json.loads(path.read_text()) | more | added))
    return folder


def prompt(folder: Path, text: str = "hi") -> str:
    """What a template made of a prompt: every byte is a token, so tokens spell it."""
    made = Tokenizer(folder)
    return str(made._tokenizer.decode(made.encode(text), skip_special_tokens=False))


@pytest.mark.parametrize("name", CASES)
def test_as_documented(name: str, folder: Path) -> None:
    template, more, wanted = CASES[name]
    assert prompt(settings(folder, template, **more)) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_as_transformers_does_it(name: str, folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    template, more, _ = CASES[name]
    tokenizer = transformers.AutoTokenizer.from_pretrained(settings(folder, template, **more))
    messages = [{"role": "user", "content": "hi"}]
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert prompt(folder) == theirs
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert Tokenizer(folder).encode("hi") == list(ids)
    assert Tokenizer(folder).end_token() == tokenizer.eos_token_id


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_files_come_before_the_settings(folder: Path) -> None:
    settings(folder, "settings")
    assert prompt(folder) == "settings"
    write(folder / "additional_chat_templates/rag.jinja", "rag")
    with pytest.raises(InputError, match=r"is the default: rag, .*do not look into tokenizer_config\.json"):
        prompt(folder)
    write(folder / "additional_chat_templates/default.jinja", "folder")
    assert prompt(folder) == "folder"
    write(folder / "chat_template.jinja", "file")
    assert prompt(folder) == "file"


def test_no_template_means_the_text_itself(folder: Path) -> None:
    assert chat_templates.find(folder) is None
    assert prompt(folder, "as it is") == "as it is"
    assert prompt(settings(folder, "")) == ""


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('only Latin') }}", r"the chat template fails \(only Latin\)"),
        ("{% if %}", "the chat template fails"),
        ("{{ messages[0].append(1) }}", "the chat template fails"),
        ("{{ messages.append(1) }}", "the chat template fails"),
        ("{{ strftime_now(3) }}", "the chat template fails"),
        ([{"name": "rag", "template": "x"}], "none of the chat templates is the default: rag"),
        ([{"name": "rag"}], "an entry without a name and a template"),
        ([], "the list is empty"),
        ({"default": "x"}, "a text is wanted"),
        ("x" * 300_000, "longer than"),
    ],
)
def test_what_cannot_be_rendered(template: Any, message: str, folder: Path) -> None:
    with pytest.raises(InputError, match=message):
        prompt(settings(folder, template))


def test_tokens_of_a_class_and_of_the_old_map(folder: Path) -> None:
    template = "{{ eos_token }}|{{ unk_token }}"
    bare = {"tokenizer_class": "Qwen2TokenizerFast", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(bare))
    assert prompt(folder) == "<|endoftext|>|<|endoftext|>"
    assert Tokenizer(folder).end_token() == 256
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "<|im_end|>"}}))
    assert prompt(folder) == "<|im_end|>|<|endoftext|>"
    assert Tokenizer(folder).end_token() == 258
    settings(folder, added_tokens_decoder={})  # settings this new hold all of it
    assert prompt(folder) == "<|endoftext|>|<|endoftext|>"
    settings(folder, eos_token=None)
    assert Tokenizer(folder).end_token() is None


def test_a_lost_template_is_a_note(tiny_copy: Path, plan_warnings: Callable[[Path], str]) -> None:
    """msmodelslim copies tokenizer_config.json and not chat_template.jinja, where transformers 5 puts it."""
    path = tiny_copy / "tokenizer_config.json"
    content = json.loads(path.read_text())
    template = content.pop("chat_template")
    path.write_text(json.dumps(content))
    assert "no chat template" in plan_warnings(tiny_copy)
    (tiny_copy / "chat_template.jinja").write_text(template)
    assert plan_warnings(tiny_copy) == ""
    path.write_text("{")
    (tiny_copy / "chat_template.jinja").unlink()
    assert "the chat template will not work: not valid JSON" in plan_warnings(tiny_copy)


@pytest.fixture
def plan_warnings() -> Callable[[Path], str]:
    from w8a8sc_tool.checkpoint import Checkpoint
    from w8a8sc_tool.layouts import ARCHITECTURES
    from w8a8sc_tool.planning import Options, make_plan

    return lambda folder: "\n".join(make_plan(Checkpoint.open(folder, ARCHITECTURES), 1, Options()).warnings)
