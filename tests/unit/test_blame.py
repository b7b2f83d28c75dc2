"""The cause of each database error. A record is blamed only for errors that it can cause."""

import re

import psycopg2
import pytest
from psycopg2 import errorcodes
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from orchestrator.storage.blame import (
    Blame,
    TransientError,
    blame,
    is_environments,
    is_transient,
    kind_of,
    spoils_pool,
    spoils_session,
)


def wrapped(error: BaseException, *, is_lost: bool = False) -> DBAPIError:
    return DBAPIError("SELECT", None, error, connection_invalidated=is_lost)


def with_code(code: str) -> DBAPIError:
    # psycopg2 sets the code only of errors that the server sends.
    return wrapped(type("Coded", (psycopg2.DatabaseError,), {"pgcode": code})("said by the database"))


# All but success and warnings.
EVERY_CODE = sorted(
    {code for code in vars(errorcodes).values() if isinstance(code, str) and re.fullmatch("(?!0[012])[0-9A-Z]{5}", code)}
)


@pytest.mark.parametrize("code", EVERY_CODE)
def test_only_classes_22_and_23_blame_a_record(code: str) -> None:
    found = blame(with_code(code))
    assert (found is Blame.RECORD) == code.startswith(("22", "23"))
    assert found is not Blame.BUG


@pytest.mark.parametrize(
    "code",
    [
        "25006",
        "08006",
        "08P01",
        "28P01",
        "53100",
        "53300",
        "57P01",
        "57P02",
        "57P03",
        "57P05",
        "58030",
        "25P02",
        "25P03",
        "26000",
        "0A000",
        "3D000",
        "F0000",
    ],
)
def test_a_passing_error_is_retried_forever(code: str) -> None:
    error = with_code(code)
    assert blame(error) is Blame.PASSING
    assert is_transient(error)
    assert is_environments(error)


@pytest.mark.parametrize("code", ["40001", "40P01", "55P03"])
def test_a_lock_is_waited_for(code: str) -> None:
    assert blame(with_code(code)) is Blame.LOCKED
    assert not spoils_session(code)


@pytest.mark.parametrize("code", ["57014", "42501", "42P01", "42P05", "3F000", "XX000", "XX001", "P0001", "25001"])
def test_a_lasting_error_of_the_environment_is_not_retried_at_once(code: str) -> None:
    error = with_code(code)
    assert blame(error) is Blame.LASTING
    assert not is_transient(error)
    assert is_environments(error)


def test_errors_without_a_code() -> None:
    assert blame(wrapped(psycopg2.OperationalError("server closed the connection unexpectedly"))) is Blame.PASSING
    assert (
        blame(wrapped(psycopg2.DatabaseError("error with status PGRES_TUPLES_OK and no message from the libpq"))) is Blame.PASSING
    )
    assert blame(wrapped(psycopg2.InterfaceError("connection already closed"))) is Blame.PASSING
    assert blame(wrapped(psycopg2.ProgrammingError("can't adapt type"), is_lost=True)) is Blame.PASSING
    assert blame(wrapped(psycopg2.ProgrammingError("can't adapt type"))) is Blame.BUG
    assert blame(wrapped(psycopg2.DataError("integer out of range"))) is Blame.RECORD
    assert blame(PoolTimeoutError("no connection became free")) is Blame.PASSING
    assert blame(TransientError("a rival decided first")) is Blame.RIVAL


def test_values_that_the_driver_cannot_send() -> None:
    for error in (
        ValueError("NUL"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        OverflowError("too large"),
    ):
        assert blame(StatementError("failed", "INSERT", None, error)) is Blame.RECORD
    # The same types from our own code mean a bug of ours.
    assert blame(ValueError("an impossible move")) is Blame.BUG
    assert blame(StatementError("failed", "INSERT", None, KeyError("a parameter is missing"))) is Blame.BUG
    assert blame(KeyError("missing")) is Blame.BUG


def test_which_errors_end_the_session() -> None:
    assert [code for code in ("22P02", "23505", "40P01", "57014", "26000") if spoils_session(code)] == []
    assert [code for code in ("25006", "42P05", "0A000", "25P02", "42501", "57P01") if not spoils_session(code)] == []
    assert [code for code in ("25006", "57P01", "42501", "42P05") if spoils_pool(code)] == ["25006", "57P01"]
    assert [code for code in ("57P03", "08006", "57014", "53300", "40001", "25P02") if spoils_pool(code)] == ["57P03", "08006"]
    assert [code for code in ("40001", "55P03", "22P02", "23503", "53100", "08006", "XX000") if not spoils_session(code)] == [
        "40001",
        "55P03",
        "22P02",
        "23503",
    ]


def test_an_error_is_described_without_its_values() -> None:
    values = psycopg2.DataError("invalid input: a private note")
    assert kind_of(with_code("40P01")) == "Coded 40P01"
    assert kind_of(wrapped(values)) == "DataError"
    assert kind_of(StatementError("a private note", "INSERT", None, ValueError("a private note"))) == "ValueError"
    assert kind_of(ValueError("a private note")) == "ValueError"
