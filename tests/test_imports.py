"""What loads what: the core never loads torch, help loads neither torch nor numba, and arrows point one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "w8a8sc_tool"
# A room may import the rooms of the lines below its own.
FLOORS = (
    {"cli"},
    {"reporting"},
    {"jobs"},
    {"conversion"},
    {"checking"},
    {"resharding"},
    {"vllm"},
    {"runtime", "serving"},
    {"backends"},
    {"sharded_state"},
    {"planning", "synthesis"},
    {"layouts"},
    {"hub"},
    {"checkpoint"},
    {"workers"},
    {"io"},
    {"codec"},
)


# What needs torch lives in these rooms; their callers use some files that do without.
WITHOUT_TORCH = {
    "runtime": {"__init__", "directory", "sampling"},
    "vllm": {"index", "installed", "options", "registration", "shard"},
}


def loaded_by(script: str) -> set[str]:
    script += "\nimport sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


def test_help_loads_neither_torch_nor_numba_nor_numpy() -> None:
    modules = loaded_by("from w8a8sc_tool.cli.main import run\nassert run(['--help']) == 0")
    assert not modules & {"torch", "numba", "numpy", "safetensors", "msgspec"}
    assert not loaded_by("import w8a8sc_tool") & {"torch", "numba", "numpy"}


def test_the_core_never_loads_torch() -> None:
    names = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if path.stem != "__main__" and path.stem in WITHOUT_TORCH.get(path.relative_to(PACKAGE).parts[0], {path.stem})
    ]
    modules = loaded_by("import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in names))
    assert "numba" in modules
    assert not modules & {"torch", "torch_npu", "transformers", "msmodelslim"}


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a file imports by relative imports."""
    here = path.relative_to(PACKAGE).parts
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            target = [*here[: len(here) - node.level], *(node.module or "").split(".")]
            names = [target[0]] if target[0] else [alias.name for alias in node.names]
            rooms |= {name for name in names if name}
    return rooms


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*/**/*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_one_way(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0]
    everything = set().union(*FLOORS)
    floor = next(number for number, rooms in enumerate(FLOORS) if room in rooms)
    allowed = {room}.union(*FLOORS[floor + 1 :])
    assert imported_rooms(path) & everything <= allowed
    if room == "codec":
        assert imported_rooms(path) <= {"codec"}


