"""Requests to forget a person, as the API and the command line make and read them (docs/http.md)."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import orjson
from sqlalchemy import Connection, Row

from orchestrator.batches.errors import ConflictError, ForbiddenError, NotFoundError
from orchestrator.batches.model import Actor, Role
from orchestrator.directory.files import CLOSED_ROLE
from orchestrator.directory.known_people import FIRST_SOUGHT, is_known
from orchestrator.storage.people import ForgettingKey, read_forgotten
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/directory/sql/forgetting_requests.sql")

_ASK = _SQL["ask"].text()
_OPEN = _SQL["open"].text()
_FIND = _SQL["find"].text()
_RUNS = _SQL["runs"].text()
_STOP_SEEKING = _SQL["stop_seeking"].text()
_COORDINATES = _SQL["coordinates"].text()

# The word is not quoted: it may be a name.
NOBODY_HAS_IT = (
    "Nobody has this id: no mentor in the directory, and no record, edit or request. Check the spelling, also capital letters; "
    "somebody who was forgotten is not known any more."
)
"""Why a request is refused, or ends without a change."""

_MAY_FORGET = frozenset({Role.ADMIN, Role.SERVICE})
_MAY_LOOK = _MAY_FORGET | {Role.AUDITOR}


@dataclass(frozen=True, slots=True)
class ForgettingView:
    """A request, and what has become of it."""

    forgetting_id: UUID
    pseudonym: str | None
    requested_by: str
    requested_at: datetime
    changed_rows: int
    done_at: datetime | None


class ForgettingRequests:
    """The requests of an organization, in the transaction of the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ask(
        self, actor: Actor, mentor_id: str, *, key: ForgettingKey | None = None, also_unknown: bool = False
    ) -> ForgettingView:
        """Asks to forget a person; returns the open request if there is one. The directory or a record must have the id. In large tables the
        sweeper finds out whether one has.

        With the key, somebody who was forgotten before is known too, so that texts that were written since are searched again. With
        `also_unknown` the id may be nobody's, also for a request that is open already: a database that was restored may lack the person, whom
        the next import would bring back.
        Raises ForbiddenError (also for the caller's own id: nobody removes themselves from the audit), ConflictError (nobody has the id, a
        running batch has an item for the mentor, or the id is a coordinator's).
        """
        _check(actor, _MAY_FORGET)
        if mentor_id == actor.subject:
            detail = "This id is your own, and says in the audit what you did. Another administrator has to ask for it."
            raise ForbiddenError("role_may_not", detail)
        person = {"organization_id": actor.organization_id, "mentor_id": mentor_id}
        if also_unknown:
            self._connection.execute(_STOP_SEEKING, person)
        # Somebody who is being forgotten is soon in no table any more.
        if (being_forgotten := self._connection.execute(_OPEN, person).one_or_none()) is not None:
            return _view(being_forgotten)
        if is_coordinator(self._connection, person):
            detail = "This id is also a coordinator's. Close the coordinator first (bulkreg directory import --prune)."
            raise ConflictError("mentor_coordinates", detail)
        if self._connection.execute(_RUNS, person).scalar_one():
            detail = "A running batch has an item for this mentor. Wait until it has finished, or cancel it."
            raise ConflictError("mentor_in_running_batch", detail)
        is_known = also_unknown or self._is_known(person, key)
        if is_known is False:
            raise ConflictError("mentor_unknown", NOBODY_HAS_IT)
        place = None if is_known else orjson.dumps(FIRST_SOUGHT).decode()
        values = {"forgetting_id": uuid4(), "requested_by": actor.subject, "channel": actor.channel, "place": place}
        row = None
        while row is None:
            # The open request may be done between the two statements; then a new one is stored.
            self._connection.execute(_ASK, {**person, **values})
            row = self._connection.execute(_OPEN, person).one_or_none()
        return _view(row)

    def _is_known(self, person: Mapping[str, str], key: ForgettingKey | None) -> bool | None:
        """Whether the id is a person's; None if that takes too long to find out. Otherwise a typing mistake would erase the word from every
        text, and be recorded as an erasure."""
        names = (person["organization_id"], person["mentor_id"])
        if key is not None and read_forgotten(self._connection, key).pseudonym(*names) is not None:
            return True
        return is_known(self._connection, *names)

    def find(self, actor: Actor, forgetting_id: UUID) -> ForgettingView:
        """Returns a request. Raises ForbiddenError, NotFoundError."""
        _check(actor, _MAY_LOOK)
        found = {"organization_id": actor.organization_id, "forgetting_id": forgetting_id}
        row = self._connection.execute(_FIND, found).one_or_none()
        if row is None:
            raise NotFoundError("forgetting")
        return _view(row)


def is_coordinator(connection: Connection, person: Mapping[str, str]) -> bool:
    """Whether the person, given by `organization_id` and `mentor_id`, is also a coordinator who is not closed."""
    return bool(connection.execute(_COORDINATES, {**person, "closed": CLOSED_ROLE}).scalar_one())


def _check(actor: Actor, roles: Set[Role]) -> None:
    if actor.role not in roles:
        raise ForbiddenError("role_may_not", "Only an administrator can have a mentor forgotten.")


def _view(row: Row[Any]) -> ForgettingView:
    return ForgettingView(
        UUID(row.forgetting_id), row.pseudonym, row.requested_by, row.requested_at, row.changed_rows, row.done_at
    )
