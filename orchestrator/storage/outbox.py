"""Statements on the table `outbox`: what a transaction decided to publish, until the relay has published it.

No row is ever locked: a slot's rows are read and deleted by whoever owns the slot (`producers/relay.py`), inserted by anybody.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from orchestrator.repository import EventOf
from orchestrator.storage import arrays
from orchestrator.storage.prepared import Prepared
from schemas.envelope import OutgoingEvent, Topic

SLOTS = 16
"""Shares of the outbox that relays divide among them; more relays than this idle. Rows keep the slot they were stored with."""


def slot_of(batch_id: UUID) -> int:
    """The slot of a batch. Hashed, because upstream services choose their ids as they like."""
    return zlib.crc32(batch_id.bytes) % SLOTS


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A row to publish."""

    slot: int
    outbox_id: int
    event: OutgoingEvent


# `fresh` has the batches, with their number in the set. Ids are drawn in the order of the list: PostgreSQL evaluates the identity column
# after the sort.
INSERT_SQL = """
    INSERT INTO orchestrator.outbox (slot, organization_id, batch_id, topic, key, headers, value, created_at)
    SELECT f.slot, f.organization_id, f.batch_id, e.topic, e.key, e.headers, e.value, now()
    FROM unnest(CAST(:event_numbers AS integer[]), CAST(:topics AS text[]), CAST(:keys AS text[]), CAST(:headers AS jsonb[]),
                CAST(:values AS bytea[])) WITH ORDINALITY AS e (number, topic, key, headers, value, ordinality)
    JOIN fresh f USING (number)
    ORDER BY ordinality
"""

_INSERT = Prepared(f"""
    WITH fresh AS (
        SELECT * FROM unnest(CAST(:slots AS smallint[]), CAST(:organizations AS text[]), CAST(:batch_ids AS uuid[]))
                      WITH ORDINALITY AS b (slot, organization_id, batch_id, number)
    )
    {INSERT_SQL}
""")


def insert_events(connection: Connection, events: Sequence[EventOf]) -> None:
    """Adds events, a batch's own in order, to the caller's transaction, which holds the batches' locks (that orders the writers).

    After the commit, `orchestrator.storage.wakeup` tells the relays; without it they find the rows at their next poll.
    """
    if not events:
        return
    batches = {one.batch_id: one for one in events}
    numbers = {batch_id: number for number, batch_id in enumerate(batches, start=1)}
    _INSERT.count(
        connection,
        {
            "slots": arrays.plain([slot_of(batch_id) for batch_id in batches]),
            "organizations": arrays.texts([one.organization_id for one in batches.values()]),
            "batch_ids": arrays.plain(list(batches)),
            **event_arrays([(numbers[one.batch_id], one.event) for one in events]),
        },
    )


def event_arrays(events: Sequence[tuple[int, OutgoingEvent]]) -> dict[str, Any]:
    """The parameters of `INSERT_SQL`; with each event the number of its batch."""
    return {
        "event_numbers": arrays.plain([number for number, _ in events]),
        "topics": arrays.plain([event.topic.value for _, event in events]),
        "keys": arrays.texts([event.key for _, event in events]),
        "headers": arrays.texts(
            [orjson.dumps([(name, value.decode()) for name, value in event.headers]).decode() for _, event in events]
        ),
        "values": [event.value for _, event in events],
    }


def read_by_key(connection: Connection) -> None:
    """Has the session find the rows of a slot by an index scan, in order, whatever was in the table when that was planned.

    Mostly nothing is, and then the planner takes reading all of it for cheaper. The rows that were deleted since the last vacuum are there
    still, thousands at full load: an index scan that meets one notes in the index that it is dead, and none comes back to it; a bitmap or
    sequential scan reads them all in each round (3 ms instead of 0.2, a quarter of all that PostgreSQL did).
    """
    connection.execute(text("SET enable_seqscan = off"))
    connection.execute(text("SET enable_bitmapscan = off"))


# The first row of every batch comes before the second of any: the parts of a batch of 10,000 don't delay the others.
# `octet_length` reads no TOAST. The limit is per slot as well, so that a backlog isn't sorted (the key is (slot, outbox_id)).
_SELECT = Prepared("""
    WITH oldest AS (
        SELECT row.* FROM unnest(CAST(:slots AS smallint[])) AS owned (slot)
        CROSS JOIN LATERAL (
            SELECT slot, outbox_id, batch_id, octet_length(value) AS bytes FROM orchestrator.outbox
            WHERE slot = owned.slot ORDER BY outbox_id LIMIT :rows
        ) AS row
    ), ranked AS (
        SELECT *, row_number() OVER (PARTITION BY batch_id ORDER BY outbox_id) AS turn FROM oldest
    ), chosen AS (
        SELECT slot, outbox_id, turn, sum(bytes) OVER (ORDER BY turn, outbox_id) - bytes AS bytes_before FROM ranked
        ORDER BY turn, outbox_id LIMIT :rows
    )
    SELECT chosen.slot, chosen.outbox_id, row.topic, row.key, row.headers, row.value
    FROM chosen CROSS JOIN LATERAL (
        -- OFFSET: one lookup for each, however empty the table was when this was planned.
        SELECT topic, key, headers, value FROM orchestrator.outbox
        WHERE (slot, outbox_id) = (chosen.slot, chosen.outbox_id) OFFSET 0
    ) AS row
    WHERE bytes_before < :bytes ORDER BY turn, chosen.outbox_id
""")


def oldest_rows(connection: Connection, slots: Sequence[int], *, max_rows: int, max_bytes: int) -> list[OutboxRow]:
    """Rows of these slots to publish next, in the order to publish them: a batch's own by age, batches taking turns.

    At least one row when there is any; the one that reaches `max_bytes` of values is the last.
    """
    found = _SELECT.named(connection, {"slots": arrays.plain(slots), "rows": max_rows, "bytes": max_bytes})
    return [
        OutboxRow(
            row.slot,
            row.outbox_id,
            OutgoingEvent(
                Topic(row.topic), row.key, tuple((name, value.encode()) for name, value in row.headers), bytes(row.value)
            ),
        )
        for row in found
    ]


_DELETE = Prepared("""
    DELETE FROM orchestrator.outbox WHERE ctid = ANY (ARRAY (
        SELECT row.ctid FROM unnest(CAST(:slots AS smallint[]), CAST(:ids AS bigint[])) AS published (slot, outbox_id)
        CROSS JOIN LATERAL (
            SELECT ctid FROM orchestrator.outbox WHERE (slot, outbox_id) = (published.slot, published.outbox_id) OFFSET 0
        ) AS row
    ))
""")


def delete_rows(connection: Connection, rows: Sequence[OutboxRow]) -> None:
    """Removes rows whose events Kafka has acknowledged. A row that is gone already is no error."""
    _DELETE.count(
        connection, {"slots": arrays.plain([row.slot for row in rows]), "ids": arrays.plain([row.outbox_id for row in rows])}
    )
