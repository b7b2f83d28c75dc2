"""Row 43 of the fault catalogue: a record that the database keeps refusing is set aside; during an outage no record is."""

from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import Connection, Engine, create_engine, text

from consumers.loop.handler import Handled, Record, RefusedError
from orchestrator.process.settings import Settings
from orchestrator.storage.blame import TransientError, kind_of
from producers.producer import EventProducer
from schemas.envelope import Topic
from schemas.events import EventData, RegisterActivity
from tests.faults.roles import armed, committed, expanded, fold, registration_role, running_role
from tests.support.kafka import reading
from tests.support.pipeline import Pipeline, mentors
from tests.support.toy import ToyHandler, command, make_toy_table, running_loop, toy_positions
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("topics")

RECORDS, POISON = 100, 37
SET_ASIDE_AFTER_MS = 1_500


class Refusing(ToyHandler):
    """A handler whose transaction never succeeds with one of the records."""

    def __init__(self, meet: Callable[[Connection], None]) -> None:
        super().__init__()
        self._meet = meet

    def handle(self, connection: Connection, records: Sequence[Record[EventData]]) -> Handled:
        handled = super().handle(connection, records)
        if any(isinstance(record.data, RegisterActivity) and record.data.position == POISON for record in records):
            self._meet(connection)
        return handled

    def give_up(self, connection: Connection, record: Record[EventData], error: Exception) -> Handled:
        return Handled((), [(0, RefusedError("internal_error", kind_of(error)))])


def times_out(connection: Connection) -> None:
    connection.execute(text("SELECT pg_sleep(60)"))


def is_refused(connection: Connection) -> None:
    connection.execute(text("SELECT * FROM pg_authid"))


def breaks_an_invariant(_: Connection) -> None:
    raise TransientError("an item vanished between two statements; it is tried again")


@pytest.mark.parametrize(
    ("meet", "detail"),
    [(times_out, "QueryCanceled 57014"), (is_refused, "InsufficientPrivilege 42501"), (breaks_an_invariant, "TransientError")],
)
def test_row_43_a_record_that_never_succeeds_is_set_aside_and_others_continue(
    settings: Settings, engine: Engine, publisher: EventProducer, meet: Callable[[Connection], None], detail: str
) -> None:
    make_toy_table(settings)
    impatient = armed(settings, set_aside_after_ms=SET_ASIDE_AFTER_MS, statement_timeout_ms=300)
    publisher.publish([command(position) for position in range(RECORDS)])
    others = [position for position in range(RECORDS) if position != POISON]
    with running_loop(impatient, Refusing(meet)), reading(settings, Topic.DEAD_LETTER) as letters:
        [letter] = letters.wait_for(1)
        assert toy_positions(engine) == others
        publisher.publish([command(RECORDS)])
        eventually(lambda: committed(settings, ToyHandler.name, Topic.COMMANDS) == RECORDS + 1)
        assert len(letters.read()) == 1
    assert (letter.data["reason"], letter.data["detail"]) == ("internal_error", detail)
    assert toy_positions(engine) == [*others, RECORDS]


def test_row_43_new_records_do_not_wait_for_a_failing_one(settings: Settings, engine: Engine, publisher: EventProducer) -> None:
    make_toy_table(settings)
    publisher.publish([command(position) for position in range(RECORDS)])
    handler = Refusing(is_refused)
    with running_loop(settings, handler) as loop, reading(settings, Topic.DEAD_LETTER) as letters:
        eventually(lambda: [POISON] in handler.handled)
        publisher.publish([command(RECORDS)])
        eventually(lambda: RECORDS in toy_positions(engine))
        eventually(lambda: loop.health.loop_age_s < 5)
        assert letters.read() == [], "the record must be set aside only after minutes"
    # A record that was not set aside is redelivered to the next process.
    assert committed(settings, ToyHandler.name, Topic.COMMANDS) <= RECORDS


def test_row_43_nothing_is_set_aside_while_everything_fails(settings: Settings, engine: Engine, publisher: EventProducer) -> None:
    """A right is missing for all records, for longer than the patience: an operator's mistake, which the operator corrects."""
    make_toy_table(settings)
    owner = create_engine(settings.owner_url, isolation_level="AUTOCOMMIT")
    handler = ToyHandler()
    with owner.connect() as connection:
        connection.execute(text("REVOKE ALL ON toy FROM bulkreg_worker"))
        publisher.publish([command(position) for position in range(20)])
        with (
            running_loop(armed(settings, set_aside_after_ms=500), handler) as loop,
            reading(settings, Topic.DEAD_LETTER) as letters,
        ):
            eventually(lambda: loop.health.loop_age_s > 2, what="a health check that reports no progress")
            connection.execute(text("GRANT ALL ON toy TO bulkreg_worker"))
            eventually(lambda: committed(settings, ToyHandler.name, Topic.COMMANDS) == 20)
            eventually(lambda: loop.health.loop_age_s < 1)
            assert letters.read() == []
    owner.dispose()
    assert toy_positions(engine) == list(range(20))


def test_row_43_an_item_that_the_database_always_refuses_fails_and_its_batch_ends(
    settings: Settings, engine: Engine, pipeline: Pipeline, publisher: EventProducer
) -> None:
    owner = create_engine(settings.owner_url)
    with owner.begin() as connection:
        connection.execute(
            text("""
                CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = 'insufficient_privilege'; END $$
            """)
        )
        connection.execute(
            text("""
                CREATE TRIGGER refuse BEFORE INSERT ON registration.activity FOR EACH ROW
                WHEN (NEW.attributed_to = 'mentor-3') EXECUTE FUNCTION refuse()
            """)
        )
    owner.dispose()
    batch_id = pipeline.submit(mentors(5))
    publisher.publish(expanded(pipeline, batch_id))
    with (
        running_role(armed(settings, set_aside_after_ms=SET_ASIDE_AFTER_MS), registration_role()),
        reading(settings, Topic.RESULTS) as results,
        reading(settings, Topic.DEAD_LETTER) as letters,
    ):
        found = results.wait_for(5)
        [letter] = letters.wait_for(1)
    fold(pipeline, found)
    view = pipeline.status(batch_id)
    assert [one.status for one in view.items] == ["success", "success", "failed", "success", "success"]
    assert view.items[2].error is not None
    assert view.items[2].error.code == "internal_error"
    assert (letter.data["reason"], letter.data["detail"]) == ("internal_error", "InsufficientPrivilege 42501")
