"""Statements on `revocation_request`: what an external registration service was asked to revoke, and its answers."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.batches.model import Revocation
from orchestrator.batches.records import RecordElsewhere
from orchestrator.storage import arrays
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/storage/sql/revocation_requests.sql")

_LIVING = _SQL["living"].text()
_REQUEST = _SQL["request"].text()
_OPEN = _SQL["open"].text()
_RECORD = _SQL["record"].text()
_OVERDUE = _SQL["overdue"].text()
_NOTE_RESENT = _SQL["note_resent"].text()


class RevocationKey(NamedTuple):
    """An item whose activity the service is asked to revoke."""

    batch_id: str
    position: int


class OpenRequest(NamedTuple):
    """A request that the service has not answered. `request` is its number among the requests of the item."""

    key: RevocationKey
    request: int
    organization_id: str
    activity_id: str
    revocation: Revocation
    channel: str
    is_bulk: bool
    trace_id: str


class Answer(NamedTuple):
    """What the service said to a request: revoked, or refused with this code."""

    key: RevocationKey
    request: int
    code: str | None


class Answered(NamedTuple):
    """A request that an answer has settled, and who made it why."""

    key: RevocationKey
    by: str
    reason: str
    code: str | None


def living(connection: Connection, batch_id: UUID, positions: Sequence[int]) -> Sequence[RecordElsewhere]:
    """The living activities of these items that the service has registered, by position."""
    rows = connection.execute(_LIVING, {"batch_id": batch_id, "positions": arrays.plain(positions)})
    return [RecordElsewhere(row.position, row.created_at, row.is_requested) for row in rows]


def store_requests(
    connection: Connection,
    batch_id: UUID,
    organization_id: str,
    positions: Sequence[int],
    revocation: Revocation,
    *,
    channel: str,
    is_bulk: bool,
) -> None:
    """Stores a request for each of these items. None of them may have an open one. The batch is locked."""
    asked = {"at": revocation.at, "by": revocation.by, "reason": revocation.reason, "channel": channel, "is_bulk": is_bulk}
    items = {"batch_id": batch_id, "organization_id": organization_id, "positions": arrays.plain(positions)}
    connection.execute(_REQUEST, {**items, **asked})


def open_requests(connection: Connection, keys: Sequence[RevocationKey]) -> Sequence[OpenRequest]:
    """The open requests of these items, by batch and position."""
    return [
        OpenRequest(
            RevocationKey(row.batch_id, row.position),
            row.request,
            row.organization_id,
            row.activity_id,
            Revocation(row.asked_at, row.asked_by, row.reason),
            row.channel,
            row.is_bulk,
            row.trace_id,
        )
        for row in connection.execute(_OPEN, arrays.items(keys))
    ]


def record_answers(connection: Connection, answers: Sequence[Answer], at: datetime) -> Sequence[Answered]:
    """Stores answers. Returns the requests that they have settled, by batch and position."""
    rows = connection.execute(
        _RECORD,
        {
            **arrays.items(answer.key for answer in answers),
            "requests": arrays.plain([answer.request for answer in answers]),
            "codes": arrays.texts([answer.code for answer in answers]),
            "at": at,
        },
    )
    return sorted(Answered(RevocationKey(row.batch_id, row.position), row.asked_by, row.reason, row.code) for row in rows)


def overdue_requests(
    connection: Connection, *, quiet: timedelta, pause: timedelta, aside: Sequence[str], limit: int
) -> Sequence[RevocationKey]:
    """Items whose request was sent some time ago and not answered. Leaves out those of the batches in `aside`."""
    rows = connection.execute(_OVERDUE, {"quiet": quiet, "pause": pause, "aside": list(aside), "limit": limit})
    return [RevocationKey(row.batch_id, row.position) for row in rows]


def note_resent(connection: Connection, keys: Sequence[RevocationKey]) -> None:
    """Counts a resend of these items' requests; the next one comes after a longer time."""
    connection.execute(_NOTE_RESENT, arrays.items(keys))
