"""Which rows of the outbox are read, held and removed, and how relays share its slots."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import count
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, text

from orchestrator.batches.repository import EventOf
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.storage import outbox, slots
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.outbox import REFUSED, SLOTS, Hold, OutboxRow, ReadLimits, insert_events, slot_of
from schemas.envelope import OutgoingEvent, Topic
from tests.support.databases import fresh_database
from tests.support.log_lines import logged
from tests.support.plans import without_indexes
from tests.support.stack import Stack

ALL = ReadLimits(1_000, 1 << 30)
EVERYWHERE = range(SLOTS)
_numbers = count()


def batch_in(slot: int) -> UUID:
    return next(candidate for candidate in iter(uuid4, None) if slot_of(candidate) == slot)


def put(connection: Connection, batch_id: UUID, *keys: str, topic: Topic = Topic.BATCHES, size: int = 10) -> list[bytes]:
    """Inserts events with these keys, one after the other. Returns their values, which all differ."""
    events = [
        OutgoingEvent(topic, key, (("ce_id", b"x"), ("ce_source", "/ø".encode())), b"%0*d" % (size, next(_numbers)))
        for key in keys
    ]
    insert_events(connection, [EventOf("org", batch_id, event) for event in events])
    return [event.value for event in events]


def values(rows: Sequence[OutboxRow]) -> list[bytes]:
    return [row.event.value for row in rows]


def read(connection: Connection, limits: ReadLimits = ALL, **busy: list[outbox.Stream]) -> list[OutboxRow]:
    return outbox.oldest_rows(connection, EVERYWHERE, limits, **busy)


def held(connection: Connection, place: str, **busy: list[outbox.Stream]) -> list[OutboxRow]:
    return outbox.held_rows(connection, place, EVERYWHERE, ALL, **({"busy": []} | busy))


def hold(connection: Connection, rows: Sequence[OutboxRow], place: str, why: str = "why") -> None:
    outbox.hold_rows(connection, [Hold(row, place, why) for row in rows])


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.begin() as connection:
        yield connection


def test_the_oldest_row_of_each_stream_is_read_by_age_in_every_slot(connection: Connection) -> None:
    early, late = batch_in(9), batch_in(2)
    [first, _] = put(connection, early, "a", "a")
    [second] = put(connection, late, "b")
    # The same key on another topic is another stream.
    [third] = put(connection, early, "a", topic=Topic.LIFECYCLE)
    found = read(connection)
    assert values(found) == [first, second, third]
    assert [(row.batch_id, row.slot, row.owned_slot, row.is_held, row.is_followed, row.stream) for row in found] == [
        (early, 9, 9, False, True, ("batches", "a")),
        (late, 2, 2, False, False, ("batches", "b")),
        (early, 9, 9, False, False, ("lifecycle", "a")),
    ]
    assert found[0].event.headers == (("ce_id", b"x"), ("ce_source", "/ø".encode()))
    assert values(outbox.oldest_rows(connection, [2], ALL)) == [second]


@pytest.mark.parametrize("join", ["hashjoin", "mergejoin", "nestloop"])
def test_events_keep_their_order_however_they_are_joined_to_their_batches(connection: Connection, join: str) -> None:
    for other in {"hashjoin", "mergejoin", "nestloop"} - {join}:
        connection.execute(text(f"SET LOCAL enable_{other} = off"))
    batches = [batch_in(slot) for slot in range(4)]
    given = [b"%d" % number for number in range(40)]
    insert_events(
        connection,
        [
            EventOf("org", batches[number % 4], OutgoingEvent(Topic.BATCHES, str(batches[number % 4]), (), value))
            for number, value in enumerate(given)
        ],
    )
    there = connection.execute(text("SELECT value FROM orchestrator.outbox ORDER BY outbox_id")).scalars()
    assert list(map(bytes, there)) == given


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_the_number_of_rows_read_at_a_time_is_limited(connection: Connection, most: int) -> None:
    put_there = [value for key in "abc" for value in put(connection, batch_in(1), key)]
    assert values(read(connection, ReadLimits(most, 1 << 30))) == put_there[:most]


@pytest.mark.parametrize(("most", "expected"), [(1, 1), (10, 1), (11, 2), (20, 2), (21, 3), (1_000, 3)])
def test_the_row_that_reaches_the_limit_of_bytes_is_the_last(connection: Connection, most: int, expected: int) -> None:
    put_there = [value for key in "abc" for value in put(connection, batch_in(1), key)]
    assert values(read(connection, ReadLimits(9, most))) == put_there[:expected]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_the_number_of_rows_read_of_each_slot_is_limited(connection: Connection, most: int) -> None:
    first = [value for key in "ab" for value in put(connection, batch_in(1), key)]
    second = [value for key in "cd" for value in put(connection, batch_in(2), key)]
    assert values(read(connection, ReadLimits(9, 1 << 30, most))) == first[:most] + second[:most]


def test_a_busy_or_held_row_is_not_overtaken(connection: Connection) -> None:
    batch_id = batch_in(0)
    first, _ = put(connection, batch_id, "a", "a")
    [other] = put(connection, batch_id, "b")
    [elsewhere] = put(connection, batch_id, "a", topic=Topic.LIFECYCLE)
    assert values(read(connection, busy=[("batches", "a")])) == [other, elsewhere]
    assert values(read(connection, busy=[("lifecycle", "a"), ("batches", "b")])) == [first]
    hold(connection, read(connection)[:1], "batches/0")
    assert values(read(connection)) == [other, elsewhere]
    # A held row is read only for its place, and without the row behind it, which waits in its slot.
    assert held(connection, "batches/1") == []
    [waiting] = held(connection, "batches/0")
    assert (waiting.event.value, waiting.slot, waiting.owned_slot, waiting.is_held) == (first, -1, 0, True)
    assert held(connection, "batches/0", busy=[("batches", "a")]) == []
    assert outbox.held_rows(connection, "batches/0", [2], ALL, busy=[]) == []


def test_a_held_row_is_read_although_an_older_row_of_its_stream_is_not_held(connection: Connection) -> None:
    """The transaction that drew its number first was the last to commit. Its row waits until the held one is gone."""
    batch_id = batch_in(0)
    _, second = put(connection, batch_id, "a", "a")
    [row] = read(connection)
    later = connection.execute(text("SELECT max(outbox_id) FROM orchestrator.outbox")).scalar_one()
    hold(connection, [OutboxRow(row.slot, later, batch_id, False, row.event._replace(value=second))], "batches/0")
    assert read(connection) == []
    assert values(held(connection, "batches/0")) == [second]


def test_only_the_oldest_held_row_of_a_stream_is_read(connection: Connection) -> None:
    batch_id = batch_in(1)
    first, second = put(connection, batch_id, "a", "a")
    [row] = read(connection)
    later = connection.execute(text("SELECT max(outbox_id) FROM orchestrator.outbox")).scalar_one()
    behind = OutboxRow(row.slot, later, batch_id, False, row.event._replace(value=second))
    hold(connection, [row], "elsewhere")
    hold(connection, [behind], "here")
    assert held(connection, "here") == [], "the row before it waits for another place, so it must wait, too"
    # Another key, or the same key on another topic, is another stream.
    others = [*put(connection, batch_id, "b"), *put(connection, batch_id, "a", topic=Topic.LIFECYCLE)]
    hold(connection, read(connection), "here")
    assert values(held(connection, "here")) == others
    hold(connection, held(connection, "elsewhere"), "here")
    assert values(held(connection, "here")) == [first, *others]
    outbox.delete_rows(connection, held(connection, "here"))
    assert values(held(connection, "here")) == [second]


def test_a_row_keeps_the_time_at_which_it_was_first_held(engine: Engine) -> None:
    def state() -> tuple[object, ...]:
        with engine.begin() as connection:
            columns = "slot, held_for, held_why, held_at"
            return tuple(connection.execute(text(f"SELECT {columns} FROM orchestrator.outbox")).one())

    with engine.begin() as connection:
        put(connection, batch_in(3), "a")
        put_elsewhere = read(connection)
        hold(connection, put_elsewhere, "batches/0", "no leader")
    first = state()
    assert first[:3] == (-4, "batches/0", "no leader")
    with engine.begin() as connection:
        hold(connection, held(connection, "batches/0"), REFUSED, "too large")
    assert state() == (-4, REFUSED, "too large", first[3])
    with engine.begin() as connection:
        # The row has been held since it was read, so it is neither removed nor held again.
        outbox.delete_rows(connection, put_elsewhere)
        hold(connection, put_elsewhere, "batches/7", "late")
    assert state() == (-4, REFUSED, "too large", first[3])


def test_places_are_those_of_the_relays_own_slots_and_refused_rows_have_none(connection: Connection) -> None:
    for slot, place in ((1, "batches/0"), (1, REFUSED), (2, "batches/1"), (2, REFUSED)):
        batch_id = batch_in(slot)
        put(connection, batch_id, str(batch_id))
        hold(connection, [row for row in read(connection) if row.batch_id == batch_id], place)
    assert outbox.held_places(connection, [1]) == {"batches/0"}
    assert outbox.held_places(connection, EVERYWHERE) == {"batches/0", "batches/1"}
    outbox.reconsider_refused(connection, [2])
    assert outbox.held_places(connection, [1]) == {"batches/0"}
    assert outbox.held_places(connection, [2]) == {"batches/1", "batches"}
    assert [row.owned_slot for row in held(connection, "batches")] == [2]


def test_held_rows_are_counted_by_topic_and_place_with_the_first_reason(connection: Connection) -> None:
    put(connection, batch_in(1), "a", "b", "c", "d")
    rows = read(connection)
    for row, place, why in ((rows[1], "batches/0", "first"), (rows[0], "batches/0", "second"), (rows[2], REFUSED, "too large")):
        hold(connection, [row], place, why)
    first_held = connection.execute(text("SELECT min(held_at) FROM orchestrator.outbox")).scalar_one()
    now = outbox.outbox_now(connection)
    assert now.rows == 4
    assert [(each.topic, each.held_for, each.rows, each.why) for each in now.held] == [
        ("batches", "batches/0", 2, "first"),
        ("batches", REFUSED, 1, "too large"),
    ]
    assert now.held[0].since == first_held < now.held[1].since


def test_held_rows_are_listed_by_the_time_since_when_they_wait(connection: Connection) -> None:
    """The first reason is that of the row that was held first, although others have lower numbers."""
    put(connection, batch_in(1), "a", "b", "c", "d", "e")
    places = ("batches/0", "batches/0", "batches/1", REFUSED, REFUSED)
    for row, place, hours in zip(read(connection), places, (2, 3, 1, 4, 5), strict=True):
        hold(connection, [row], place, f"{hours} hours ago")
        held_at = "UPDATE orchestrator.outbox SET held_at = now() - :hours * interval '1 hour' WHERE held_why = :why"
        connection.execute(text(held_at), {"hours": hours, "why": f"{hours} hours ago"})
    connection.execute(text("SET LOCAL enable_hashagg = off"))
    without_indexes(connection)
    assert [(each.held_for, each.why) for each in outbox.outbox_now(connection).held] == [
        (REFUSED, "5 hours ago"),
        ("batches/0", "3 hours ago"),
        ("batches/1", "1 hours ago"),
    ]


# --- Slots ------------------------------------------------------------------------------------------------------------------------

PATIENT = timedelta(hours=1)


@contextmanager
def relays(settings: Settings, number: int) -> Iterator[list[Connection]]:
    """Sessions that count as relays."""
    engine = create_database_engine(settings.worker_url, settings, connections=number, application_name="test")
    with ExitStack() as stack:
        sessions = [stack.enter_context(engine.connect()) for _ in range(number)]
        for session in sessions:
            slots.announce(session)
            session.commit()
        yield sessions
        for session in sessions:
            session.invalidate()
    engine.dispose()


def test_each_relay_takes_its_share_of_the_free_slots(settings: Settings) -> None:
    with relays(settings, 3) as sessions:
        shares = [slots.balance(session, [], lease=PATIENT) for session in sessions]
        assert [sorted(share) for share in shares] == [list(range(6)), list(range(6, 12)), list(range(12, 16))]
        assert slots.balance(sessions[0], shares[0], lease=PATIENT) == shares[0], "it has its share already"
        # No slot has two owners.
        assert slots.balance(sessions[2], shares[2], lease=PATIENT) == shares[2]


def test_a_single_relay_has_all_slots_and_gives_half_back_except_busy_ones(settings: Settings) -> None:
    with relays(settings, 1) as [first]:
        everything = slots.balance(first, [], lease=PATIENT)
        assert everything == frozenset(range(SLOTS))
        with relays(settings, 1) as [second]:
            assert slots.balance(second, [], lease=PATIENT) == frozenset()
            # The next owner would publish the events again that are under way.
            assert slots.balance(first, everything, lease=PATIENT, busy=everything) == everything
            busy = {0, 1, 12, 15}
            kept = slots.balance(first, everything, lease=PATIENT, busy=busy)
            assert (len(kept), kept >= busy) == (SLOTS // 2, True)
            assert slots.balance(first, kept, lease=PATIENT, busy=busy) == kept
            assert slots.balance(second, [], lease=PATIENT) == everything - kept


def test_a_relay_whose_session_is_ended_has_no_share_any_more(settings: Settings) -> None:
    with relays(settings, 2) as [_, other]:
        assert slots.balance(other, [], lease=timedelta()) == frozenset(range(SLOTS))


def test_relays_of_another_database_do_not_count(settings: Settings, infrastructure: Stack, template_database: str) -> None:
    with fresh_database(infrastructure.postgres_url, template=template_database) as url:
        elsewhere = Settings(database_url=SecretStr(url))
        with relays(elsewhere, 1) as [foreign], relays(settings, 1) as [relay]:
            for one in (foreign, relay):
                assert slots.balance(one, [], lease=PATIENT) == frozenset(EVERYWHERE)
            for one in (foreign, relay):
                assert [holder.slots for holder in slots.slot_holders(one)] == [SLOTS]


def test_other_locks_than_those_of_relays_do_not_count(settings: Settings, engine: Engine) -> None:
    """A key of 64 bits may have the same bits as the two numbers of a slot, and is another lock."""
    with engine.connect() as stranger:
        stranger.execute(text("SELECT pg_advisory_lock(CAST(:space AS bigint) << 32 | 3)"), {"space": slots._SLOT})
        stranger.execute(text("SELECT pg_advisory_lock(7, 3)"))
        with relays(settings, 1) as [relay]:
            owned = slots.balance(relay, [], lease=PATIENT)
            assert owned == frozenset(EVERYWHERE)
            assert [holder.slots for holder in slots.slot_holders(relay)] == [SLOTS]
        stranger.invalidate()


def test_a_relay_that_is_silent_for_longer_than_the_lease_loses_its_slots(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with relays(settings, 2) as (silent, other):
        theirs = slots.balance(silent, [], lease=PATIENT)
        silent.commit()
        assert slots.balance(other, [], lease=PATIENT) == frozenset(range(SLOTS)) - theirs, "it was active within the lease"
        other.commit()
        # Its locks are released when its session ends.
        mine = frozenset(range(SLOTS)) - theirs
        while len(mine) < SLOTS:
            mine = slots.balance(other, mine, lease=timedelta(0))
            other.commit()
        assert mine == frozenset(range(SLOTS))
        assert logged(caplog, Action.SILENT_RELAYS_ENDED)