def test_the_graph() -> None:
    """Prints which room imports which (pytest -s), the highest floor first; every room stands on a floor."""
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms == set().union(*FLOORS)
    graph: dict[str, set[str]] = {room: set() for floor in FLOORS for room in sorted(floor)}
    for path in PACKAGE.glob("*/**/*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        graph[room] |= (imported_rooms(path) & rooms) - {room}
    for room, imported in graph.items():
        print(f"{room}: {', '.join(other for other in graph if other in imported) or '-'}")
    assert not graph["codec"] and not any("cli" in imported for imported in graph.values())


def test_neither_commands_nor_workers_load_numba() -> None:
    """Half a second of every command otherwise: what is compiled runs without it."""
    for room, modules in {
        "jobs": ("compress", "inspect", "doctor"),
        "checking": ("verify", "compare", "verify_worker", "compare_worker"),
        "conversion": ("worker",),
        "codec": ("kernels", "matrix", "provenance"),
    }.items():
        for module in modules:
            assert "numba" not in loaded_by(f"import w8a8sc_tool.{room}.{module}"), module


# Who may ask a file system without w8a8sc_tool/io, and why.
ASKING = {
    "cli/main.py": "/dev/null",
    "cli/output.py": "/dev/null",
    "codec/kernel_cache.py": "the codec imports nothing of the project; every OSError there means another folder",
    "workers/machine.py": "/proc and /sys, where an OSError means that a value is unknown",
    "workers/forkserver.py": "the working folder, which may be gone: workers then start in the server's",
}
_METHODS = (
    *("exists", "is_dir", "is_file", "is_symlink", "is_mount", "iterdir", "glob", "rglob", "stat", "lstat", "samefile"),
    *("resolve", "absolute", "readlink", "expanduser", "owner", "read_text", "read_bytes", "write_text", "write_bytes"),
    *("mkdir", "rmdir", "unlink", "touch", "chmod", "symlink_to", "hardlink_to", "open"),
)
_FUNCTIONS = {
    "os": {"open", "stat", "lstat", "listdir", "scandir", "walk", "access", "readlink", "statvfs", "getcwd", "mkdir"}
    | {"makedirs", "remove", "unlink", "rename", "replace", "rmdir", "link", "symlink", "fsync", "chmod", "preadv"}
    | {"pread", "pwrite", "truncate", "ftruncate"},
    "shutil": {"disk_usage", "rmtree", "copy", "copy2", "copyfile", "copytree", "move"},
    "Path": {"cwd", "home"},
}


def asks_a_file_system(node: ast.AST) -> bool:
    """Whether a call goes to the file system by itself: builtin open, os, shutil, tempfile, a method of Path."""
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    if isinstance(called, ast.Name):
        return called.id == "open"
    if not isinstance(called, ast.Attribute):
        return False
    owner = called.value.id if isinstance(called.value, ast.Name) else ""
    if isinstance(called.value, ast.Attribute) and called.value.attr == "path":
        return isinstance(called.value.value, ast.Name) and called.value.value.id == "os" and called.attr not in _TEXT
    if owner in ("reading", "files"):
        return False
    if owner in _FUNCTIONS:
        return called.attr in _FUNCTIONS[owner]
    if owner == "tempfile":
        return True
    # A class's own `open`, as of Checkpoint, is no method of a path.
    return called.attr in _METHODS and not (called.attr == "open" and owner[:1].isupper())


_TEXT = {"basename", "dirname", "join", "split", "splitext", "expandvars", "normpath", "commonpath"}


@pytest.mark.parametrize(
    ("call", "asks"),
    [
        *[(f"folder.{method}()", True) for method in ("exists", "is_dir", "iterdir", "resolve", "read_bytes", "open")],
        *[("(folder / name).stat()", True), ("open(path)", True), ("os.path.exists(p)", True), ("Path.cwd()", True)],
        *[("os.access(p, 1)", True), ("shutil.disk_usage(p)", True), ("tempfile.mkdtemp()", True)],
        *[("reading.exists(p)", False), ("Checkpoint.open(p)", False), ("os.path.basename(p)", False)],
    ],
)
def test_the_search_for_questions_to_a_file_system(call: str, asks: bool) -> None:
    assert any(map(asks_a_file_system, ast.walk(ast.parse(call)))) == asks


def test_one_room_asks_the_file_system() -> None:
    """pathlib's predicates raise PermissionError where a folder may not be entered: io/reading.py makes it an error."""
    asking = {
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        if str(path.relative_to(PACKAGE)) not in ("io/reading.py", "io/files.py", "io/failures.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if asks_a_file_system(node) and isinstance(node, ast.Call)
    }
    assert {location.partition(":")[0] for location in asking} == set(ASKING), sorted(asking)


def test_a_path_needs_nothing_of_the_hubs() -> None:
    modules = loaded_by("from w8a8sc_tool.hub.locate import locate\nlocate('.', tp=1)")
    assert "w8a8sc_tool.hub.names" in modules
    assert not modules & {f"w8a8sc_tool.hub.{name}" for name in ("cached", "caches", "download", "client")}


def test_a_quiet_compress_does_not_load_what_gives_advice(tiny: Path, tmp_path: Path) -> None:
    command = ["compress", str(tiny), "-o", str(tmp_path), "-j", "1"]
    for more, advises in ((["-q"], False), (["-q", "--json"], True)):
        script = f"from w8a8sc_tool.cli.main import run\nassert run({command + more}) == 0\nprint()"
        assert ("w8a8sc_tool.jobs.serving" in loaded_by(script)) == advises
