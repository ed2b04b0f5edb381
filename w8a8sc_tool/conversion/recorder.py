"""What is durable already: work is synced while more is made, and then recorded in the journals."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from ..errors import WorkError
from ..sharded_state import JournalEntry
from .draft import DirectoryDraft

# How much work a crash may cost: what has been made is synced and recorded after so many bytes of source or seconds.
# The page cache forgets what is synced, so that most writing goes into memory that was in use a moment ago: with a GiB
# in place of this, writing took four times the processor time.
SYNC_BYTES: Final = 256 << 20
SYNC_SECONDS: Final = 10.0


class Recorder:
    """Syncs and records what drafts have complete: `worked` while they grow, `finish` at the end of good work.

    A line of a journal is written only once the bytes it speaks of are durable.
    """

    def __init__(
        self,
        drafts: Sequence[DirectoryDraft],
        sources: Mapping[str, str],
    ) -> None:
        """sources: hash of every source tensor read so far; it grows outside."""
        self._drafts = drafts
        self._sources = sources
        self._thread = ThreadPoolExecutor(1)  # it does nothing but wait for the disk
        self._syncing: tuple[list[list[JournalEntry]], Future[None]] | None = None
        self._unsynced = 0
        self._synced = time.monotonic()

    def worked(self, source_bytes: int) -> None:
        """So much more of the source has been made; sync, or record what has been synced, if it is time."""
        self._unsynced += source_bytes
        if self._syncing is not None:
            if self._syncing[1].done():
                self._record()
            return
        due = self._unsynced >= SYNC_BYTES or time.monotonic() - self._synced >= SYNC_SECONDS
        if due and self._unsynced:
            self._syncing = (self._complete(), self._thread.submit(self._sync))

    def finish(self) -> None:
        """Record what is being synced; what has been made since is durable when the directories are sealed."""
        if self._syncing is not None:
            self._record()
        self._thread.shutdown()

    def save(self) -> None:
        """Before giving up: record what is complete, if that can be done."""
        with suppress(WorkError):
            if self._syncing is not None:
                self._syncing[1].exception()
                self._syncing = None
            entries = self._complete()
            self._sync()
            self._add(entries)
        self._thread.shutdown()

    def _complete(self) -> list[list[JournalEntry]]:
        self._unsynced = 0
        self._synced = time.monotonic()
        return [draft.unrecorded(self._sources) for draft in self._drafts]

    def _sync(self) -> None:
        for draft in self._drafts:
            draft.sync()

    def _record(self) -> None:
        assert self._syncing is not None
        entries, synced = self._syncing
        synced.result()
        self._syncing = None
        self._add(entries)

    def _add(self, entries: Sequence[list[JournalEntry]]) -> None:
        for draft, complete in zip(self._drafts, entries):
            draft.record(complete)
