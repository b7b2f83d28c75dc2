"""Statements that are planned once: only for tables in which a lookup by key is the cheapest way, however they grow."""

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
    """One session, as a role has it."""
    engine = create_database_engine(settings.worker_url, settings, connections=1, application_name="test")
    yield engine
    engine.dispose()


def mode(session: Engine) -> str:
    """What the session does with plans, after it has used one."""
    with session.begin() as connection:
        ONE.rows(connection)
        return str(connection.execute(text("SHOW plan_cache_mode")).scalar_one())


def test_plans_are_kept_once_the_items_have_a_megabyte(
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


def test_a_session_looks_again_whether_its_plans_still_fit(session: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(prepared, "time", clock)
    monkeypatch.setattr(prepared, "_LOOK", "SELECT set_config('plan_cache_mode', current_setting('test.mode'), false)")

    def found(wanted: str) -> str:
        """How the session plans, when a look would find this."""
        with session.begin() as connection:
            connection.execute(text("SELECT set_config('test.mode', :wanted, false)"), {"wanted": wanted})
            ONE.rows(connection)
            return str(connection.execute(text("SHOW plan_cache_mode")).scalar_one())

    small, large = "force_custom_plan", "force_generic_plan"
    assert found(small) == small
    assert found(large) == small, "looked at a moment ago"
    clock.now += 5
    assert found(large) == large, "a table that is small is looked at every second"
    clock.now += 5
    assert found(small) == large, "one that is large is not"
    clock.now += 60
    assert found(small) == small


def test_a_statement_that_somebody_between_has_forgotten_is_prepared_again(session: Engine) -> None:
    with session.begin() as connection:
        assert ONE.scalars(connection) == [1]
        connection.execute(text("DEALLOCATE ALL"))
    assert transact(session, ONE.scalars) == [1]


def test_what_has_left_the_outbox_is_not_read_again(settings: Settings, session: Engine) -> None:
    """However the table was when it was analysed: rows that are deleted stay where they are until the next vacuum."""

    owner = create_engine(settings.owner_url)
    with owner.begin() as connection:
        connection.execute(PUT_INTO_OUTBOX)
        connection.execute(
            text("DELETE FROM orchestrator.outbox WHERE outbox_id < (SELECT max(outbox_id) - 3 FROM orchestrator.outbox)")
        )
    # Now it is taken for a table of four rows in many pages: the case in which a bitmap seemed the best.
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

    assert pages_read_by_a_look() > 500, "they are still there, and nobody has noted that they are dead"
    # It is noted as soon as no other session can see them any more: an autovacuum may just be looking at this table, too.
    eventually(lambda: pages_read_by_a_look() == 0)


def pages_read(session: Engine) -> int:
    """Of the outbox, from memory or disk, so far."""
    with session.begin() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
    with session.begin() as connection:
        statement = (
            "SELECT heap_blks_hit + heap_blks_read FROM pg_statio_user_tables WHERE relid = 'orchestrator.outbox'::regclass"
        )
        return int(connection.execute(text(statement)).scalar_one())
