"""How many round trips the API's most frequent transactions need, and that a transaction without BEGIN and COMMIT leaves the session as it
was.

In a busy process, a thread waits for its turn after each round trip. That is half of the time of a status request (docs/performance.md).
"""

from collections.abc import Callable, Iterator, Sequence

import pytest
from sqlalchemy import text

from api.load.database import Database
from consumers.loop.handler import Handler
from orchestrator.batches.errors import NotFoundError
from orchestrator.batches.model import ItemFilter, NewBatch, StatusView
from orchestrator.batches.operations import get_bulk_submission_status, submit_bulk_registration
from orchestrator.batches.repository import ActivityRepository
from orchestrator.process.settings import Settings
from orchestrator.storage import prepared
from orchestrator.storage.database import begin, create_database_engine, transact
from orchestrator.storage.progress import Position, advance_progress
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import new_batch_id
from tests.faults.proxy import PostgresProxy
from tests.support.pipeline import ADMIN, COORDINATOR, COORDINATOR_ACTOR, ORGANIZATION, Pipeline, item, mentors, record

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


def test_a_micro_batch_takes_few_round_trips(
    pipeline: Pipeline, proxied: Settings, proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each role needs one for each result that it waits for. BEGIN and COMMIT are sent with other statements."""
    monkeypatch.setattr(prepared, "_LOOK_EVERY_S_WHILE_SMALL", 3_600.0)
    engine = create_database_engine(proxied.worker_url, proxied, connections=1, application_name="test")

    def trips(handler: Handler, events: Sequence[OutgoingEvent]) -> tuple[int, Sequence[OutgoingEvent]]:
        before = proxy.queries
        with begin(engine) as connection:
            handled = handler.handle(connection, [record(event, offset) for offset, event in enumerate(events)])
            advance_progress(connection, {(handler.topics[0], 0): Position(len(events))})
        return proxy.queries - before, handled.events

    for first in (1, 50):
        # The second time, each statement is prepared.
        batch_id = pipeline.submit(mentors(3, first=first))
        pipeline.relay()
        splitter, commands = trips(pipeline.splitter, pipeline.take(Topic.BATCHES))
        registration, results = trips(pipeline.registration, commands)
        aggregator, _ = trips(pipeline.aggregator, results)
    engine.dispose()
    assert pipeline.status(batch_id).batch.status == "completed"
    assert (splitter, registration, aggregator) == (4, 5, 3)


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


@pytest.mark.parametrize("organizations", [None, [ORGANIZATION]])
def test_a_transaction_is_repeated_after_its_connection_was_lost(
    proxied: Settings, proxy: PostgresProxy, organizations: Sequence[str] | None
) -> None:
    """Also if what begins it has to be sent alone, because the first statement is not a prepared one."""
    engine = create_database_engine(proxied.worker_url, proxied, connections=1, application_name="test")
    one = text("SELECT 1")
    transact(engine, lambda connection: connection.execute(one), organizations=organizations)
    assert proxy.cut()
    assert transact(engine, lambda connection: connection.execute(one).scalar_one(), organizations=organizations) == 1
    engine.dispose()
