"""Fills in the chapter of activities that were registered before activities had one, a chunk at a time, without blocking writes."""

from functools import partial
from uuid import UUID

from sqlalchemy import Connection, Engine

from orchestrator.storage.database import transact
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/storage/sql/chapters.sql")

_FILL = _SQL["fill"].text()

# A chunk's locks are held for some tens of milliseconds. (10,000 took 0.3 s.)
_CHUNK = 2_000
_FIRST = UUID(int=0)
# A revocation locks activities in another order. PostgreSQL may abort either of the two, and it is then retried.
_TRY_FOR_S = 60.0


def fill_chapters(engine: Engine) -> None:
    """Gives each activity without a chapter its mentor's present chapter. An activity whose mentor no longer exists stays without.

    May be run any number of times, and stopped at any moment.
    """
    after: UUID | None = _FIRST
    while after is not None:
        after = transact(engine, partial(_fill, after=after), give_up_after_s=_TRY_FOR_S)


def _fill(connection: Connection, *, after: UUID) -> UUID | None:
    last: UUID | None = connection.execute(_FILL, {"after": after, "chunk": _CHUNK}).scalar_one()
    return last
