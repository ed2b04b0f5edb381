"""`doctor`: the machine as it is, given to the room that knows what serving needs."""

from __future__ import annotations

from pathlib import Path

from ..backends.msmodelslim.installed import installed_executor
from ..codec.cache import cache_folder
from ..io import reading
from ..serving.environment import Host, Row, rows
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
