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
        ('FATAL:  the database system is starting up of "anna"', "the database system is starting up"),
        ("about anna", "None"),
    ],
)
def test_only_known_words_of_a_message_are_written(message: str, reasons: str) -> None:
    said = without_values(caught(message))
    assert said.startswith(f"OperationalError(OperationalError {reasons}) at ")
    assert "anna" not in said
