"""How many round trips the API's most frequent transactions need, and that a transaction without BEGIN and COMMIT leaves the session as it
was.

In a busy process, a thread waits for its turn after each round trip. That is half of the time of a status request (docs/performance.md).
"""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from api.load.database import Database
from orchestrator.batches.errors import NotFoundError
from orchestrator.batches.model import ItemFilter, NewBatch, StatusView
from orchestrator.batches.operations import get_bulk_submission_status, submit_bulk_registration
from orchestrator.batches.repository import ActivityRepository
from orchestrator.process.settings import Settings
from schemas.ids import new_batch_id
from tests.faults.proxy import PostgresProxy
from tests.support.pipeline import ADMIN, COORDINATOR, COORDINATOR_ACTOR, ORGANIZATION, Pipeline, item, mentors

Look = Callable[[ActivityRepository], StatusView]


@pytest.fixture
def database(proxied: Settings) -> Iterator[Database]:
    """An engine like the API's. Its one session goes through the proxy."""
    database = Database(proxied.model_copy(update={"api_database_connections": 1}))
    yield database
    database.close()


def status_of(pipeline: Pipeline) -> Look:
    """Reads a finished batch, one of whose mentors is unknown."""
    batch_id = pipeline.submit([*mentors(3), item("nobody")])
    pipeline.drain()
    return lambda repository: get_bulk_submission_status(repository, ADMIN, batch_id, ItemFilter())


def submission(repository: ActivityRepository) -> None:
    batch = NewBatch(new_batch_id(), COORDINATOR, None, False, mentors(3), "0" * 31 + "1")
    submit_bulk_registration(repository, COORDINATOR_ACTOR, batch)


def test_reading_a_status_takes_one_round_trip(pipeline: Pipeline, database: Database, proxy: PostgresProxy) -> None:
    look = status_of(pipeline)
    assert database.look(ORGANIZATION, look).batch.errors_by_code == {"mentor_not_found": 1}
    prepared = proxy.queries
    assert database.look(ORGANIZATION, look).batch.errors_by_code == {"mentor_not_found": 1}
    assert proxy.queries == prepared + 1


def test_a_submission_takes_three_round_trips(pipeline: Pipeline, database: Database, proxy: PostgresProxy) -> None:
    database.change(ORGANIZATION, submission)
    prepared = proxy.queries
    database.change(ORGANIZATION, submission)
    assert proxy.queries == prepared + 3


def test_the_session_has_transactions_again_after_a_status_was_read(pipeline: Pipeline, database: Database) -> None:
    look = status_of(pipeline)

    def submit_and_fail(repository: ActivityRepository) -> None:
        submission(repository)
        raise LookupError

    database.look(ORGANIZATION, look)
    with pytest.raises(LookupError):
        database.change(ORGANIZATION, submit_and_fail)
    with pipeline.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM orchestrator.batch")).scalar_one() == 1


def test_a_status_shows_only_its_own_organization_whatever_the_session_read_before(
    pipeline: Pipeline, database: Database
) -> None:
    look = status_of(pipeline)
    database.look(ORGANIZATION, look)
    with pytest.raises(NotFoundError):
        database.look("org-other", look)
    assert database.look(ORGANIZATION, look).batch.counts.failed == 1


def test_a_second_statement_after_the_only_one_sees_nothing(pipeline: Pipeline, database: Database) -> None:
    look = status_of(pipeline)
    database.look(ORGANIZATION, look)

    def look_twice(repository: ActivityRepository) -> None:
        look(repository)
        look(repository)

    with pytest.raises(NotFoundError):
        database.look(ORGANIZATION, look_twice)


def test_a_status_is_read_again_after_its_connection_was_lost(
    pipeline: Pipeline, database: Database, proxy: PostgresProxy
) -> None:
    look = status_of(pipeline)
    database.look(ORGANIZATION, look)
    assert proxy.cut()
    assert database.look(ORGANIZATION, look).batch.counts.failed == 1
