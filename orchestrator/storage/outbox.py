"""Statements on the table `outbox`: the events that a transaction decided to publish, until the relay has published them.

No row is ever locked. Only the owner of a slot reads and deletes its rows (`producers/relay.py`); any transaction inserts.

A row that can't be published now is held: it moves to the shadow of its slot, with the place that it waits for (`held_for`) and the reason. So
any number of held rows costs the readers of the slot nothing. The stream of a row is its topic and key, for which Kafka keeps the order. Only
the oldest row of a stream is ever read, so no row overtakes a held row, or a row that is being published.
"""

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from orchestrator.batches.repository import EventOf
from orchestrator.storage import arrays
from orchestrator.storage.prepared import Prepared
from orchestrator.storage.statements import read_statements
from schemas.envelope import OutgoingEvent, Topic

SLOTS = 16
"""The shares of the outbox that the relays divide among themselves. With more relays than slots, some are idle. Rows keep their slot."""


def slot_of(batch_id: UUID) -> int:
    """The slot of a batch. The id is hashed, because upstream services choose their own ids."""
    return zlib.crc32(batch_id.bytes) % SLOTS


REFUSED = "refused"
"""`held_for` of a row that Kafka will never accept as it is. A relay tries it once more when it starts."""

Stream = tuple[str, str]
"""A topic and a key. Events of one stream are published in order."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A row to publish."""

    slot: int
    outbox_id: int
    batch_id: UUID
    is_followed: bool
    """Whether there was a later row of the same stream when this row was read."""
    event: OutgoingEvent

    @property
    def stream(self) -> Stream:
        """The stream whose earlier rows this row must not overtake."""
        return self.event.topic.value, self.event.key

    @property
    def is_held(self) -> bool:
        """Whether the row was held when it was read."""
        return self.slot < 0

    @property
    def owned_slot(self) -> int:
        """The slot whose owner publishes the row."""
        return _shadow(self.slot) if self.is_held else self.slot


def _shadow(slot: int) -> int:
    """The shadow of a slot, where its held rows are; and the slot of a shadow."""
    return -1 - slot


# `fresh` has the batches, with their number in the set. Ids are assigned in the order of the list, because PostgreSQL evaluates the identity
# column after the sort.
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
    """Adds events to the outbox, those of each batch in order. The caller's transaction holds the batches' locks, which orders the writers.

    After the commit, `orchestrator.storage.relay_wakeup` notifies the relays. Without it, they find the rows at their next poll.
    """
    if not events:
        return
    batches = {one.batch_id: one for one in events}
    numbers = {batch_id: number for number, batch_id in enumerate(batches, start=1)}
    _INSERT.later(
        connection,
        {
            "slots": arrays.plain([slot_of(batch_id) for batch_id in batches]),
            "organizations": arrays.texts([one.organization_id for one in batches.values()]),
            "batch_ids": arrays.plain(list(batches)),
            **event_arrays([(numbers[one.batch_id], one.event) for one in events]),
        },
    )


def event_arrays(events: Sequence[tuple[int, OutgoingEvent]]) -> dict[str, Any]:
    """The parameters of `INSERT_SQL`. Each event comes with the number of its batch."""
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
    """Makes the session find the rows of a slot by an index scan, in order, whatever the size of the table at planning.

    The table is usually empty, and then the planner prefers reading all of it. But rows that were deleted since the last vacuum still exist,
    thousands at full load. An index scan marks a dead row in the index, so that later scans skip it; a bitmap or sequential scan reads all of
    them in each round (3 ms instead of 0.2, a quarter of PostgreSQL's work).
    """
    connection.execute(text("SET enable_seqscan = off"))
    connection.execute(text("SET enable_bitmapscan = off"))


