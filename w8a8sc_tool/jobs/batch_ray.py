"""A batch on a Ray cluster: whole jobs are handed to its nodes, which see the same files under the same paths."""

# Ray schedules, watches nodes and starts lost tasks again. A conversion that is started again, on any node, goes on
# with what its journal in the shared folder says is complete.

from __future__ import annotations

import contextlib
import importlib.util
import logging
import socket
import sys
from typing import Any, Final

import msgspec

from ..errors import MissingError, WorkError
from ..workers.progress import Progress, working
from .batch import Batch, Job, Outcome, carry_out

_RETRIES: Final = 5  # nodes that a job may lose


def run_on_ray(batch: Batch, address: str | None, total: list[int], progress: Progress) -> list[Outcome]:
    """Hand every job to the cluster and wait; outcomes in the order of the jobs. Raises MissingError without ray."""
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints warnings there; standard output belongs to the result
        return _run(batch, address, total, progress)


def _run(batch: Batch, address: str | None, total: list[int], progress: Progress) -> list[Outcome]:
    if importlib.util.find_spec("ray") is None:
        raise MissingError("ray is not installed", remedy="pip install 'w8a8sc[ray]'")
    import ray

    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address or "auto", log_to_driver=False, logging_level=logging.WARNING)
        except ConnectionError as error:
            raise WorkError(
                f"there is no Ray cluster ({error})", address or "", "start one: ray start --head"
            ) from None
    task = ray.remote(max_retries=_RETRIES, num_cpus=batch.processes or 1)(_on_node)
    waiting: dict[Any, int] = {}
    outcomes: dict[int, Outcome] = {}
    try:
        with working(progress, f"{len(batch.jobs)} jobs", sum(total)):
            for number, job in enumerate(batch.jobs):
                waiting[task.remote(msgspec.json.encode(job), batch.processes)] = number
            while waiting:
                (ready, *_), _ = ray.wait(list(waiting))
                number = waiting.pop(ready)
                outcomes[number] = _result(ray, ready, batch.jobs[number], progress)
                progress.advance(total[number])
                if batch.stop_on_failure and not outcomes[number].ok:
                    for reference in waiting:
                        ray.cancel(reference, force=True)
                    break
    finally:
        if ours:
            ray.shutdown()
    skipped = {n: Outcome(job.model, job.sizes, "skipped") for n, job in enumerate(batch.jobs)}
    return [outcomes.get(number, skipped[number]) for number in range(len(batch.jobs))]


def _result(ray: Any, reference: Any, job: Job, progress: Progress) -> Outcome:
    try:
        node, data = ray.get(reference)
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines()
        return Outcome(job.model, job.sizes, "failed", f"Ray gave up ({lines[-1][:200] if lines else error})")
    progress.note(f"{job.model}: done on {node}")
    return msgspec.json.decode(data, type=Outcome)


def _on_node(job: bytes, processes: int | None) -> tuple[str, bytes]:
    """One job, on whichever node Ray has chosen."""
    outcome = carry_out(msgspec.json.decode(job, type=Job), processes, Progress())
    return socket.gethostname(), msgspec.json.encode(outcome)
