"""Statements that are planned once, but only for tables in which a lookup by key is the cheapest way, however they grow."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, text

from orchestrator.process.settings import Settings
from orchestrator.storage import outbox, prepared
from orchestrator.storage.database import create_database_engine, transact
from orchestrator.storage.prepared import Prepared
from tests.support.pipeline import Pipeline, mentors, standard_directory
from tests.support.waiting import eventually

ONE = Prepared("SELECT 1")

PUT_INTO_OUTBOX = text("""
    INSERT INTO orchestrator.outbox (slot, organization_id, batch_id, topic, key, headers, value, created_at)
    SELECT abs(hashint8(n)) % 16, 'org', gen_random_uuid(), 'topic', 'key', '[]', convert_to(repeat('x', 1000), 'UTF8'), now()
    FROM generate_series(1, 4000) AS n
""")


@pytest.fixture
def session(settings: Settings) -> Iterator[Engine]:
    """An engine with one session, like a role's."""
    engine = create_database_engine(settings.worker_url, settings, connections=1, application_name="test")
    yield engine
    engine.dispose()


def mode(session: Engine) -> str:
    """How the session plans, after it has used a plan."""
    with session.begin() as connection:
        ONE.rows(connection)
        return str(connection.execute(text("SHOW plan_cache_mode")).scalar_one())


def test_plans_are_kept_after_the_items_have_a_megabyte(
    settings: Settings, session: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    standard_directory(session, mentor_count=6_000)
    pipeline = Pipeline(settings, session)
    monkeypatch.setattr(prepared, "_LOOK_EVERY_S_WHILE_SMALL", 0.0)
    assert mode(session) == "force_custom_plan"
    pipeline.submit(mentors(10))
    pipeline.drain()
    assert mode(session) == "force_custom_plan"
    pipeline.submit(mentors(6_000))
    pipeline.drain()
    assert mode(session) == "force_generic_plan"
    pipeline.close()


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


def test_a_session_checks_regularly_whether_its_plans_still_fit(session: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(prepared, "time", clock)
    monkeypatch.setattr(prepared, "_LOOK", "SELECT set_config('plan_cache_mode', current_setting('test.mode'), false)")

    def found(wanted: str) -> str:
        """How the session plans if a check at this moment would find this."""
        with session.begin() as connection:
            connection.execute(text("SELECT set_config('test.mode', :wanted, false)"), {"wanted": wanted})
            ONE.rows(connection)
            return str(connection.execute(text("SHOW plan_cache_mode")).scalar_one())

    small, large = "force_custom_plan", "force_generic_plan"
    assert found(small) == small
    assert found(large) == small, "it was checked a moment ago"
    clock.now += 5
    assert found(large) == large, "a small table must be checked every second"
    clock.now += 5
    assert found(small) == large, "a large table must be checked less often"
    clock.now += 60
    assert found(small) == small


def test_a_statement_that_was_deallocated_is_prepared_again(session: Engine) -> None:
    with session.begin() as connection:
        assert ONE.scalars(connection) == [1]
        connection.execute(text("DEALLOCATE ALL"))
    assert transact(session, ONE.scalars) == [1]


def test_deleted_rows_of_the_outbox_are_not_read_again(settings: Settings, session: Engine) -> None:
    """Whatever the statistics say. Deleted rows stay in the table until the next vacuum."""

    owner = create_engine(settings.owner_url)
    with owner.begin() as connection:
        connection.execute(PUT_INTO_OUTBOX)
        connection.execute(
            text("DELETE FROM orchestrator.outbox WHERE outbox_id < (SELECT max(outbox_id) - 3 FROM orchestrator.outbox)")
        )
    # The statistics now say: four rows in many pages. In that case a bitmap scan seemed to be the best plan.
    with owner.begin() as connection:
        connection.execute(text("ANALYZE orchestrator.outbox"))
        connection.execute(text("DELETE FROM orchestrator.outbox"))
    owner.dispose()

    def pages_read_by_a_look() -> int:
        before = pages_read(session)
        with session.begin() as connection:
            outbox.read_by_key(connection)
            assert outbox.oldest_rows(connection, range(outbox.SLOTS), outbox.ReadLimits(500, 1 << 20)) == []
        return pages_read(session) - before

    assert pages_read_by_a_look() > 500, "the deleted rows must be read once, because they are not marked as dead yet"
    # They are marked when no other session can see them any more. An autovacuum may be reading this table, too.
    eventually(lambda: pages_read_by_a_look() == 0)


def pages_read(session: Engine) -> int:
    """How many pages of the outbox were read so far, from memory or disk."""
    with session.begin() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
    with session.begin() as connection:
        statement = (
            "SELECT heap_blks_hit + heap_blks_read FROM pg_statio_user_tables WHERE relid = 'orchestrator.outbox'::regclass"
        )
        return int(connection.execute(text(statement)).scalar_one())
