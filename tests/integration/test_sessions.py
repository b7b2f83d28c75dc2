"""A database session: its limits and formats, its transactions, and the text that goes through it."""

import contextlib
import ctypes
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import psycopg2
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InternalError

from orchestrator.batches.repository import OutcomeKey
from orchestrator.process.settings import Settings
from orchestrator.storage import arrays
from orchestrator.storage.connecting import forget_shell, open_engine
from orchestrator.storage.database import ask, begin, create_database_engine, transact
from orchestrator.storage.locks import share_batches, take_batches
from orchestrator.storage.outcomes import command_states
from orchestrator.storage.prepared import Prepared, RolledBackError
from tests.support.pipeline import ORGANIZATION, Pipeline, mentors
from tests.support.waiting import PATIENCE_S, eventually

SESSIONS = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")


def sessions(engine: Engine, name: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(SESSIONS, {"name": name}).scalar_one())


def test_each_limit_has_the_value_of_its_setting(settings: Settings) -> None:
    limited = settings.model_copy(
        update={"statement_timeout_ms": 11_000, "lock_timeout_ms": 7_000, "idle_in_transaction_timeout_ms": 13_000}
    )
    engine = create_database_engine(limited.worker_url, limited, connections=1, application_name="limits")
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_isolation", "TimeZone")
    with engine.connect() as connection:
        shown = [connection.execute(text(f"SHOW {name}")).scalar_one() for name in names]
        named = connection.execute(
            text("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")
        ).scalar_one()
    engine.dispose()
    assert shown == ["11s", "7s", "13s", "read committed", "UTC"]
    assert named == "limits"


def test_a_vanished_server_is_noticed_within_half_a_minute(engine: Engine) -> None:
    """As configured in the operating system: by probes on a silent connection, and by data that is not acknowledged."""
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        with socket.socket(fileno=os.dup(driver.fileno())) as tcp:
            is_probed = tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle, interval, count, unacknowledged_ms = (
                tcp.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            )
        waited_s = int(driver.info.dsn_parameters["connect_timeout"])
    assert is_probed
    assert 5 <= idle + count * interval <= 30
    assert 5_000 <= unacknowledged_ms <= 30_000
    assert 2 <= waited_s <= 10


def test_there_are_no_more_sessions_than_connections(settings: Settings, engine: Engine) -> None:
    limited = create_database_engine(settings.worker_url, settings, connections=2, application_name="limited")
    with ThreadPoolExecutor(1) as threads:
        with limited.connect(), limited.connect():
            third = threads.submit(lambda: limited.connect().close())
            with pytest.raises(TimeoutError):
                third.result(0.2)
            assert sessions(engine, "limited") == 2
        third.result(PATIENCE_S)
    assert sessions(engine, "limited") == 2
    limited.dispose()


def test_a_session_that_cannot_be_set_up_is_closed(settings: Settings, engine: Engine) -> None:
    broken = open_engine(settings.worker_url, application_name="broken", session={"statement_timeout": "nonsense"})
    with pytest.raises(DBAPIError, match="statement_timeout") as kept:
        broken.connect()
    assert kept.value
    eventually(lambda: sessions(engine, "broken") == 0)


def test_a_new_session_has_no_transaction_open(settings: Settings, engine: Engine) -> None:
    made = open_engine(settings.worker_url, application_name="made")
    with made.connect(), engine.connect() as connection:
        state = text("SELECT state FROM pg_stat_activity WHERE application_name = 'made'")
        eventually(lambda: connection.execute(state).scalar_one() == "idle")
    made.dispose()


class _Option(ctypes.Structure):
    """`PQconninfoOption` of libpq."""

    _fields_ = (
        *((name, ctypes.c_char_p) for name in ("keyword", "envvar", "compiled", "val", "label", "dispchar")),
        ("dispsize", ctypes.c_int),
    )


def variables_of_libpq() -> set[str]:
    """The variables of the libpq that the driver uses. It lists those that are the default of an option."""
    assert psycopg2.__libpq_version__
    path = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libpq" in line)
    libpq = ctypes.CDLL(path)
    libpq.PQconndefaults.restype = ctypes.POINTER(_Option)
    options = libpq.PQconndefaults()
    found, index = set(), 0
    while options[index].keyword:
        if options[index].envvar:
            found.add(options[index].envvar.decode())
        index += 1
    # Documented, but no option's default. They are read when a connection begins.
    return found | {"PGTZ", "PGDATESTYLE", "PGGEQO", "PGREQUIRESSL"}


SECRETS = {"PGPASSWORD", "PGPASSFILE"}
"""A URL may leave the password to these."""


