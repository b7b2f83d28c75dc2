"""A primary whose standby was promoted, and that goes on: nobody believes what it says."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
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
from orchestrator.storage.database import ask, create_database_engine, transact
from orchestrator.storage.migrate import upgrade
from orchestrator.storage.relay_wakeup import RelayWaker
from tests.integration.test_relay import running
from tests.support.api_server import KEY, running_api
from tests.support.crashes import kill, restart
from tests.support.publishing import SettledAtOnce
from tests.support.waiting import HELD_S, PATIENCE_S, eventually

PRIMARY, STANDBY = "postgres-1", "postgres-2"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Infrastructure]:
    """A primary and its synchronous standby, which nothing promotes by itself."""
    servers = Infrastructure(tmp_path / "home", kafka_bootstrap_servers="127.0.0.1:1", layout=CLUSTER)
    with servers:
        yield servers


def server(servers: Infrastructure, name: str) -> PostgresServer:
    found = servers.services[name]
    assert isinstance(found, PostgresServer)
    return found


def settings_of(servers: Infrastructure, *names: str) -> Settings:
    """Once the standby is promoted, new sessions are its own: unless names are given, it comes first in the URL. The former primary still
    accepts any."""
    listed = [server(servers, name) for name in names or (STANDBY, PRIMARY)]
    return Settings(
        database_url=SecretStr(listed[0].url_of(listed)),
        kafka_bootstrap_servers="127.0.0.1:1",
        jwt_hs256_key=SecretStr(KEY),
        # What a test keeps open is not ended before the test is.
        idle_in_transaction_timeout_ms=int(1000 * HELD_S),
        relay_poll_ms=50,
        api_watch_poll_ms=50,
    )


def opened(servers: Infrastructure, name: str, *names: str) -> Engine:
    settings = settings_of(servers, *names)
    return create_database_engine(settings.owner_url, settings, connections=3, application_name=name)


def promote(servers: Infrastructure) -> None:
    connection = psycopg2.connect(server(servers, STANDBY).url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_promote()")
        assert cursor.fetchone() == (True,)
    connection.close()


def stop(servers: Infrastructure, name: str) -> None:
    """Ends a server that nobody starts again. One that is killed would leave shared memory behind."""
    servers.children[name].signal_stop()
    servers.children[name].wait(time.monotonic() + PATIENCE_S)


def add(connection: Connection) -> None:
    connection.execute(text("INSERT INTO noted VALUES (1)"))


def number(connection: Connection) -> int:
    return int(connection.execute(text("SELECT count(*) FROM noted")).scalar_one())


def backend(connection: Connection) -> int:
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_row_80_a_former_primary_is_not_believed(pair: Infrastructure) -> None:
    before, after = opened(pair, "before"), opened(pair, "after")
    transact(before, lambda connection: connection.execute(text("CREATE TABLE noted (number int)")))
    transact(before, add)
    runs: Counter[str] = Counter()
    stopped: list[int] = []
    goes_on = threading.Timer(PATIENCE_S, lambda: os.kill(stopped[0], signal.SIGCONT))

    def reading(name: str, meanwhile: Callable[[], object]) -> Callable[[Connection], int]:
        """Reads the number of rows. The first time, something happens behind that."""

        def read(connection: Connection) -> int:
            found = number(connection)
            runs[name] += 1
            if runs[name] == 1:
                meanwhile()
            if name == "stands still" and runs[name] == 1:
                stopped.append(backend(connection))
                os.kill(stopped[0], signal.SIGSTOP)
                goes_on.start()
            if name in ("not there", "one statement") and found == 1:
                raise LookupError("there is no second one")
            return found

        return read

    def another_is_primary() -> None:
        promote(pair)
        transact(after, add, give_up_after_s=PATIENCE_S)

    one_statement = reading("one statement", another_is_primary)
    not_there = reading("not there", lambda: ask(before, one_statement, organizations=[], give_up_after_s=PATIENCE_S))
    stands_still = reading("stands still", lambda: transact(before, not_there, give_up_after_s=PATIENCE_S))
    try:
        # What was read from the former primary is read again from the new one. So is what was not found.
        assert transact(before, stands_still, give_up_after_s=PATIENCE_S) == 2
        assert runs == {"one statement": 2, "not there": 2, "stands still": 2}
        assert goes_on.is_alive(), "a server that stands still must not be waited for"
        # So it is with the sessions that nobody was using.
        with before.connect() as one, before.connect() as other:
            assert number(one) == number(other) == 2
    finally:
        goes_on.cancel()
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    # It was away for a moment, and comes first in this URL.
    ordered = opened(pair, "ordered", PRIMARY, STANDBY)
    kill(pair, PRIMARY)
    assert transact(ordered, number, give_up_after_s=PATIENCE_S) == 2
    ordered.dispose()
    restart(pair, PRIMARY)
    assert transact(ordered, number, give_up_after_s=0) == 2
    # Alone it is refused, although it accepts changes.
    stop(pair, STANDBY)
    ordered.dispose()
    with pytest.raises(OperationalError, match="former primary"):
        ordered.connect()
    for engine in (before, after, ordered):
        engine.dispose()


class Acknowledged(SettledAtOnce):
    """A broker that accepts everything."""

    def publish(self, events: object) -> None:
        pass


def sessions(of: PostgresServer) -> set[str]:
    connection = psycopg2.connect(of.url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT application_name FROM pg_stat_activity WHERE datname = current_database()")
        names = {name for (name,) in cursor.fetchall()}
    connection.close()
    return names


def test_row_80_sessions_that_are_never_given_back_leave_a_former_primary(pair: Infrastructure) -> None:
    """Those that listen or own something. And a session that began on the standby, and so before its promotion, is replaced."""
    settings, primary, standby = settings_of(pair), server(pair, PRIMARY), server(pair, STANDBY)
    upgrade(settings)
    staying = {"bulkreg relay", "bulkreg waker", "bulkreg api listener"}
    on_standby = create_database_engine(
        settings.owner_url.set(query={}, host="127.0.0.1", port=standby.port), settings, connections=2, application_name="reader"
    )
    with on_standby.connect() as connection:
        early = backend(connection)
    with closing(RelayWaker(settings.worker_url, settings)) as waker, running_api(settings), running(settings, Acknowledged()):

        def are_at(of: PostgresServer) -> bool:
            waker.wake()  # as each commit does
            return staying <= sessions(of)

        eventually(lambda: are_at(primary), what="the sessions that stay are at the primary")
        promote(pair)
        # Any session of the process shows it the new timeline.
        after = opened(pair, "after")
        transact(after, backend, give_up_after_s=PATIENCE_S)
        after.dispose()
        eventually(lambda: are_at(standby), what="the sessions that stay are at the new primary")
        eventually(lambda: not staying & sessions(primary), what="none of them is left at the former one")
    for _ in range(2):
        with on_standby.connect() as one, on_standby.connect() as other:
            pids = {backend(one), backend(other)}
    assert early not in pids
    on_standby.dispose()
