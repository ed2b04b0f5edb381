"""Where compiled kernels are kept: a file of object code for each kind of machine. Nothing of numba is loaded here."""

# The folder is named after the content of all of the codec's sources, and the file after all else that decides about
# the code; it begins with a digest of what follows, because a machine that loses power may leave half of it.

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final, NamedTuple

CACHE_VARIABLE: Final = "W8A8SC_CACHE_DIR"

# What /proc/cpuinfo says of a processor that decides which code it can run, on x86 and on Arm.
_PROCESSOR: Final = {"vendor_id", "cpu family", "model", "model name", "stepping", "flags"} | {
    "CPU implementer",
    "CPU architecture",
    "CPU variant",
    "CPU part",
    "Features",
}
_DIGEST_BYTES: Final = hashlib.sha256().digest_size


class ObjectCode(NamedTuple):
    """A compiled kernel.

    symbol: its function in `code`, an object file; arguments: how many integers of 64 bits it takes; sizes: by name,
    what its callers need to know.
    """

    name: str
    symbol: str
    arguments: int
    sizes: dict[str, int]
    code: bytes


def read() -> list[ObjectCode] | None:
    """All kernels for this machine; None if they are not kept, or not whole."""
    for folder in _folders():
        kernels = _read(folder)
        if kernels is not None:
            return kernels
    return None


def write(kernels: Sequence[ObjectCode], folder: Path) -> None:
    """Keep all kernels for this machine in a folder; they are not kept where it cannot be written."""
    import tempfile

    content = marshal.dumps([tuple(kernel) for kernel in kernels])
    with contextlib.suppress(OSError):
        descriptor, temporary = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(content).digest() + content)
                os.fchmod(descriptor, 0o644)  # an image's user is another one than who built it
            Path(temporary).replace(folder / _file_name())  # whole, or not at all: others may be reading
        except OSError:
            Path(temporary).unlink()
            raise


def kept_in() -> Path | None:
    """The folder that has all kernels for this machine; None if there is none."""
    return next((folder for folder in _folders() if _read(folder) is not None), None)


def cache_folder() -> Path | None:
    """The folder that has the kernels, or else the first that they can be written to; None: there is none."""
    return kept_in() or writable_folder()


def writable_folder() -> Path | None:
    """The first folder that kernels can be written to, which is made; None if there is none."""
    import tempfile

    for folder in _folders():
        with contextlib.suppress(OSError):
            folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            folder.mkdir(mode=0o755, exist_ok=True)
            if _is_ours(folder):
                with tempfile.TemporaryFile(dir=folder):
                    return folder
    return None


def _folders() -> Iterator[Path]:
    """Where compiled kernels of these sources may be kept, best first."""
    name = f"kernels-{_sources_digest()}"
    return (parent / name for parent in _candidates())


def _candidates() -> Iterator[Path]:
    if chosen := os.environ.get(CACHE_VARIABLE):
        yield Path(chosen)
        return
    yield Path(__file__).parent / "__pycache__"
    if home := os.environ.get("XDG_CACHE_HOME"):
        yield Path(home) / "w8a8sc"
    with contextlib.suppress(RuntimeError):  # no home: a container with an unknown user
        yield Path.home() / ".cache" / "w8a8sc"
    import tempfile

    with contextlib.suppress(OSError):  # no folder for temporary files
        yield Path(tempfile.gettempdir()) / f"w8a8sc-{os.getuid()}"


def _read(folder: Path) -> list[ObjectCode] | None:
    """The kernels for this machine in a folder; None if they are not there, not whole, or not to be trusted."""
    try:
        if not _is_ours(folder):
            return None
        content = (folder / _file_name()).read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[_DIGEST_BYTES:]).digest() != content[:_DIGEST_BYTES]:
        return None
    return [ObjectCode(*kernel) for kernel in marshal.loads(content[_DIGEST_BYTES:])]


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can have put compiled code into a folder: loading it is running it."""
    return all(
        status.st_uid in (0, os.getuid()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        for status in (folder.parent.stat(), folder.stat())
    )


def _sources_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _file_name() -> str:
    """The file with the kernels for this Python, this numba and this processor.

    A folder may be shared by unlike machines, or come with an image that was built on another.
    """
    facts = [sys.version, os.uname().machine, _version_of("numba"), _version_of("llvmlite")]
    facts += [os.environ.get(name, "") for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")]
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as file:
        for line in file:
            if not line.strip():
                break  # the other cores are alike
            if line.partition(":")[0].strip() in _PROCESSOR:
                facts.append(line.strip())
    return f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}.kernels"


def _version_of(package: str) -> str:
    """A package's own file about its version: importlib.metadata would take longer to import than kernels to load."""
    spec = PathFinder.find_spec(package)
    if spec is None or spec.origin is None:
        return ""
    with contextlib.suppress(OSError):
        return Path(spec.origin).with_name("_version.py").read_text()
    return spec.origin
