"""Statements on the table `outbox`: what a transaction decided to publish, until the relay has published it.

No row is ever locked: a slot's rows are read and deleted by the slot's owner (`producers/relay.py`), inserted by anybody.

A row that cannot be published now is held: it moves to the shadow of its slot, with what it waits for (`held_for`) and why. So held rows
cost those that read the slot nothing, however many there are. The stream of a row is its topic and key, for which Kafka keeps the order.
Only the oldest row of a stream is ever read: nothing overtakes a held row, and nothing a row that is on its way.
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
"""Shares of the outbox that relays divide among them; more relays than this idle. Rows keep the slot they were stored with."""


def slot_of(batch_id: UUID) -> int:
    """The slot of a batch. Hashed, because upstream services choose their ids as they like."""
    return zlib.crc32(batch_id.bytes) % SLOTS


REFUSED = "refused"
"""What a row is held for that Kafka will never accept as it is. A relay that starts tries it once again."""

Stream = tuple[str, str]
"""A topic and a key: events of one stream are published in order."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A row to publish."""

    slot: int
    outbox_id: int
    batch_id: UUID
    is_followed: bool
    """Whether there was a later row of its stream when it was read."""
    event: OutgoingEvent

    @property
    def stream(self) -> Stream:
        """What it must not overtake."""
        return self.event.topic.value, self.event.key

    @property
    def is_held(self) -> bool:
        """Whether it was held when it was read."""
        return self.slot < 0

    @property
    def owned_slot(self) -> int:
        """The slot whose owner it belongs to."""
        return _shadow(self.slot) if self.is_held else self.slot


def _shadow(slot: int) -> int:
    """Where the held rows of a slot are, and of a shadow the slot."""
    return -1 - slot


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

    After the commit, `orchestrator.storage.relay_wakeup` tells the relays; without it they find the rows at their next poll.
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


# `octet_length` reads no TOAST. The limit is per slot as well, so that a backlog isn't sorted (the key is (slot, outbox_id)). The subqueries
# of `may_go` are made so that PostgreSQL looks each up in an index and builds nothing from all held rows.
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
        -- OFFSET: one lookup for each, however empty the table was when this was planned.
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
    """How much is read at a time: at least one row when there is any; the one that reaches `max_bytes` of values is the last."""

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
    """Removes rows whose events Kafka has acknowledged. A row that is gone already is no error."""
    _DELETE.count(
        connection, {"slots": arrays.plain([row.slot for row in rows]), "ids": arrays.plain([row.outbox_id for row in rows])}
    )


_HOLD = _SQL["hold"].prepared()


@dataclass(frozen=True, slots=True)
class Hold:
    """A row that is to wait: for a place, or because it is refused."""

    row: OutboxRow
    held_for: str
    why: str


def hold_rows(connection: Connection, holds: Sequence[Hold]) -> None:
    """Moves rows to the shadow of their slots, or notes what held rows wait for now. A row that is gone already is no error."""
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
    """What the held rows of these slots wait for, except for those that are refused."""
    return set(connection.scalars(_PLACES, {"refused": REFUSED, "slots": [_shadow(slot) for slot in slots]}))


def reconsider_refused(connection: Connection, slots: Sequence[int]) -> None:
    """Has the refused rows of these slots wait for their topics, so that each is tried once more."""
    connection.execute(_RECONSIDER, {"refused": REFUSED, "slots": [_shadow(slot) for slot in slots]})


_COUNT = _SQL["count"].text()
_HELD_NOW = _SQL["held_now"].text()


class HeldRows(NamedTuple):
    """Rows of one topic that wait for the same: how many, since when, and why the first of them does."""

    topic: str
    held_for: str
    rows: int
    since: datetime
    why: str


class Outbox(NamedTuple):
    """How many rows there are, and which of them are held."""

    rows: int
    held: Sequence[HeldRows]


def outbox_now(connection: Connection) -> Outbox:
    """Reads the whole table."""
    rows = int(connection.execute(_COUNT).scalar_one())
    held = [HeldRows(row.topic, row.held_for, row.rows, row.since, row.why) for row in connection.execute(_HELD_NOW)]
    return Outbox(rows, held)
