"""The public names: each is what it says, in a fresh process, before and after anything else was used."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import w8a8sc_tool
from w8a8sc_tool.errors import UsageError
from w8a8sc_tool.jobs.compress import plan
from w8a8sc_tool.jobs.reshard import reshard
from w8a8sc_tool.options import as_patterns, as_sizes

FUNCTIONS = {
    *("compress", "plan", "run_batch", "reshard", "to_checkpoint", "card", "synthesize"),
    *("locate", "inspect", "verify", "verify_tree", "compare", "fit", "examine", "report"),
    *("prepare_serving", "start_serving", "generate", "install_executor", "uninstall_executor", "compile_kernels"),
    *("encode_matrix", "decode_matrix"),
}
RESULTS = {
    *("Compressed", "Plan", "Outcome", "Inspection", "Report", "TreeReport", "Finding", "Comparison", "Estimate"),
    *("ReportPage",),
    *("Row", "Prepared", "Card", "Command", "Generated", "EncodedMatrix", "Manifest", "Progress", "Problem"),
}
ERRORS = {"W8A8SCError", "InputError", "UsageError", "WorkError", "MissingError"}
PACKAGE = Path(w8a8sc_tool.__file__).parent

# In a process that has imported nothing of the program but the package itself, a child for each name: the name is asked
# for first, then all rooms are imported, then it is asked for again, in both ways that there are.
SCRIPT = """
import importlib, os, pkgutil, sys, types
import msgspec, numba, numpy, safetensors  # not ours, and slow to import
import w8a8sc_tool

def check(name):
    value = getattr(w8a8sc_tool, name)
    for module in pkgutil.iter_modules(w8a8sc_tool.__path__, "w8a8sc_tool."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    imported = {}
    exec(f"from w8a8sc_tool import {name}", imported)
    assert getattr(w8a8sc_tool, name) is value is imported[name], "another object after use"
    kind = "function" if isinstance(value, types.FunctionType) else "class" if isinstance(value, type) else "text"
    print(name, kind, getattr(value, "__name__", ""), value if kind == "text" else "", flush=True)

for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        check(name)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
"""


@pytest.mark.slow
def test_public_names_are_what_they_are_before_and_after_use() -> None:
    command = [sys.executable, "-c", SCRIPT, *w8a8sc_tool.__all__]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kinds = {line.split()[0]: line.split()[1:] for line in printed.splitlines()}
    assert kinds == (
        {name: ["function", name] for name in FUNCTIONS}
        | {name: ["class", name] for name in ERRORS | RESULTS}
        | {"VERSION": ["text", w8a8sc_tool.__version__]}
    )


def test_type_checkers_and_dir_know_the_same_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported == w8a8sc_tool._PUBLIC
    assert set(w8a8sc_tool.__all__) <= set(dir(w8a8sc_tool))
    with pytest.raises(AttributeError, match="nothing"):
        _ = w8a8sc_tool.nothing


@pytest.mark.parametrize("folder", sorted(path.parent for path in PACKAGE.rglob("__init__.py")), ids=lambda p: p.name)
def test_no_module_has_the_name_of_what_its_package_exports(folder: Path) -> None:
    """Importing the module would put it in the place of what is exported, or the other way round."""
    package = importlib.import_module(".".join(folder.relative_to(PACKAGE.parent).parts))
    modules = {module.name for module in pkgutil.iter_modules([str(folder)])}
    assert not modules & set(getattr(package, "__all__", ()))


def test_one_size_and_one_pattern_stand_for_themselves(tiny: Path, tmp_path: Path) -> None:
    assert as_sizes(4) == (4,) and as_sizes([2, 1]) == (2, 1)
    assert as_patterns("*.o_proj") == ("*.o_proj",) and as_patterns(["a", "b"]) == ("a", "b")
    (one,) = plan(tiny, tp=2, keep="*.o_proj")
    (several,) = plan(tiny, tp=[2], keep=["*.o_proj"])
    assert one == several
    assert {item.module.name for item in one.modules if item.fallback == "pinned"} == {
        f"model.layers.{layer}.self_attn.o_proj" for layer in (0, 1)
    }
    (result,) = w8a8sc_tool.compress(tiny, tmp_path, tp=2, keep="*.o_proj", name="Tiny", processes=1)
    assert result.manifest.options["keep"] == ["*.o_proj"]
    (cut,) = reshard(result.directory, tmp_path, tp=1, processes=1)
    assert cut.tp == 1 and cut.manifest.options == result.manifest.options


@pytest.mark.parametrize("sizes", [[], (2, 2), 0, -1, True, "4", [2.0], ["1"]])
def test_sizes_that_are_none(sizes: object, tiny: Path) -> None:
    with pytest.raises(UsageError, match="tensor-parallel size"):
        plan(tiny, tp=sizes)  # type: ignore[arg-type]


def test_patterns_that_are_none(tiny: Path) -> None:
    with pytest.raises(UsageError, match="7 is not a pattern"):
        plan(tiny, keep=[7])  # type: ignore[list-item]
