"""Statements that are planned once: only for tables in which a lookup by key is the cheapest way, however they grow."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from orchestrator.settings import Settings
from orchestrator.storage import prepared
from orchestrator.storage.database import create_database_engine, transact
from orchestrator.storage.prepared import Prepared
from tests.support.pipeline import Pipeline, mentors, standard_directory

ONE = Prepared("SELECT 1")


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


def test_a_statement_that_somebody_between_has_forgotten_is_prepared_again(session: Engine) -> None:
    with session.begin() as connection:
        assert ONE.scalars(connection) == [1]
        connection.execute(text("DEALLOCATE ALL"))
    assert transact(session, ONE.scalars) == [1]
