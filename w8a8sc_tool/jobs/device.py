"""`doctor --device`: the device self-test in a process of its own, or what is missing to run it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..errors import WorkError
from ..io import reading
from ..workers.pool import Pool

_HANDLER: Final = "w8a8sc_tool.runtime.selftest:SelfTest"
_SECONDS: Final = 1800.0


@dataclass
class DeviceReport:
    """missing: what has to be there before the device can be tested; outcomes: one per operator and shape."""

    missing: list[str] = field(default_factory=list)
    outcomes: list[Any] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.missing and all(outcome.ok for outcome in self.outcomes)

    @property
    def exit_code(self) -> int:
        """The command's."""
        return 4 if self.missing else 0 if self.ok else 1

    def document(self) -> dict[str, Any]:
        """What --json prints: docs/json.md."""
        names = ("operator", "shape", "ok", "difference", "error")
        operators = [{name: getattr(outcome, name) for name in names} for outcome in self.outcomes]
        return {"ok": self.ok, "missing": self.missing, "operators": operators}


def check_device(device: str = "npu:0") -> DeviceReport:
    """Run every operator on the device against the CPU reference."""
    report = DeviceReport()
    for package in ("torch", "torch_npu"):
        if importlib.util.find_spec(package) is None:
            report.missing.append(f"the Python package {package}")
    if device.startswith("npu"):
        report.missing += [
            f"the device file {path}"
            for path in ("/dev/davinci_manager", "/dev/davinci0")
            if not reading.exists(Path(path))
        ]
    if report.missing:
        return report
    with Pool(1, _HANDLER, device) as pool:
        pool.call(0, "the device self-test", "run")
        answers = pool.wait(_SECONDS)
        if not answers:
            raise WorkError(f"the device did not answer within {_SECONDS:.0f} s", device, "see npu-smi info")
        report.outcomes = answers[0][1]
    return report
