"""Which operations on a batch wait for which, and in which order several batches are locked, so that there are no deadlocks."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from psycopg2 import errorcodes
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from orchestrator.batches.errors import NotFoundError
from orchestrator.batches.model import Actor, Idempotency, RetryRequest, Role
from orchestrator.batches.operations import cancel_batch, delete_batch, relabel_batch, retry_failed_items
from orchestrator.batches.repository import KeyUse
from orchestrator.storage import locks
from orchestrator.storage.purging import deleted_batches, purge_batches
from orchestrator.storage.repository import PostgresActivityRepository
from schemas.ids import batch_lock_key, new_batch_id, period_lock_key
from tests.support.pipeline import COORDINATOR_ACTOR, ORGANIZATION, Pipeline, mentors
from tests.support.plans import without_indexes
from tests.support.waiting import PATIENCE_S, eventually

Take = Callable[[Connection, Sequence[UUID]], object]


def share(connection: Connection, batches: Sequence[UUID]) -> None:
    locks.share_batches(connection, batches)


def exclude(connection: Connection, batches: Sequence[UUID]) -> None:
    locks.take_batches(connection, [str(batch_id) for batch_id in batches])


def alone(connection: Connection, batches: Sequence[UUID]) -> None:
    for batch_id in batches:
        assert PostgresActivityRepository(connection).lock_batch(batch_id)


def several(connection: Connection, batches: Sequence[UUID]) -> None:
    PostgresActivityRepository(connection).lock_batches(batches)


def fold(connection: Connection, batches: Sequence[UUID]) -> None:
    assert PostgresActivityRepository(connection).lock_for_fold(batches).keys() == set(batches)


def purge(connection: Connection, batches: Sequence[UUID]) -> None:
    """It leaves the rows that it can't lock at once."""
    purge_batches(connection, [str(batch_id) for batch_id in batches], max_items=100)


# Registrations run side by side, and beside a fold. A person's operation runs alone.
WAITS = {
    (share, share): False,
    (share, exclude): True,
    (share, alone): True,
    (share, fold): False,
    (exclude, share): True,
    (exclude, exclude): True,
    (exclude, alone): True,
    (exclude, fold): False,
    (alone, share): True,
    (alone, exclude): True,
    (alone, alone): True,
    (alone, fold): True,
    (several, share): True,
    (several, alone): True,
    (several, fold): True,
    (several, several): True,
    (fold, share): False,
    (fold, several): True,
    (fold, exclude): False,
    (fold, alone): True,
    (fold, fold): True,
    (fold, purge): False,
    (alone, purge): False,
}


def is_kept_waiting(pipeline: Pipeline, take: Take, batches: Sequence[UUID]) -> bool:
    with pipeline.engine.connect() as connection:
        connection.execute(text("SET LOCAL lock_timeout = 30"))
        try:
            take(connection, batches)
        except OperationalError as error:
            if getattr(error.orig, "pgcode", None) != errorcodes.LOCK_NOT_AVAILABLE:
                raise
            return True
    return False


def test_which_operations_wait_for_which(pipeline: Pipeline) -> None:
    batch_id, other = pipeline.submit(mentors(1)), pipeline.submit(mentors(1, first=5))
    found = {}
    for holds, comes in WAITS:
        with pipeline.engine.connect() as connection:
            holds(connection, [batch_id])
            found[holds, comes] = is_kept_waiting(pipeline, comes, [batch_id])
            assert not is_kept_waiting(pipeline, comes, [other]), "another batch must not be locked"
    assert found == WAITS


def test_the_purge_leaves_a_deleted_batch_that_is_being_folded(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(1))
    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.batch SET deleted_at = now() - interval '1 day'"))
    with pipeline.engine.connect() as connection:
        fold(connection, [batch_id])
        with pipeline.engine.begin() as purging:
            assert purge_batches(purging, [str(batch_id)], max_items=100) == (0, 0)


@contextmanager
def waiting(pipeline: Pipeline, take: Callable[[Connection], object]) -> Iterator[None]:
    """Runs `take` in another transaction, which has to wait for what this thread holds, and runs the block meanwhile."""

    def run() -> None:
        with pipeline.engine.begin() as connection:
            take(connection)

    with ThreadPoolExecutor(1) as threads:
        taking = threads.submit(run)
        eventually(lambda: waits(pipeline))
        yield
        taking.result()


def waits(pipeline: Pipeline) -> bool:
    with pipeline.engine.connect() as connection:
        return bool(connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one())


def key_order(batch_id: UUID) -> int:
    return batch_lock_key(batch_id)


def id_order(batch_id: UUID) -> int:
    return batch_id.int