@pytest.mark.parametrize(
    ("url", "is_elsewhere"),
    [
        ("postgresql://localhost/db", False),
        ("postgresql://127.0.0.1:1/db", False),
        ("postgresql:///db", False),
        ("postgresql://db.example/db", True),
        ("postgresql:///db?host=db.example", True),
        ("postgresql:///db?host=127.0.0.1:1&host=127.0.0.1:2", False),
        ("postgresql:///db?host=127.0.0.1:1&host=db.example", True),
        ("postgresql:///db?service=central", True),
    ],
)
def test_variables_of_libpq_are_ignored_except_for_security(
    url: str, monkeypatch: pytest.MonkeyPatch, *, is_elsewhere: bool
) -> None:
    """The URL says where the database is and who connects. Only the security of a remote server comes from the shell."""
    known = variables_of_libpq()
    assert {"PGHOST", "PGSSLMODE"} <= known
    for name in known:
        monkeypatch.setenv(name, "x")
    forget_shell(make_url(url))
    kept = {name for name in known if name in os.environ} - SECRETS
    secures = {name for name in known if name.startswith(("PGSSL", "PGGSS", "PGREQUIRE", "PGKRB", "PGCHANNEL"))}
    assert kept - {"PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION"} == (secures if is_elsewhere else set())
    assert set(os.environ) >= SECRETS


def test_a_snapshot_sees_one_state_and_is_read_only(pipeline: Pipeline) -> None:
    batches = text("SELECT count(*) FROM orchestrator.batch")

    def look_twice(connection: Connection) -> tuple[int, int]:
        first = connection.execute(batches).scalar_one()
        pipeline.submit(mentors(1))
        return first, connection.execute(batches).scalar_one()

    assert transact(pipeline.engine, look_twice, snapshot=True) == (0, 0)
    assert transact(pipeline.engine, look_twice) == (1, 2)
    delete = text("DELETE FROM orchestrator.batch")
    with pytest.raises(InternalError, match="read-only"):
        transact(pipeline.engine, lambda connection: connection.execute(delete), snapshot=True, give_up_after_s=0.1)


BATCH_IDS = Prepared("SELECT batch_id FROM orchestrator.batch")


def test_the_session_has_transactions_again_after_a_single_question(pipeline: Pipeline, settings: Settings) -> None:
    pipeline.submit(mentors(1))
    one = create_database_engine(settings.worker_url, settings, connections=1, application_name="one")

    def fail(connection: Connection) -> None:
        connection.execute(text("DELETE FROM orchestrator.batch"))
        raise LookupError

    def refuse(_: Connection) -> None:
        raise LookupError

    assert len(ask(one, BATCH_IDS.scalars, organizations=[ORGANIZATION])) == 1
    with pytest.raises(LookupError):
        transact(one, fail)
    assert len(transact(one, BATCH_IDS.scalars)) == 1
    with pytest.raises(LookupError):
        ask(one, refuse, organizations=[ORGANIZATION])
    with pytest.raises(LookupError):
        transact(one, fail)
    assert len(transact(one, BATCH_IDS.scalars)) == 1
    one.dispose()


NUMBERS = Prepared("SELECT number FROM numbers ORDER BY number")
ADD = Prepared("INSERT INTO numbers VALUES (CAST(:number AS integer))")


def test_a_statement_without_a_result_is_sent_before_the_next_and_at_the_latest_with_the_commit(
    settings: Settings, engine: Engine
) -> None:
    one = create_database_engine(settings.worker_url, settings, connections=1, application_name="one")
    with one.begin() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE numbers (number integer PRIMARY KEY)"))
    with begin(one) as connection:
        ADD.later(connection, {"number": 1})
        assert NUMBERS.scalars(connection) == [1]
        ADD.later(connection, {"number": 2})
        assert connection.execute(text("SELECT count(*) FROM numbers")).scalar_one() == 2
        ADD.later(connection, {"number": 3})
    assert transact(one, NUMBERS.scalars) == [1, 2, 3]

    def refused(connection: Connection) -> None:
        ADD.later(connection, {"number": 4})
        raise LookupError

    def doubled(connection: Connection) -> None:
        connection.execute(text("DELETE FROM numbers WHERE number = 1"))
        ADD.later(connection, {"number": 4})
        ADD.later(connection, {"number": 2})

    def doubled_early(connection: Connection) -> None:
        doubled(connection)
        NUMBERS.scalars(connection)

    def doubled_before_a_text(connection: Connection) -> None:
        doubled(connection)
        connection.execute(text("SELECT 1"))

    with pytest.raises(LookupError):
        transact(one, refused)
    for work in (doubled, doubled_early, doubled_before_a_text):
        with pytest.raises(IntegrityError):
            transact(one, work)
        assert transact(one, NUMBERS.scalars) == [1, 2, 3]

    def added(connection: Connection) -> None:
        ADD.later(connection, {"number": 4})

    def added_before_a_text(connection: Connection) -> None:
        ADD.later(connection, {"number": 5})
        connection.execute(text("SELECT 1"))

    # A pooler may drop what a session has prepared.
    for work in (added, added_before_a_text):
        transact(one, lambda connection: connection.execute(text("DEALLOCATE ALL")))
        transact(one, work)
    assert transact(one, NUMBERS.scalars) == [1, 2, 3, 4, 5]
    one.dispose()


