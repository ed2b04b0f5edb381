"""Finding msmodelslim and its executor without importing it, and putting our executor in its place."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ...errors import InputError, MissingError, UsageError
from ...io import files, reading
from ...options import BACKENDS

# Where msmodelslim looks for its executor, in its own folder; the spelling is theirs.
_EXECUTOR: Final = Path("pytorch", "weight_compression", "compress_graph", "build", "compress_excutor")
_MARK: Final = b"# w8a8sc-executor, put here by `w8a8sc install-executor`"


def package_folder() -> Path | None:
    """Where msmodelslim is installed; None if it is not. Nothing of it is imported."""
    try:
        spec = importlib.util.find_spec("msmodelslim")
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def package_version() -> str:
    import importlib.metadata  # not for whoever wants no msmodelslim

    try:
        return importlib.metadata.version("msmodelslim")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def executor_path() -> Path | None:
    """Where msmodelslim looks for its executor, whether or not there is one."""
    folder = package_folder()
    return folder / _EXECUTOR if folder else None


def installed_executor() -> Literal["vendor", "builtin"] | None:
    """What lies where msmodelslim looks for its executor."""
    path = executor_path()
    if path is None or not reading.exists(path):
        return None
    try:
        return "builtin" if _MARK in next(reading.pieces(path, 4096), b"") else "vendor"
    except InputError:
        return "vendor"  # unreadable for us, so not ours


def builtin_script() -> bytes:
    """The text of our executor: a shell script, which takes a Python anywhere."""
    root = Path(__file__).parents[3]
    module = "w8a8sc_tool.backends.msmodelslim.executor"
    start = f"import sys; sys.path.insert(0, {str(root)!r}); from {module} import main; main()"
    # The path of this package and no other: msmodelslim's environment may have set one for itself.
    command = f'exec {shlex.quote(sys.executable)} -c {shlex.quote(start)} "$@"'
    return b"#!/bin/sh\n" + _MARK + b"\n" + command.encode() + b"\n"


def install_executor() -> Path:
    """Put our executor where msmodelslim looks; raises MissingError without it, UsageError over a vendor build."""
    path = executor_path()
    if path is None:
        raise MissingError("msmodelslim is not installed", remedy="pip install 'w8a8sc[msmodelslim]'")
    if installed_executor() == "vendor":
        raise UsageError(
            "an executor built with CANN is there", str(path), 'it is left alone; executor="builtin" does without it'
        )
    reading.check_can_create(path)
    files.write_program(path, builtin_script())
    return path


def uninstall_executor() -> Path | None:
    """Remove our executor; returns where it was, None if there was none. A vendor build is left alone."""
    path = executor_path()
    if path is None or installed_executor() != "builtin":
        return None
    reading.check_can_create(path)
    files.remove(path)
    return path


@dataclass(frozen=True)
class Backend:
    """Who compresses: native, or msmodelslim with an executor (None: the one at its place, vendor or ours)."""

    name: Literal["native", "msmodelslim"]
    reason: str
    executor: str | None = None


NATIVE: Final = Backend("native", "as asked")


def choose(backend: str = "auto", executor: str | None = None) -> Backend:
    """Decide who compresses. executor: vendor, builtin or a path. Raises MissingError if one is not there."""
    if backend not in BACKENDS:
        raise UsageError(f"there is no backend {backend!r}", remedy="backends: " + ", ".join(BACKENDS))
    if backend == "native" and executor:
        raise UsageError('an executor belongs to backend="msmodelslim"')
    executor_kind = installed_executor()
    if backend == "auto" and executor is None:
        if executor_kind == "vendor":
            return Backend("msmodelslim", f"msmodelslim {package_version()} has an executor built with CANN", "vendor")
        reason = "there is no msmodelslim with an executor built with CANN"
        return Backend("native", reason)
    if backend == "native":
        return NATIVE
    if package_folder() is None:
        raise MissingError(
            "msmodelslim is not installed", remedy="pip install 'w8a8sc[msmodelslim]', or backend=\"native\""
        )
    return Backend("msmodelslim", "as asked", _executor(executor, executor_kind))


def _executor(wanted: str | None, installed: str | None) -> str:
    """vendor, builtin, or the path of an executor that exists."""
    if wanted is None:
        if installed is None:
            raise MissingError(
                "msmodelslim has no executor",
                str(executor_path()),
                'build it with CANN (compress_graph/build.sh), or give executor="builtin"',
            )
        return installed
    if wanted == "vendor" and installed != "vendor":
        raise MissingError(
            "there is no executor built with CANN", str(executor_path()), "build it: compress_graph/build.sh"
        )
    if wanted in ("vendor", "builtin"):
        return wanted
    path = Path(wanted)
    if not reading.is_program(path):
        raise MissingError("not a program", wanted, "give the path of a compress_excutor, vendor or builtin")
    return str(reading.real_path(path))


def environment() -> dict[str, str]:
    """What the vendor's guide has people export before msmodelslim is started, and what keeps torch importable."""
    libraries = [str(Path(sys.base_prefix) / "lib")]
    if inherited := os.environ.get("LD_LIBRARY_PATH"):
        libraries.append(inherited)
    variables = {"LD_LIBRARY_PATH": ":".join(libraries)}
    if "PYTORCH_NPU_ALLOC_CONF" not in os.environ:
        variables["PYTORCH_NPU_ALLOC_CONF"] = "max_split_size_mb:256"
    if "ASCEND_HOME_PATH" not in os.environ:
        # With torch_npu installed but no CANN, `import torch` itself would fail.
        variables["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
    return variables