@pytest.mark.parametrize(
    ("take", "rival", "order"), [(share, exclude, key_order), (exclude, exclude, key_order), (fold, fold, id_order)]
)
@pytest.mark.parametrize("is_turned", [False, True], ids=["as stored", "turned"])
def test_several_batches_are_locked_in_one_order(
    pipeline: Pipeline, take: Take, rival: Take, order: Callable[[UUID], int], *, is_turned: bool
) -> None:
    """A process that waits for the first of them does not hold the last one yet."""
    batches = [pipeline.submit(mentors(1, first=number)) for number in range(1, 5)]
    with pipeline.engine.begin() as connection:
        # Stores the rows in the reverse order, too.
        for batch_id in reversed(batches):
            connection.execute(text("UPDATE orchestrator.batch SET label = 'moved' WHERE batch_id = :id"), {"id": batch_id})
    first, *_, last = sorted(batches, key=order)

    def take_wanted(connection: Connection) -> None:
        without_indexes(connection)
        take(connection, batches[::-1] if is_turned else batches)

    with pipeline.engine.connect() as holding:
        rival(holding, [first])
        with waiting(pipeline, take_wanted):
            taken = is_kept_waiting(pipeline, rival, [last])
            holding.rollback()
    assert not taken


def test_a_batch_is_locked_before_the_period_of_its_organization(pipeline: Pipeline) -> None:
    """A process that waits for the batch does not keep a closing waiting, whatever the order of their keys."""
    batch_id = pipeline.submit(mentors(1))
    earlier = next(name for name in map(str, range(1_000)) if period_lock_key(name) < batch_lock_key(batch_id))
    with pipeline.engine.connect() as holding:
        exclude(holding, [batch_id])
        with waiting(pipeline, lambda connection: locks.share_batches_and_periods(connection, [batch_id], [earlier])):
            taken = is_kept_waiting(pipeline, lambda connection, _: locks.take_periods(connection, [earlier]), [])
            holding.rollback()
    assert not taken


def test_several_keys_are_claimed_in_one_order(pipeline: Pipeline) -> None:
    """By organization, subject and key, in whichever order they are requested."""

    def use(number: int) -> KeyUse:
        return KeyUse(Actor(ORGANIZATION, "boss", Role.ADMIN), Idempotency(f"key-{number}", b"hash"), new_batch_id())

    def claim(connection: Connection, *numbers: int) -> None:
        PostgresActivityRepository(connection).use_keys([use(number) for number in numbers])

    with pipeline.engine.connect() as holding:
        claim(holding, 1)
        with waiting(pipeline, lambda connection: claim(connection, 3, 2, 1)):
            taken = is_kept_waiting(pipeline, lambda connection, _: claim(connection, 3), [])
            holding.rollback()
    assert not taken


def test_the_oldest_deletions_are_purged_first(pipeline: Pipeline) -> None:
    batches = [pipeline.submit(mentors(1, first=number)) for number in range(1, 6)]
    ages = (3, 5, 1, 4, 2)
    with pipeline.engine.begin() as connection:
        for batch_id, days in zip(batches, ages, strict=True):
            connection.execute(
                text("UPDATE orchestrator.batch SET deleted_at = now() - make_interval(days => :days) WHERE batch_id = :id"),
                {"days": days, "id": batch_id},
            )
    by_age = [str(batch_id) for _, batch_id in sorted(zip(ages, batches, strict=True), reverse=True)]

    def due(days: int, *, aside: Sequence[str] = (), at_most: int = 10) -> list[str]:
        with pipeline.engine.connect() as connection:
            after = timedelta(days=days)
            return [each.batch_id for each in deleted_batches(connection, after=after, aside=aside, max_batches=at_most)]

    assert due(0) == by_age
    assert due(3) == by_age[:3], "batches deleted exactly three days ago must be purged"
    assert due(0, at_most=2) == by_age[:2]
    assert due(0, aside=by_age[:2], at_most=2) == by_age[2:4]


def test_a_batch_of_another_organization_is_neither_waited_for_nor_locked(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(1))
    stranger = replace(COORDINATOR_ACTOR, subject="coord-2")
    calls: Sequence[Callable[[], object]] = (
        lambda: pipeline.call(cancel_batch, stranger, batch_id, None),
        lambda: pipeline.call(retry_failed_items, stranger, batch_id, RetryRequest()),
        lambda: pipeline.call(relabel_batch, stranger, batch_id, "mine"),
        lambda: pipeline.call(delete_batch, stranger, batch_id),
    )
    with ThreadPoolExecutor(len(calls)) as threads, pipeline.engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": batch_lock_key(batch_id)})
        connection.execute(text("SELECT FROM orchestrator.batch FOR UPDATE"))
        for asked in [threads.submit(call) for call in calls]:
            with pytest.raises(NotFoundError):
                asked.result(PATIENCE_S)
