"""A primary that stood still while its standby was promoted, and that runs again: nobody believes what it says."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from compose.embedded.infrastructure import Infrastructure
from compose.embedded.layout import CLUSTER
from compose.embedded.postgres import PostgresServer
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine, transact
from tests.support.waiting import PATIENCE_S

PRIMARY, STANDBY = "postgres-1", "postgres-2"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Infrastructure]:
    """A primary and its synchronous standby, which nothing promotes by itself."""
    servers = Infrastructure(tmp_path / "home", kafka_bootstrap_servers="127.0.0.1:1", layout=CLUSTER)
    with servers:
        yield servers


def opened(servers: Infrastructure, name: str) -> Engine:
    settings = Settings(database_url=SecretStr(servers.endpoints.postgres_url))
    return create_database_engine(settings.owner_url, settings, connections=2, application_name=name)


def promote(servers: Infrastructure) -> None:
    standby = servers.services[STANDBY]
    assert isinstance(standby, PostgresServer)
    connection = psycopg2.connect(standby.url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_promote()")
        assert cursor.fetchone() == (True,)
    connection.close()


def add(connection: Connection) -> None:
    connection.execute(text("INSERT INTO noted VALUES (1)"))


def number(connection: Connection) -> int:
    return int(connection.execute(text("SELECT count(*) FROM noted")).scalar_one())


def test_row_80_a_former_primary_is_not_believed(pair: Infrastructure) -> None:
    before, after = opened(pair, "before"), opened(pair, "after")
    transact(before, lambda connection: connection.execute(text("CREATE TABLE noted (number int)")))
    transact(before, add)
    with before.connect() as one, before.connect() as other:
        assert number(one) == number(other) == 1
    primary = pair.pids[PRIMARY]
    runs = 0

    def read_meanwhile(connection: Connection) -> int:
        nonlocal runs
        runs += 1
        found = number(connection)
        if runs == 1:
            # It accepts no new session, and the sessions from before go on.
            os.kill(primary, signal.SIGSTOP)
            promote(pair)
            transact(after, add, give_up_after_s=PATIENCE_S)
        return found

    try:
        # What was read from the former primary is read again from the new one.
        assert transact(before, read_meanwhile, give_up_after_s=PATIENCE_S) == 2
        assert runs == 2
        # So it is with the sessions that nobody was using.
        with before.connect() as one, before.connect() as other:
            assert number(one) == number(other) == 2
    finally:
        os.kill(primary, signal.SIGCONT)
    # It accepts new sessions again, which would be read-write.
    before.dispose()
    with pytest.raises(OperationalError, match="former primary"):
        before.connect()
    before.dispose()
    after.dispose()
