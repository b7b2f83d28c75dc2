"""Errors in logs: what an operator needs, and no value of a row."""

import contextlib

import psycopg2
import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError, OperationalError

from orchestrator.process.error_text import without_values
from tests.support.ports import free_port


def test_a_server_that_is_not_there_is_named_as_the_reason() -> None:
    engine = create_engine(f"postgresql+psycopg2://somebody:secret@127.0.0.1:{free_port()}/people")
    with pytest.raises(OperationalError) as raised:
        engine.connect()
    said = without_values(raised.value)
    assert said.startswith("OperationalError(OperationalError Connection refused) at ")
    for value in ("somebody", "secret", "people", "127.0.0.1"):
        assert value not in said


SERVER = 'connection to server at "anna" (10.0.0.5), port 5432 failed:'
FATAL = f"{SERVER} FATAL: "


def caught(message: str) -> DBAPIError:
    error = OperationalError("SELECT 1", {}, psycopg2.OperationalError(message))
    with contextlib.suppress(OperationalError):
        raise error
    return error


@pytest.mark.parametrize(
    ("message", "reasons"),
    [
        ('FATAL:  password authentication failed for user "anna"', "password authentication failed"),
        ('host "a": Connection refused\nhost "b": timeout expired\n', "Connection refused, timeout expired"),
        ("about anna", "None"),
        # What libpq says.
        (
            'could not translate host name "anna" to address: Name or service not known',
            "could not translate host name",
        ),
        (f"{SERVER} Network is unreachable\n\tIs the server running on that host?", "Network is unreachable"),
        (f"{SERVER} No route to host\n\tIs the server running on that host?", "No route to host"),
        (f"{SERVER} Connection timed out\n\tIs the server running on that host?", "Connection timed out"),
        (f"{SERVER} SSL error: certificate verify failed", "certificate verify failed"),
        (f"{SERVER} server does not support SSL, but SSL was required", "server does not support SSL"),
        (f"{SERVER} session is read-only", "session is read-only"),
        (f"{SERVER} server is in hot standby mode", "server is in hot standby mode"),
        (
            "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally",
            "server closed the connection unexpectedly",
        ),
        ("SSL connection has been closed unexpectedly", "SSL connection has been closed unexpectedly"),
        (
            "could not receive data from server: Connection timed out",
            "Connection timed out, could not receive data from server",
        ),
        ("connection already closed", "connection already closed"),
        # What the server says.
        (f'{FATAL} no pg_hba.conf entry for host "10.0.0.9", user "anna", no encryption', "no pg_hba.conf entry"),
        (f'{FATAL} database "anna" does not exist', "does not exist"),
        (f'{FATAL} role "anna" is not permitted to log in', "is not permitted to log in"),
        (f"{FATAL} sorry, too many clients already", "too many clients already"),
        (
            f"{FATAL} remaining connection slots are reserved for roles with the SUPERUSER attribute",
            "remaining connection slots are reserved",
        ),
        (f"{FATAL} the database system is starting up", "the database system is starting up"),
        (f"{FATAL} the database system is shutting down", "the database system is shutting down"),
        (f"{FATAL} the database system is in recovery mode", "the database system is in recovery mode"),
        (
            f"{FATAL} the database system is not yet accepting connections\nDETAIL:  Consistent recovery state has not been yet reached.",
            "the database system is not yet accepting connections",
        ),
    ],
)
def test_only_known_words_of_a_message_are_written(message: str, reasons: str) -> None:
    said = without_values(caught(message))
    assert said.startswith(f"OperationalError(OperationalError {reasons}) at ")
    assert "anna" not in said
