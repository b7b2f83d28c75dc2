"""Row 45 of the fault catalogue: all transactions take locks in one order, so there are no deadlocks."""

import contextlib
import itertools
import re
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from consumers.external.adapter import mark_questions
from consumers.upkeep.sweeper import Sweeper, SweepPolicy
from orchestrator.batches.projection import fold_outcomes
from orchestrator.batches.repository import OutcomeKey
from orchestrator.batches.states import Outcome
from orchestrator.storage.dispatch import DispatchState, SettledDispatch, mark_dispatched, record_settled
from orchestrator.storage.notes import NotesOf, erase_notes_of
from orchestrator.storage.outcomes import NewOutcome, insert_outcomes
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.storage.sweeping import Overdue
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import DerivedIds, batch_lock_key, new_batch_id
from tests.faults.every_interleaving import looking
from tests.simulation.interleaving import Deadlocks, Run, mark_statements
from tests.support.pipeline import ORGANIZATION, Pipeline, mentors, record
from tests.support.toy import BATCH_ID, command
from tests.support.upstream import submitted, upstream_item
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]

# A batch's lock has one key, of 64 bits.
_HELD = text("""
    SELECT pid, granted, (CAST(classid AS bigint) << 32) | CAST(objid AS bigint) AS key FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND pid <> pg_backend_pid()
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")
_ROWS_TOUCHED = text("""
    SELECT DISTINCT relation::regclass::text FROM pg_locks
    WHERE pid = :pid AND locktype = 'relation' AND mode IN ('RowShareLock', 'RowExclusiveLock')
""")


_WAITS_FOR_A_ROW = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')")
_FREE_ROWS = text("SELECT batch_id FROM orchestrator.batch ORDER BY batch_id FOR UPDATE SKIP LOCKED")


def is_waited_for_a_row(watcher: Connection) -> bool:
    return bool(watcher.execute(_WAITS_FOR_A_ROW).scalar_one())


def contrary_ids(count: int) -> list[UUID]:
    """Batch ids in the order of their lock keys, which is the reverse of the ids' own order."""
    while True:
        batch_ids = sorted((new_batch_id() for _ in range(count)), key=batch_lock_key)
        if batch_ids == sorted(batch_ids, reverse=True):
            return batch_ids


def events_of(batch_ids: Sequence[UUID], **fields: Any) -> list[OutgoingEvent]:
    """Events of batches with one item each, ordered by id."""
    items = itertools.count(1)
    return [submitted(batch_id, [upstream_item(0, f"mentor-{next(items)}")], **fields) for batch_id in sorted(batch_ids)]


def taken_in(pipeline: Pipeline, batch_ids: Sequence[UUID]) -> list[OutgoingEvent]:
    """The commands of these batches, after the splitter has taken them in."""
    pipeline.handle(pipeline.splitter, events_of(batch_ids))
    commands = pipeline.take(Topic.COMMANDS)
    assert len(commands) == len(batch_ids)
    return commands


Path_ = Callable[[Pipeline, Sequence[UUID]], Callable[[Connection], object]]


def registration(pipeline: Pipeline, batch_ids: Sequence[UUID]) -> Callable[[Connection], object]:
    records = [record(command, offset) for offset, command in enumerate(taken_in(pipeline, batch_ids))]
    return partial(pipeline.registration.handle, records=records)


def asking(pipeline: Pipeline, batch_ids: Sequence[UUID]) -> Callable[[Connection], object]:
    taken_in(pipeline, batch_ids)
    return partial(mark_questions, commands=[OutcomeKey(str(batch_id), 0, 1) for batch_id in sorted(batch_ids)])


def intake(pipeline: Pipeline, batch_ids: Sequence[UUID]) -> Callable[[Connection], object]:
    records = [record(event, offset) for offset, event in enumerate(events_of(batch_ids))]
    return partial(pipeline.splitter.handle, records=records)


def giving_up(pipeline: Pipeline, batch_ids: Sequence[UUID]) -> Callable[[Connection], object]:
    taken_in(pipeline, batch_ids)
    return partial(sweeper()._give_up, keys=[OutcomeKey(str(batch_id), 0, 1) for batch_id in sorted(batch_ids)])


def ending_collections(pipeline: Pipeline, batch_ids: Sequence[UUID]) -> Callable[[Connection], object]:
    pipeline.handle(pipeline.splitter, events_of(batch_ids, part=1, parts=2, total_items=2))
    return partial(sweeper()._end_collections, overdue=[Overdue(str(batch_id)) for batch_id in sorted(batch_ids)])


def sweeper() -> Sweeper:
    policy = SweepPolicy(
        quiet=timedelta(), resend_pause=timedelta(), max_resends=1, parts_patience=timedelta(), bulk_threshold_items=100
    )
    return Sweeper(policy, lambda _: {})


@pytest.mark.parametrize("path", [registration, asking, intake, giving_up, ending_collections])
def test_row_45_the_locks_of_batches_are_taken_in_order_of_their_keys_and_before_any_row(
    pipeline: Pipeline, engine: Engine, path: Path_
) -> None:
    """pg_locks shows it: a process that waits for the second of three locks holds the first, not the third, and no row."""
    batch_ids = contrary_ids(3)
    first, second, third = map(batch_lock_key, batch_ids)
    work = path(pipeline, batch_ids)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with engine.begin() as connection:
                work(connection)
        except BaseException as error:
            failures.append(error)

    with looking(engine) as watcher, engine.begin() as holder:
        holder.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": second})
        thread = threading.Thread(target=run)
        thread.start()
        [waiter] = eventually(lambda: [lock for lock in watcher.execute(_HELD) if not lock.granted], what=str(failures))
        held = {signed(lock.key) for lock in watcher.execute(_HELD) if lock.granted and lock.pid == waiter.pid}
        touched = set(watcher.scalars(_ROWS_TOUCHED, {"pid": waiter.pid}))
    thread.join()
    assert failures == []
    assert signed(waiter.key) == second
    assert held == {first}, f"must hold only the first lock; holds the third before the second: {third in held}"
    assert touched == set()


def signed(key: int) -> int:
    return key - (1 << 64) if key >= 1 << 63 else key


def test_row_45_the_rows_of_batches_are_taken_in_order_of_their_ids(pipeline: Pipeline, engine: Engine) -> None:
    batch_ids = sorted(contrary_ids(3))
    pipeline.handle(pipeline.registration, taken_in(pipeline, batch_ids))
    keys = [OutcomeKey(str(batch_id), 0, 1) for batch_id in reversed(batch_ids)]
    for name, work in {
        "fold": lambda repository: fold_outcomes(repository, keys),
        "lock": lambda repository: repository.lock_batches(list(reversed(batch_ids))),
    }.items():
        with looking(engine) as watcher, engine.begin() as holder:
            lock = text("SELECT FROM orchestrator.batch WHERE batch_id = :id FOR UPDATE")
            holder.execute(lock, {"id": batch_ids[1]})

            def run(work: Callable[[PostgresActivityRepository], object] = work) -> None:
                with engine.begin() as connection:
                    work(PostgresActivityRepository(connection))

            thread = threading.Thread(target=run)
            thread.start()
            eventually(partial(is_waited_for_a_row, watcher))
            assert list(watcher.scalars(_FREE_ROWS)) == [batch_ids[2]], name
        thread.join()


def beside(engine: Engine, work: Callable[[Connection], object]) -> threading.Thread:
    """Runs a transaction in another thread."""

    def run() -> None:
        with engine.begin() as connection:
            work(connection)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


SMALL, LARGE = sorted(str(new_batch_id()) for _ in range(2))


@pytest.mark.parametrize(
    "keys",
    [
        [OutcomeKey(SMALL, 1, 2), OutcomeKey(SMALL, 2, 1), OutcomeKey(LARGE, 1, 1)],
        [OutcomeKey(SMALL, 1, attempt) for attempt in (1, 2, 3)],
    ],
    ids=["batches and positions", "attempts"],
)
def test_row_45_outcomes_are_inserted_in_order_of_their_keys(engine: Engine, keys: Sequence[OutcomeKey]) -> None:
    """Another delivery has decided the second of three, and has not committed yet."""
    outcomes = [NewOutcome(key, ORGANIZATION, Outcome.CANCELLED, None, None) for key in keys]
    at = datetime.now(UTC)
    with looking(engine) as watcher, engine.connect() as holder:
        insert_outcomes(holder, [outcomes[1]], at)
        thread = beside(engine, lambda connection: insert_outcomes(connection, outcomes[::-1], at))
        eventually(partial(is_waited_for_a_row, watcher))
        for outcome, is_taken in ((outcomes[0], True), (outcomes[2], False)):
            with engine.connect() as rival:
                rival.execute(text("SET LOCAL lock_timeout = '1ms'"))
                with pytest.raises(OperationalError, match="lock timeout") if is_taken else contextlib.nullcontext():
                    insert_outcomes(rival, [outcome], at)
        holder.rollback()
        thread.join()


_ACTIVITY = text(
    "INSERT INTO registration.activity (activity_id, organization_id, attributed_to, registered_by, activity_type, activity_date,"
    " duration_minutes, notes, batch_id, item_id, overrides_duplicate, created_at, revoked_at)"
    " VALUES (:activity_id, :organization, :mentor, 'coord', :kind, :day, 60, 'x', :batch_id, :item_id, :overrides, now(), now())"
)
_FREE_ACTIVITIES = text("SELECT activity_id::text FROM registration.activity FOR UPDATE SKIP LOCKED")


def test_row_45_activities_whose_notes_are_erased_are_locked_in_order_of_their_key(engine: Engine) -> None:
    """Of two activities, somebody holds the last one. They differ in one column of the key, and the other way in all columns behind it."""
    columns = ("organization", "mentor", "kind", "day", "overrides", "activity_id")
    low = ("a", "a", "a", "2026-01-01", False, f"00000000-0000-0000-0000-{0:012}")
    high = ("b", "b", "b", "2026-01-02", True, f"00000000-0000-0000-0000-{1:012}")
    batch_id = str(new_batch_id())
    for place, column in enumerate(columns):
        first = dict(zip(columns, (*low[: place + 1], *high[place + 1 :]), strict=True))
        last = dict(zip(columns, (*low[:place], high[place], *low[place + 1 :]), strict=True))
        items = [NotesOf(batch_id, position, str(DerivedIds(UUID(batch_id)).item_id(position)), "a") for position in (0, 1)]
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM registration.activity"))
            for values, item in zip((last, first), items, strict=True):
                connection.execute(_ACTIVITY, {**values, "batch_id": batch_id, "item_id": item.item_id})
        with looking(engine) as watcher, engine.connect() as holder:
            holder.execute(
                text("SELECT FROM registration.activity WHERE activity_id = :id FOR UPDATE"), {"id": last["activity_id"]}
            )
            erase = partial(erase_notes_of, found=items, at=datetime.now(UTC), by="boss", channel="api")
            thread = beside(engine, erase)
            eventually(partial(is_waited_for_a_row, watcher))
            assert watcher.scalars(_FREE_ACTIVITIES).all() == [], f"the one with the smaller {column} must be locked first"
            holder.rollback()
            thread.join()


_FREE_DISPATCHES = text("SELECT position FROM orchestrator.dispatch ORDER BY position FOR UPDATE SKIP LOCKED")


@pytest.mark.parametrize("way", ["mark", "record"])
def test_row_45_dispatches_are_locked_in_order_of_their_positions(pipeline: Pipeline, engine: Engine, way: str) -> None:
    """Another transaction holds the second of three. The first is then locked, and the third is still free."""
    batch_id = str(pipeline.submit(mentors(3)))
    keys = [OutcomeKey(batch_id, position, 1) for position in (2, 1, 0)]
    for key in keys:
        with engine.begin() as connection:
            mark_dispatched(connection, [key])
    withdrawn = [SettledDispatch(batch_id, key.position, 0, DispatchState.WITHDRAWN, None, None) for key in keys]

    def work(connection: Connection) -> None:
        # A merge join sorts by the keys, and would hide a missing order.
        connection.execute(text("SET LOCAL enable_mergejoin = off"))
        if way == "mark":
            mark_dispatched(connection, keys)
        else:
            record_settled(connection, withdrawn)

    with looking(engine) as watcher, engine.connect() as holder:
        holder.execute(text("SELECT FROM orchestrator.dispatch WHERE position = 1 FOR UPDATE"))
        thread = beside(engine, work)
        eventually(partial(is_waited_for_a_row, watcher))
        assert watcher.scalars(_FREE_DISPATCHES).all() == [2]
        holder.rollback()
        thread.join()


def test_row_45_intake_and_registration_of_the_same_batches_never_deadlock(pipeline: Pipeline, engine: Engine) -> None:
    """One stops before each of its statements in turn, and the other runs as far as a lock lets it."""
    deadlocks = Deadlocks()
    deadlocks.watch(pipeline.engine)
    mark_statements(pipeline.engine)
    numbers = itertools.count()
    with looking(engine) as watcher:
        for stop_at in itertools.count():
            batch_ids = contrary_ids(2)
            whole = [f"mentor-{next(numbers) % 100 + 1}" for _ in range(4)]
            first_parts = [
                submitted(batch_id, [upstream_item(0, whole[n])], part=1, parts=2, total_items=2)
                for n, batch_id in enumerate(batch_ids)
            ]
            last_parts = [
                submitted(batch_id, [upstream_item(1, whole[2 + n])], part=2, parts=2, total_items=2)
                for n, batch_id in enumerate(batch_ids)
            ]
            pipeline.handle(pipeline.splitter, first_parts)
            records = [record(event, offset) for offset, event in enumerate(last_parts)]
            # Foreign commands can make a registration lock batches in any order.
            commands = [record(forged(batch_id), offset) for offset, batch_id in enumerate(batch_ids)]

            def handle(handler: object, records: object) -> None:
                with pipeline.engine.begin() as connection:
                    handler.handle(connection, records)  # type: ignore[attr-defined]

            one = Run("intake", partial(handle, pipeline.splitter, records), stop_at=stop_at)
            other = Run("registration", partial(handle, pipeline.registration, commands))
            if not one.begin():
                break
            if not other.beside(one, watcher):
                one.resume()
            assert (one.error, other.error) == (None, None), one.stopped_at
    assert stop_at > 5
    assert deadlocks.count == 0


def forged(batch_id: UUID) -> OutgoingEvent:
    """A command for an item that does not exist yet."""
    event = command(0)
    return OutgoingEvent(
        event.topic, event.key, event.headers, event.value.replace(str(BATCH_ID).encode(), str(batch_id).encode())
    )


def test_row_45_the_order_is_defined_in_one_place() -> None:
    """Every place that takes locks for which others wait is in this list, and its order was checked."""
    places: dict[str, set[str]] = {}
    for folder in ("orchestrator", "consumers", "producers", "api", "cli", "compose"):
        for file in (*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.sql")):
            text = re.sub(r"^--.*$", "", file.read_text(), flags=re.MULTILINE)
            found = re.findall(
                r"batch_lock_key|period_lock_key|FOR NO KEY UPDATE|FOR UPDATE|FOR SHARE|FOR KEY SHARE|LOCK TABLE", text
            )
            if found:
                places[str(file.relative_to(ROOT))] = set(found)
    assert places == {
        "orchestrator/storage/locks.py": {"batch_lock_key", "period_lock_key"},
        "orchestrator/storage/slots.py": {"batch_lock_key"},
        "orchestrator/storage/batches.py": {"FOR NO KEY UPDATE"},
        "orchestrator/registration/in_process.py": {"FOR SHARE"},
        "orchestrator/registration/sql/records.sql": {"FOR NO KEY UPDATE"},
        "orchestrator/replay/sql/batch_merge.sql": {"FOR NO KEY UPDATE"},
        "orchestrator/storage/sql/dispatch.sql": {"FOR UPDATE"},
        "orchestrator/storage/sql/revocation_requests.sql": {"FOR UPDATE"},
        # It locks one row of its own, in a transaction that locks nothing else.
        "orchestrator/storage/sql/console_sessions.sql": {"FOR UPDATE"},
        "orchestrator/storage/sql/templates.sql": {"FOR UPDATE"},
        "orchestrator/storage/sql/purging.sql": {"FOR UPDATE"},
        # A request to forget a person. Then the lock of the batch, its activities in the order of their key, and its other rows. Or one
        # table that belongs to no batch, whose other writers lock one row each.
        "orchestrator/directory/sql/forgetting.sql": {"FOR UPDATE"},
        "orchestrator/directory/forgetting.py": {"FOR UPDATE"},
        "orchestrator/directory/person_rows.py": {"FOR UPDATE"},
        # The activities of a locked batch, in the order of their key.
        "orchestrator/storage/sql/notes.sql": {"FOR NO KEY UPDATE"},
        # A webhook, then its deliveries, and nothing else but an Idempotency-Key.
        "orchestrator/webhooks/sql/webhooks.sql": {"FOR UPDATE"},
        "orchestrator/webhooks/sql/deliveries.sql": {"FOR KEY SHARE", "FOR NO KEY UPDATE", "FOR UPDATE"},
    }
