"""When the promotion of a batch is tried again (tests/integration/replay covers what it does)."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import psycopg2
import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from orchestrator.replay import promote as module
from orchestrator.replay.promote import Promoted, promote
from orchestrator.storage.blame import TransientError


def database_error(code: str, *, is_lost: bool = False) -> DBAPIError:
    coded = type("Coded", (psycopg2.DatabaseError,), {"pgcode": code})("said by the database")
    return DBAPIError("SELECT", None, coded, connection_invalidated=is_lost)


ERRORS = {
    "a deadlock": (database_error("40P01"), True),
    "a lock": (database_error("55P03"), True),
    "a rival": (TransientError("somebody was first"), True),
    "a lost connection": (database_error("57P01", is_lost=True), False),
    "a right that is missing": (database_error("42501"), False),
    "a bug": (KeyError("x"), False),
}


@pytest.mark.parametrize(("error", "is_tried_again"), ERRORS.values(), ids=ERRORS)
def test_a_passing_error_is_retried_while_the_rebuilt_batches_still_exist(
    monkeypatch: pytest.MonkeyPatch, error: Exception, is_tried_again: bool
) -> None:
    """They are in temporary tables of the connection's session."""
    begun: list[int] = []

    def begin() -> Any:
        begun.append(len(begun))
        return nullcontext()

    def merge(_merge: object) -> Promoted:
        if len(begun) == 1:
            raise error
        return Promoted.MERGED

    monkeypatch.setattr(module, "BatchMerge", lambda *_: None)
    monkeypatch.setattr(module, "_merge", merge)
    connection = cast("Connection", SimpleNamespace(begin=begin))
    if is_tried_again:
        assert promote(connection, uuid4()) is Promoted.MERGED
        assert begun == [0, 1], "each try must be a transaction of its own"
    else:
        with pytest.raises(type(error)):
            promote(connection, uuid4())
        assert begun == [0]
