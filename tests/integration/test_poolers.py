"""The values of a session that the product depends on, through poolers and whatever the shell contains."""

import os

import pytest
from sqlalchemy import Engine, create_engine, text

from compose.findings import State
from orchestrator.process.settings import Settings
from orchestrator.storage.connecting import session_values
from orchestrator.storage.database import create_database_engine, session_limits
from orchestrator.storage.migrate import upgrade
from tests.integration.test_doctor import sound, wrong
from tests.support.pipeline import Pipeline, mentors, standard_directory
from tests.support.pooler import pooled

__all__ = ["sound"]

IN_SESSION_MODE = {"pool_mode": "session"}
LENIENT = {"pool_mode": "session", "ignore_startup_parameters": "options"}

# What a shell may contain that was set up for other programs.
SHELL = {
    "PGHOSTADDR": "192.0.2.1",
    "PGHOST": "elsewhere.invalid",
    "PGPORT": "1",
    "PGUSER": "somebody",
    "PGDATABASE": "another",
    "PGSERVICE": "another",
    "PGSERVICEFILE": "/nowhere",
    "PGOPTIONS": "-c statement_timeout=1",
    "PGTZ": "Nowhere/Bad",
    "PGDATESTYLE": "SQL, DMY",
    "PGCLIENTENCODING": "LATIN1",
    "PGGEQO": "off",
    "PGAPPNAME": "other",
    "PGSSLMODE": "require",
    "PGREQUIRESSL": "1",
    "PGSSLROOTCERT": "system",
    "PGSSLNEGOTIATION": "direct",
    "PGCHANNELBINDING": "require",
    "PGREQUIREAUTH": "none",
    "PGGSSENCMODE": "require",
    "PGTARGETSESSIONATTRS": "read-only",
    "PGLOADBALANCEHOSTS": "bad",
    "PGCONNECT_TIMEOUT": "bad",
    "PGMINPROTOCOLVERSION": "bad",
    "PGPASSFILE": "/nowhere",
    "PGPASSWORD": "wrong",
}

# `doctor` would name its settings in every test.
pytestmark = pytest.mark.usefixtures("durable_server")


def values(settings: Settings) -> dict[str, str]:
    """The values in a session of the workers, for each value that it should have."""
    engine = create_database_engine(settings.worker_url, settings, connections=1, application_name="test")
    names = list(session_values(session_limits(settings)))
    try:
        with engine.connect() as connection:
            rows = connection.execute(
                text("SELECT lower(name), setting FROM pg_settings WHERE lower(name) = ANY (:n)"), {"n": names}
            )
            return {row[0]: row[1] for row in rows}
    finally:
        engine.dispose()


def wanted(settings: Settings) -> dict[str, str]:
    return dict(session_values(session_limits(settings)))


def test_the_shell_does_not_influence_the_database(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SHELL.items():
        monkeypatch.setenv(name, value)
    assert upgrade(settings)
    for name, value in SHELL.items():
        monkeypatch.setenv(name, value)
    assert values(settings) == wanted(settings)


def test_a_remote_server_is_reached_with_the_tls_settings_of_the_shell(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SHELL.items():
        monkeypatch.setenv(name, value)
    url = settings.worker_url.set(host="database.invalid")
    engine = create_database_engine(url, settings, connections=1, application_name="test")
    with pytest.raises(Exception, match=r"sslmode|SSL|ssl"):
        engine.connect()
    assert os.environ["PGSSLROOTCERT"] == "system"
    assert "PGHOSTADDR" not in os.environ


@pytest.mark.parametrize(
    "default", ["timezone = 'Asia/Tokyo'", "datestyle = 'SQL, DMY'", "default_transaction_isolation = serializable"]
)
def test_the_defaults_of_the_database_do_not_count(settings: Settings, default: str) -> None:
    engine = create_engine(settings.owner_url)
    with engine.begin() as connection:
        connection.execute(text(f'ALTER DATABASE "{settings.owner_url.database}" SET {default}'))
    engine.dispose()
    assert values(settings) == wanted(settings)


@pytest.mark.parametrize("options", [IN_SESSION_MODE, LENIENT], ids=["strict", "lenient"])
def test_a_session_pooler_keeps_every_value(sound: Settings, options: dict[str, str]) -> None:
    with pooled(sound, **options) as settings:
        assert values(settings) == wanted(settings)
        assert wrong(settings) == []
        assert upgrade(settings)


def test_a_batch_through_a_session_pooler(settings: Settings, engine: Engine) -> None:
    standard_directory(engine)
    with pooled(settings, **IN_SESSION_MODE) as through:
        worker = create_database_engine(through.worker_url, through, connections=10, application_name="test")
        pipeline = Pipeline(through, worker)
        batch = pipeline.submit(mentors(5))
        pipeline.drain()
        assert pipeline.status(batch).batch.counts.completed == 5
        worker.dispose()
        pipeline.api.dispose()


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_row_57_doctor_finds_a_pooler_that_changes_servers(sound: Settings, mode: str) -> None:
    with pooled(sound, pool_mode=mode) as settings:
        found = [finding for finding in wrong(settings) if "pool_mode = session" in (finding.fix or "")]
    assert found, "doctor did not find the pooler"
    assert all(finding.state in (State.UNSAFE, State.UNREACHABLE) for finding in found)


def test_row_57_doctor_finds_a_pooler_that_resets_values(sound: Settings) -> None:
    # The server's values come back between two transactions.
    with pooled(sound, pool_mode="transaction", server_reset_query_always="1", default_pool_size="1") as settings:
        assert any("pool_mode = session" in (finding.fix or "") for finding in wrong(settings))
