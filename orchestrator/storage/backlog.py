"""How much is accepted and not done yet."""

from typing import NamedTuple

from sqlalchemy import Connection, text

_READ = text("SELECT pending, folded FROM orchestrator.backlog()")


class Backlog(NamedTuple):
    """Items of all organizations: those that wait for their outcome to be folded, and (rising) those that were ever folded."""

    pending: int
    folded: int


def read_backlog(connection: Connection) -> Backlog:
    """As it stands now; an index scan over the running batches."""
    return Backlog(*connection.execute(_READ).one())
