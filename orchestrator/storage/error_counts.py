"""How many items of a batch failed, by error code. Counted once for each version of the batch, however many requests read it."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.batches.model import BatchView
from orchestrator.storage import arrays
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/storage/sql/error_counts.sql")

_COUNT = _SQL["count"].text()

# Includes the time of the change, because a restored or rebuilt projection may reach the same version with other contents.
Version = tuple[UUID, int, datetime]

# Wait this long for another thread's count, then count ourselves: that thread's connection may be dead, and our snapshot should not stay open
# because of the count of another batch.
_PATIENCE_S = 1.0

# More batches than are read while they change; takes only 1 MB of memory.
_MAX_REMEMBERED = 2_000


class NotCountedError(Exception):
    """The failed items of this version of the batch have not been counted yet."""


class ErrorCounts:
    """The counts of all threads of a process. Only for transactions with one snapshot, in which a count belongs to the version that was
    read."""

    def __init__(self) -> None:
        self._counts: dict[Version, Mapping[str, int]] = {}
        self._counting = threading.Lock()
        self._remembering = threading.Lock()

    def fill(self, connection: Connection, batches: Sequence[BatchView]) -> list[BatchView]:
        """The batches with their counts."""
        failing = {batch.batch_id: _version(batch) for batch in batches if batch.counts.failed}
        known = self._known(failing.values())
        if len(known) < len(failing):
            # One thread counts. The threads that wait usually need the same count, because all followers of a batch wake at once.
            is_first = self._counting.acquire(timeout=_PATIENCE_S)
            try:
                known |= self._counted(connection, [version for version in failing.values() if version not in known])
            finally:
                if is_first:
                    self._counting.release()
        return _filled(batches, known)

    def fill_from_memory(self, batches: Sequence[BatchView]) -> list[BatchView]:
        """The batches with their counts, without a statement. Raises NotCountedError."""
        failing = [_version(batch) for batch in batches if batch.counts.failed]
        known = self._known(failing)
        if len(known) < len(failing):
            raise NotCountedError
        return _filled(batches, known)

    def _known(self, versions: Iterable[Version]) -> dict[Version, Mapping[str, int]]:
        return {version: counts for version in versions if (counts := self._counts.get(version)) is not None}

    def _counted(self, connection: Connection, versions: Sequence[Version]) -> dict[Version, Mapping[str, int]]:
        known = self._known(versions)
        fresh = {str(version[0]): version for version in versions if version not in known}
        if fresh:
            rows = connection.execute(_COUNT, {"batch_ids": arrays.plain(list(fresh))})
            found = {row.batch_id: row.errors_by_code for row in rows}
            counted = {version: found.get(batch_id, {}) for batch_id, version in fresh.items()}
            known |= counted
            with self._remembering:
                self._counts |= counted
                for oldest in list(islice(self._counts, max(0, len(self._counts) - _MAX_REMEMBERED))):
                    del self._counts[oldest]
        return known


def _filled(batches: Iterable[BatchView], known: Mapping[Version, Mapping[str, int]]) -> list[BatchView]:
    return [replace(batch, errors_by_code=known[_version(batch)]) if batch.counts.failed else batch for batch in batches]


def _version(batch: BatchView) -> Version:
    return batch.batch_id, batch.version, batch.changed_at
