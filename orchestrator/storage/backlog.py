"""How many accepted items are not done yet."""

from typing import NamedTuple

from sqlalchemy import Connection, text

_READ = text("SELECT pending, folded FROM orchestrator.backlog()")


class Backlog(NamedTuple):
    """Items of all organizations: how many wait for their outcome to be folded, and how many were ever folded (this number only rises)."""

    pending: int
    folded: int


def read_backlog(connection: Connection) -> Backlog:
    """The present backlog. Costs an index scan over the running batches."""
    return Backlog(*connection.execute(_READ).one())
