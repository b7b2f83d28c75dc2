"""Rows are returned in their order wherever they lie. A changed row lies behind all others of its table, and an index would hide a missing
ORDER BY."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from orchestrator.batches.model import BatchFilter, ItemFilter, RetryRequest
from orchestrator.batches.operations import retry_failed_items
from orchestrator.batches.repository import OutcomeKey
from orchestrator.batches.states import ItemStatus
from orchestrator.directory.person_pages import Key, read_page
from orchestrator.storage import sweeping
from orchestrator.storage.expansion import pending_items
from orchestrator.storage.repository import PostgresActivityRepository
from tests.support.pipeline import ADMIN, ORGANIZATION, Pipeline, item
from tests.support.plans import without_indexes

COUNT = 5
SHUFFLED = (3, 0, 4, 2, 1)
IN_ORDER = [*range(COUNT)]


@pytest.fixture
def batch_id(pipeline: Pipeline) -> UUID:
    """A batch whose items have all failed twice."""
    batch_id = pipeline.submit([item(f"nobody-{number}") for number in range(COUNT)])
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.drain()
    return batch_id


@pytest.fixture
def connection(pipeline: Pipeline, batch_id: UUID) -> Iterator[Connection]:
    """The rows of the items are shuffled in it."""
    with pipeline.engine.connect() as connection:
        for position in SHUFFLED:
            connection.execute(
                text("UPDATE orchestrator.batch_item SET notes = notes WHERE (batch_id, position) = (:batch_id, :position)"),
                {"batch_id": batch_id, "position": position},
            )
        without_indexes(connection)
        yield connection
        connection.rollback()


def test_items(connection: Connection, batch_id: UUID) -> None:
    repository = PostgresActivityRepository(connection)
    assert [one.position for one in repository.items_by_status(batch_id, ItemStatus.FAILED)] == IN_ORDER
    assert [one.position for one in repository.items_at(batch_id, SHUFFLED)] == IN_ORDER
    assert repository.positions_changed_since(batch_id, 1) == IN_ORDER


@pytest.mark.parametrize("join", ["hashjoin", "mergejoin"])
def test_pages_of_items(connection: Connection, batch_id: UUID, join: str) -> None:
    connection.execute(text(f"SET LOCAL enable_{'mergejoin' if join == 'hashjoin' else 'hashjoin'} = off"))
    repository = PostgresActivityRepository(connection)
    for limit in (1, 3, COUNT):
        view = repository.status(batch_id, ItemFilter(limit=limit))
        assert view is not None
        assert view.batch.batch_id == batch_id
        assert [one.position for one in view.items] == IN_ORDER[:limit]
        assert view.next_after_position == (limit - 1 if limit < COUNT else None)


def test_attempts_of_an_item(pipeline: Pipeline, connection: Connection, batch_id: UUID) -> None:
    shuffled = text("UPDATE orchestrator.item_history SET retried_by = retried_by WHERE attempt = 1")
    kept = text(
        "INSERT INTO orchestrator.item_history SELECT batch_id, position, 2, organization_id, submitted, error, attempt_at, correction,"
        " retried_by, retried_at FROM orchestrator.item_history"
    )
    connection.execute(kept)
    connection.execute(shuffled)
    history = PostgresActivityRepository(connection).history(batch_id, 3)
    assert [one.attempt for one in history] == [1, 2]


def test_commands_are_produced_in_the_order_of_their_names(connection: Connection, batch_id: UUID) -> None:
    connection.execute(text("UPDATE orchestrator.batch_item SET status = 'pending', error = NULL"))
    named = SHUFFLED[::-1]
    keys = [OutcomeKey(str(batch_id), position, 2) for position in named]
    assert [one.data["mentor_id"] for one in pending_items(connection, keys)] == [f"nobody-{position}" for position in named]


def test_pages_of_the_search_for_a_person(connection: Connection, batch_id: UUID) -> None:
    """Each has so many rows. The last one ends with its table."""
    ends: list[Key | None] = []
    while not ends or ends[-1] is not None:
        ends.append(read_page(connection, "orchestrator.batch_item", ends[-1] if ends else None, 2).end)
    assert ends == [[str(batch_id), "1"], [str(batch_id), "3"], None]


def test_batches_that_were_submitted_at_the_same_time(pipeline: Pipeline) -> None:
    ids = [pipeline.submit([item("mentor-1")]) for _ in range(4)]
    with pipeline.engine.connect() as connection:
        connection.execute(text("UPDATE orchestrator.batch SET submitted_at = '2026-03-25T12:00:00Z'"))
        # The last ones lie behind the others.
        for batch_id in sorted(ids):
            connection.execute(text("UPDATE orchestrator.batch SET label = label WHERE batch_id = :id"), {"id": batch_id})
        without_indexes(connection)
        repository = PostgresActivityRepository(connection)
        shown: list[list[UUID]] = []
        after = None
        while not shown or after is not None:
            page = repository.list_batches(ORGANIZATION, BatchFilter(limit=2, after=after))
            shown.append([batch.batch_id for batch in page.batches])
            after = page.next_after
        connection.rollback()
    latest = sorted(ids, reverse=True)
    assert shown == [latest[:2], latest[2:]]


def test_lost_commands_of_a_batch(connection: Connection, batch_id: UUID) -> None:
    mark = sweeping.new_mark(connection)
    for position in SHUFFLED:
        connection.execute(
            text("INSERT INTO orchestrator.sweep_watch VALUES (:b, :p, 2, :org, 'registration', :mark, 0, now())"),
            {"b": batch_id, "p": position, "org": ORGANIZATION, "mark": mark},
        )
    found = sweeping.lost_commands(connection, sweeping.PassedMarks([mark], []), max_resends=5, aside=(), limit=3)
    assert [one.key.position for one in found] == IN_ORDER[:3]