def test_a_session_that_is_given_up_takes_nothing_from_the_next_one_in_its_place(settings: Settings) -> None:
    one = create_database_engine(settings.worker_url, settings, connections=1, application_name="one")
    with contextlib.ExitStack() as second_transaction:

        def lose_the_session() -> Connection:
            with contextlib.suppress(LookupError), begin(one) as first:
                first.execute(text("SELECT 1"))
                first.invalidate()
                # Its place in the pool is free before its transaction has ended.
                second = second_transaction.enter_context(begin(one))
                second.execute(text("CREATE TEMPORARY TABLE numbers (number integer PRIMARY KEY)"))
                ADD.later(second, {"number": 1})
                raise LookupError
            return second

        second = lose_the_session()
        assert second.execute(text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")).scalar_one()
        ADD.later(second, {"number": 2})
    assert transact(one, NUMBERS.scalars) == [1, 2]
    one.dispose()


def test_a_transaction_that_went_on_after_a_failed_statement_is_not_taken_for_committed(settings: Settings) -> None:
    one = create_database_engine(settings.worker_url, settings, connections=1, application_name="one")
    with pytest.raises(RolledBackError, match="ROLLBACK"), begin(one) as connection, pytest.raises(DataError):
        connection.execute(text("SELECT 1 / 0"))
    assert transact(one, lambda connection: connection.execute(text("SELECT 1")).scalar_one()) == 1
    one.dispose()


def test_the_time_of_decisions_is_after_the_lock_that_was_waited_for(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(1))
    key = OutcomeKey(str(batch_id), 0, 0)

    def decide(connection: Connection) -> datetime | None:
        share_batches(connection, [batch_id])
        return command_states(connection, [key])[0]

    # The statements are prepared, so that the lock and the question come with one message.
    transact(pipeline.engine, decide)
    with pipeline.engine.connect() as holder, ThreadPoolExecutor(1) as pool:
        take_batches(holder, [batch_id])
        deciding = pool.submit(transact, pipeline.engine, decide)
        waiting = text("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory')")
        eventually(lambda: holder.execute(waiting).scalar_one())
        changed_at = holder.execute(text("SELECT clock_timestamp()")).scalar_one()
        holder.commit()
        decided_at = deciding.result(PATIENCE_S)
        assert decided_at is not None
        assert decided_at > changed_at


def test_the_api_sees_the_named_organizations_in_a_transaction_and_in_a_question(pipeline: Pipeline) -> None:
    pipeline.submit(mentors(1))
    for see in (ask, transact):
        for named, seen in (([ORGANIZATION], 1), (["org-other", ORGANIZATION], 1), (["org-other"], 0), ([], 0)):
            assert len(see(pipeline.api, BATCH_IDS.scalars, organizations=named)) == seen
    assert transact(pipeline.api, BATCH_IDS.scalars) == []


ECHO = Prepared("SELECT CAST(:texts AS text[]), CAST(:numbers AS bigint[])")
TEXTS = st.lists(st.none() | st.text(st.characters(exclude_characters="\0", codec="utf-8")), max_size=20)
ODD = [None, "", "NULL", "null", "{}", "{", '"', "\\", '\\"', "a,b", " blanks ", "\n", "'", "%s", ":name", "\N{PILE OF POO}"]


def test_arrays_are_received_as_they_were_sent(engine: Engine) -> None:
    with engine.connect() as connection:

        @hypothesis_settings(max_examples=40, deadline=None)
        @given(texts=TEXTS, numbers=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
        def echoes(texts: list[str | None], numbers: list[int]) -> None:
            for sent in (texts, [*ODD, *texts]):
                for array in (arrays.texts(sent), arrays.long_texts(sent)):
                    [row] = ECHO.rows(connection, {"texts": array, "numbers": arrays.plain(numbers)})
                    assert row == (sent, numbers)

        echoes()
        with pytest.raises(DataError):
            ECHO.rows(connection, {"texts": "{", "numbers": "{}"})