# `octet_length` reads no TOAST. There is a limit per slot, too, so that a backlog isn't sorted (the key is (slot, outbox_id)). The subqueries
# of `may_go` are written so that PostgreSQL looks each row up in an index instead of hashing all held rows.
_SELECT = """
    WITH oldest AS (
        SELECT row.* FROM unnest(CAST(:slots AS smallint[])) AS owned (slot)
        CROSS JOIN LATERAL (
            SELECT slot, outbox_id, topic, key, octet_length(value) AS bytes FROM orchestrator.outbox o
            WHERE slot = owned.slot AND {may_go}
              AND (topic, key) NOT IN (SELECT * FROM unnest(CAST(:busy_topics AS text[]), CAST(:busy_keys AS text[])))
            ORDER BY outbox_id LIMIT :rows_of_slot
        ) AS row
    ), firsts AS (
        SELECT *, row_number() OVER stream AS turn, lead(outbox_id) OVER stream IS NOT NULL AS is_followed FROM oldest
        WINDOW stream AS (PARTITION BY topic, key ORDER BY outbox_id)
    ), chosen AS (
        SELECT slot, outbox_id, is_followed, sum(bytes) OVER (ORDER BY outbox_id) - bytes AS bytes_before FROM firsts
        WHERE turn = 1 ORDER BY outbox_id LIMIT :rows
    )
    SELECT chosen.slot, chosen.outbox_id, chosen.is_followed, row.batch_id, row.topic, row.key, row.headers, row.value
    FROM chosen CROSS JOIN LATERAL (
        -- OFFSET forces one lookup for each row, even if the table was empty at planning.
        SELECT batch_id, topic, key, headers, value FROM orchestrator.outbox
        WHERE (slot, outbox_id) = (chosen.slot, chosen.outbox_id) OFFSET 0
    ) AS row
    WHERE bytes_before < :bytes ORDER BY chosen.outbox_id
"""
_OLDEST = Prepared(
    _SELECT.format(
        may_go="""(SELECT true FROM orchestrator.outbox h
                   WHERE h.topic = o.topic AND h.key = o.key AND h.slot < 0 LIMIT 1) IS NULL"""
    )
)
_HELD = Prepared(
    _SELECT.format(
        may_go="""held_for = CAST(:place AS text)
                  AND (SELECT min(h.outbox_id) FROM orchestrator.outbox h
                       WHERE h.topic = o.topic AND h.key = o.key AND h.slot < 0) = outbox_id"""
    )
)


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much is read at a time. At least one row, if there is any; the row that reaches `max_bytes` of values is the last."""

    max_rows: int
    max_bytes: int
    max_rows_of_slot: int = 1 << 30


def oldest_rows(
    connection: Connection, slots: Sequence[int], limits: ReadLimits, *, busy: Collection[Stream] = ()
) -> list[OutboxRow]:
    """Rows of these slots to publish next: the oldest of each stream that is neither busy nor held, by age."""
    return _read(connection, _OLDEST, slots, limits, busy, {})


def held_rows(
    connection: Connection, place: str, slots: Sequence[int], limits: ReadLimits, *, busy: Collection[Stream]
) -> list[OutboxRow]:
    """Rows of these slots that are held for a place: the oldest of each stream that is not busy, by age."""
    return _read(connection, _HELD, [_shadow(slot) for slot in slots], limits, busy, {"place": place})


def _read(
    connection: Connection,
    statement: Prepared,
    slots: Sequence[int],
    limits: ReadLimits,
    busy: Collection[Stream],
    more: Mapping[str, str],
) -> list[OutboxRow]:
    found = statement.named(
        connection,
        {
            "slots": arrays.plain(slots),
            "rows": limits.max_rows,
            "rows_of_slot": min(limits.max_rows, limits.max_rows_of_slot),
            "bytes": limits.max_bytes,
            "busy_topics": arrays.plain([topic for topic, _ in busy]),
            "busy_keys": arrays.texts([key for _, key in busy]),
            **more,
        },
    )
    return [
        OutboxRow(
            row.slot,
            row.outbox_id,
            row.batch_id,
            row.is_followed,
            OutgoingEvent(
                Topic(row.topic), row.key, tuple((name, value.encode()) for name, value in row.headers), bytes(row.value)
            ),
        )
        for row in found
    ]


_SQL = read_statements("orchestrator/storage/sql/outbox.sql")

_DELETE = _SQL["delete"].prepared()


def delete_rows(connection: Connection, rows: Sequence[OutboxRow]) -> None:
    """Removes rows whose events Kafka has acknowledged. Ignores rows that no longer exist."""
    _DELETE.count(
        connection, {"slots": arrays.plain([row.slot for row in rows]), "ids": arrays.plain([row.outbox_id for row in rows])}
    )


_HOLD = _SQL["hold"].prepared()


@dataclass(frozen=True, slots=True)
class Hold:
    """A row that must wait: for a place, or because Kafka refused it."""

    row: OutboxRow
    held_for: str
    why: str


def hold_rows(connection: Connection, holds: Sequence[Hold]) -> None:
    """Moves rows to the shadow of their slots, or updates what held rows wait for. Ignores rows that no longer exist."""
    _HOLD.count(
        connection,
        {
            "slots": arrays.plain([hold.row.slot for hold in holds]),
            "ids": arrays.plain([hold.row.outbox_id for hold in holds]),
            "places": arrays.texts([hold.held_for for hold in holds]),
            "reasons": arrays.texts([hold.why for hold in holds]),
        },
    )


_PLACES = _SQL["places"].text()
_RECONSIDER = _SQL["reconsider"].text()


def held_places(connection: Connection, slots: Sequence[int]) -> set[str]:
    """The places that the held rows of these slots wait for. Leaves out refused rows."""
    return set(connection.scalars(_PLACES, {"refused": REFUSED, "slots": [_shadow(slot) for slot in slots]}))


def reconsider_refused(connection: Connection, slots: Sequence[int]) -> None:
    """Makes the refused rows of these slots wait for their topics, so that each is tried once more."""
    connection.execute(_RECONSIDER, {"refused": REFUSED, "slots": [_shadow(slot) for slot in slots]})


_COUNT = _SQL["count"].text()
_HELD_NOW = _SQL["held_now"].text()


class HeldRows(NamedTuple):
    """Rows of one topic that wait for the same place: how many, since when, and the first row's reason."""

    topic: str
    held_for: str
    rows: int
    since: datetime
    why: str


class Outbox(NamedTuple):
    """How many rows there are, since when the oldest has waited and for how long, and which of them are held."""

    rows: int
    oldest: datetime | None
    waited_s: float
    held: Sequence[HeldRows]


def outbox_now(connection: Connection) -> Outbox:
    """The present contents of the outbox. Reads the whole table."""
    all_rows = connection.execute(_COUNT).one()
    held = [HeldRows(row.topic, row.held_for, row.rows, row.since, row.why) for row in connection.execute(_HELD_NOW)]
    return Outbox(all_rows.rows, all_rows.oldest, float(all_rows.waited_s or 0), held)
