"""`doctor`: the machine as it is, given to the room that knows what serving needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backends.msmodelslim.installed import installed_executor
from ..codec.kernel_cache import cache_folder
from ..errors import MissingError
from ..io import reading
from ..serving.environment import Host, Row, Task, missing, rows
from ..workers.machine import cores, free_memory


def this_machine(folder: Path = Path()) -> Host:
    return Host(
        cores=cores(),
        free_memory=free_memory(),
        free_disk=reading.free_bytes(folder),
        kernel_cache=cache_folder(),
        executor=installed_executor(),
    )


def examine(host: Host | None = None) -> list[Row]:
    """Every row of the examination."""
    return rows(host or this_machine())


@dataclass(frozen=True)
class Examination:
    """What was found of a machine, judged by what it is to do."""

    rows: list[Row]
    tasks: tuple[Task, ...]

    @property
    def ok(self) -> bool:
        return not any(missing(self.rows, task) for task in self.tasks)

    @property
    def exit_code(self) -> int:
        """The command's."""
        return 0 if self.ok else MissingError.exit_code

    def document(self) -> dict[str, Any]:
        """What --json prints: docs/json.md."""
        names = ("task", "subject", "state", "wanted", "why", "mend", "ok")
        rows = [{name: getattr(row, name) for name in names} for row in self.rows]
        return {"ok": self.ok, "judged": list(self.tasks), "rows": rows}


def examine_for(task: Task | None = None) -> Examination:
    """This machine, for one task; without, for converting and, where there is an NPU, for serving."""
    host = this_machine()
    tasks: tuple[Task, ...] = (task,) if task else ("convert", "serve") if host.has_npu else ("convert",)
    return Examination(examine(host), tasks)
