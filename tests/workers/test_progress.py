"""Parts of a job: whatever happens in them, they count for what was planned."""

from __future__ import annotations

import pytest

from w8a8sc_tool.workers.progress import Part, Progress, working


class Recorded(Progress):
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.done = self.skipped = 0

    def begin(self, label: str, total_bytes: int, copied_bytes: int = 0) -> None:
        self.calls.append(f"begin {label} {total_bytes}")

    def stage(self, name: str) -> None:
        self.calls.append(name)

    def advance(self, bytes_done: int, original: int = 0, compressed: int = 0) -> None:
        self.done += bytes_done

    def skip(self, bytes_done: int) -> None:
        self.skipped += bytes_done

    def end(self) -> None:
        self.calls.append("end")


@pytest.mark.parametrize(("total", "done"), [(100, 100), (50, 50), (300, 100), (7, 7), (1, 1), (0, 0)])
def test_a_part_counts_what_was_planned(total: int, done: int) -> None:
    recorded = Recorded()
    with Part(recorded, 100) as part, working(part, "verifying", total):
        for _ in range(total):
            part.advance(1)
    assert (recorded.done, recorded.skipped) == (done, 100 - done)
    assert recorded.calls == ["verifying"]


def test_a_part_of_one_name() -> None:
    recorded = Recorded()
    with Part(recorded, 0, "reading back") as part, working(part, "verifying", 10):
        part.stage("something")
        part.advance(10)
    assert (recorded.done, recorded.skipped, recorded.calls) == (0, 0, ["reading back"])


def test_two_jobs_in_a_part_do_not_count_twice() -> None:
    recorded = Recorded()
    with Part(recorded, 10) as part:
        for label in ("hashing the source", "compressing"):
            with working(part, label, 10):
                part.skip(4)
                part.advance(6)
    assert (recorded.done, recorded.skipped) == (6, 4)


def test_a_job_ends_whatever_ends_it() -> None:
    recorded = Recorded()
    with pytest.raises(ValueError), working(recorded, "compressing", 1):
        raise ValueError
    assert recorded.calls == ["begin compressing 1", "end"]
