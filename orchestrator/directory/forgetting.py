"""Forgets a person: replaces the id by a pseudonym in every table, and erases name and notes (docs/decisions/0045-forgetting.md).

The work is done in pages of a table, a transaction each, which also stores how far it has come. So it may be interrupted anywhere. All rows of
one batch change in the same transaction, under the batch's lock, because `bulkreg verify` compares them.
"""

import itertools
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, Row, text

from orchestrator.directory.importing import wait_for_imports
from orchestrator.directory.person_columns import OF_BATCHES, SEARCHED, TABLES, Holds, Table
from orchestrator.process.actions import Action, log_action
from orchestrator.process.failpoints import Failpoint
from orchestrator.storage import arrays
from orchestrator.storage.database import transact
from orchestrator.storage.notes import NotesOf, erase_notes_of, touch_batches
from orchestrator.storage.people import (
    ForgettingKey,
    ForgettingKeyError,
    ForgottenPeople,
    read_forgotten,
    remember_forgotten,
    spellings,
)
from orchestrator.storage.receipt_appending import forget_person
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.storage.statements import read_statements
from schemas.ids import MAX_POSITIONS, DerivedIds

_SQL = read_statements("orchestrator/directory/sql/forgetting.sql")

_HAS_OPEN = _SQL["has_open"].text()
_OLDEST_S = _SQL["oldest_s"].text()
_TAKE = _SQL["take"].text()
_REMOVE_FROM_DIRECTORY = _SQL["remove_from_directory"].text()
_BEGIN = _SQL["begin"].text()
_MOVE = _SQL["move"].text()
_FINISH = _SQL["finish"].text()
_FOLDED = _SQL["folded"].text()
_KEY_COLUMNS = _SQL["key_columns"].text()
_BUSY = _SQL["busy"].text()
_OWN_ITEMS = _SQL["own_items"].text()

FORGETTING = "forgetting"
"""Who erased the notes of a forgotten person, and through which channel, as the audit records it."""

PAGE_ROWS = 2_000
"""How many rows one transaction looks at."""


@dataclass(frozen=True, slots=True)
class Forgot:
    """What was done: rows that changed, people that are done with, and people that wait for a running batch or an unpublished event."""

    rows: int = 0
    people: int = 0
    waiting: int = 0

    def __bool__(self) -> bool:
        return any((self.rows, self.people, self.waiting))


@dataclass(frozen=True, slots=True)
class _Step:
    """The result of one transaction."""

    forgetting_id: str
    rows: int = 0
    is_done: bool = False
    is_waiting: bool = False


class Forgetter:
    """Works on the open requests. Any number may run; each request is worked on by one of them at a time."""

    def __init__(self, key: ForgettingKey | None, passed: Callable[[Failpoint], None], *, page_rows: int = PAGE_ROWS) -> None:
        self._key = key
        self._passed = passed
        self._page_rows = page_rows

    def work(self, engine: Engine, *, max_steps: int | None = None) -> Forgot:
        """Does so many steps at most, or all. Raises ForgettingKeyError if a request is open and the key is missing or another one."""
        rows = people = 0
        aside: list[str] = []
        for _ in itertools.count() if max_steps is None else range(max_steps):
            step = transact(engine, partial(self._step, aside=aside))
            if step is None:
                break
            self._passed(Failpoint.FORGETTING_AFTER_PAGE)
            if step.is_done:
                log_action(Action.PERSON_FORGOTTEN, role="sweeper", request=step.forgetting_id)
            rows += step.rows
            people += step.is_done
            aside += [step.forgetting_id] if step.is_waiting else []
        return Forgot(rows, people, len(aside))

    def _step(self, connection: Connection, *, aside: Sequence[str]) -> _Step | None:
        if not has_open_request(connection):
            return None
        if self._key is None:
            raise ForgettingKeyError
        # An import that has read who was forgotten finishes first, so that it does not bring somebody back.
        wait_for_imports(connection)
        request = connection.execute(_TAKE, {"aside": list(aside)}).one_or_none()
        if request is None:
            return None
        forgotten = read_forgotten(connection, self._key)
        if request.pseudonym is None:
            return _begin(connection, self._key, request, forgotten)
        return _Search(connection, request, forgotten, self._page_rows).step()


def has_open_request(connection: Connection) -> bool:
    """Whether somebody has asked to forget a person, and that is not done yet."""
    return bool(connection.execute(_HAS_OPEN).scalar_one())


def oldest_request_s(connection: Connection) -> float:
    """How long the oldest open request has waited, in seconds; 0 if none is open."""
    return float(connection.execute(_OLDEST_S).scalar_one())


def _begin(connection: Connection, key: ForgettingKey, request: Row[Any], forgotten: ForgottenPeople) -> _Step:
    person = {"organization_id": request.organization_id, "mentor_id": request.mentor_id}
    name = connection.execute(_REMOVE_FROM_DIRECTORY, person).scalar_one()
    known = forgotten.pseudonym(request.organization_id, request.mentor_id)
    pseudonym = known or f"forgotten-{secrets.token_hex(10)}"
    words = key.words(request.organization_id, request.mentor_id, name)
    remember_forgotten(connection, key, request.organization_id, words, pseudonym)
    connection.execute(_BEGIN, {"forgetting_id": request.forgetting_id, "name": name, "pseudonym": pseudonym})
    return _Step(request.forgetting_id)


class _Search:
    """One page of the search for one person."""

    def __init__(self, connection: Connection, request: Row[Any], forgotten: ForgottenPeople, page_rows: int) -> None:
        self._connection = connection
        self._request = request
        self._forgotten = forgotten
        self._page_rows = page_rows
        self._organization_id: str = request.organization_id
        self._person: dict[str, Any] = {
            "organization_id": request.organization_id,
            "mentor_id": request.mentor_id,
            "pseudonym": request.pseudonym,
            "words": connection.execute(_FOLDED, {"words": _spellings(request.mentor_id, request.name)}).scalar_one(),
        }

    def step(self) -> _Step:
        place = self._request.place or {"table": SEARCHED[0], "after": None}
        name = place["table"]
        keys = self._keys(name)
        bounds, end = self._page(name, keys, place["after"])
        if TABLES[name].of_batch is None:
            rows, is_waiting = self._rewrite(name, bounds, {}), False
        else:
            rows, is_waiting = self._rewrite_batches(name, bounds)
        forgetting_id = self._request.forgetting_id
        if is_waiting:
            # The page is looked at again, when its batches have ended.
            self._connection.execute(_MOVE, {"forgetting_id": forgetting_id, "place": _json(place), "changed_rows": rows})
            return _Step(forgetting_id, rows, is_waiting=True)
        following = SEARCHED.index(name) + 1
        if end is None and following == len(SEARCHED):
            # No audit row names the person any more, so the notary gives them no new salt.
            forget_person(self._connection, self._organization_id, self._request.mentor_id)
            self._connection.execute(_FINISH, {"forgetting_id": forgetting_id, "changed_rows": rows})
            return _Step(forgetting_id, rows, is_done=True)
        place = {"table": name, "after": end} if end is not None else {"table": SEARCHED[following], "after": None}
        self._connection.execute(_MOVE, {"forgetting_id": forgetting_id, "place": _json(place), "changed_rows": rows})
        return _Step(forgetting_id, rows)

    def _keys(self, name: str) -> Sequence[tuple[str, str]]:
        rows = self._connection.execute(_KEY_COLUMNS, {"table_name": name})
        return [(row[0], row[1]) for row in rows]

    def _page(self, name: str, keys: Sequence[tuple[str, str]], after: Sequence[str] | None) -> tuple[str, Sequence[str] | None]:
        """The condition of the page's rows, and the key of its last row; None if the table ends with it."""
        columns = ", ".join(f"t.{column}" for column, _ in keys)
        begin, given = ("true", {}) if after is None else _bounds(keys, after, by=">", prefix="after")
        found = self._connection.execute(
            text(
                f"SELECT {', '.join(f't.{column}::text' for column, _ in keys)} FROM {name} t WHERE {begin}"
                f" ORDER BY {columns} OFFSET :most LIMIT 1"
            ),
            {**given, "most": self._page_rows - 1},
        ).one_or_none()
        self._person |= given
        if found is None:
            return begin, None
        until, last = _bounds(keys, list(found), by="<=", prefix="last")
        self._person |= last
        return f"{begin} AND {until}", list(found)

    def _rewrite_batches(self, name: str, bounds: str) -> tuple[int, bool]:
        """Rewrites the batches of the page's rows that name the person. Returns how many rows changed, and whether some batch has to end
        first."""
        hit = _hit(TABLES[name])
        found = self._connection.execute(
            text(
                f"SELECT DISTINCT t.batch_id::text FROM {name} t WHERE {bounds} AND t.organization_id = :organization_id AND ({hit})"
            ),
            self._person,
        )
        batch_ids = sorted(found.scalars())
        if not batch_ids:
            return 0, False
        repository = PostgresActivityRepository(self._connection)
        repository.lock_batches([UUID(batch_id) for batch_id in batch_ids])
        busy = set(self._connection.execute(_BUSY, {"batch_ids": arrays.plain(batch_ids)}).scalars())
        still = [batch_id for batch_id in batch_ids if batch_id not in busy]
        if not still:
            return 0, True
        ids = [DerivedIds(UUID(batch_id)) for batch_id in still]
        within = {
            "batch_ids": arrays.plain(still),
            "first_items": arrays.plain(each.item_id(0) for each in ids),
            "last_items": arrays.plain(each.item_id(MAX_POSITIONS - 1) for each in ids),
        }
        now = repository.clock()
        self._lock_activities(within)
        own = self._connection.execute(_OWN_ITEMS, {**self._person, **within}).all()
        notes = [NotesOf(row.batch_id, row.position, row.item_id, self._organization_id) for row in own]
        rows = erase_notes_of(self._connection, notes, at=now, by=FORGETTING, channel=FORGETTING)
        for each in OF_BATCHES:
            rows += self._rewrite(each, TABLES[each].of_batch or "", within)
        if rows:
            touch_batches(self._connection, still, at=now)
        return rows, bool(busy)

    def _lock_activities(self, within: Mapping[str, Any]) -> None:
        """Locks the activities that will change, in the order of their key (docs/decisions/0029-one-lock-order.md)."""
        table = TABLES["registration.activity"]
        self._connection.execute(
            text(
                f"SELECT 1 FROM registration.activity t WHERE {table.of_batch} AND t.organization_id = :organization_id AND ({_hit(table)})"
                " ORDER BY t.organization_id, t.attributed_to, t.activity_type, t.activity_date, t.overrides_duplicate, t.activity_id"
                " FOR UPDATE OF t"
            ),
            {**self._person, **within},
        )

    def _rewrite(self, name: str, bounds: str, within: Mapping[str, Any]) -> int:
        """Rewrites the rows within the bounds that name the person. Returns how many changed."""
        table, keys = TABLES[name], self._keys(name)
        chosen = [*(f"t.{column}::text" for column, _ in keys), *(f"t.{column}" for column in table.named)]
        lock = "" if table.function else " FOR UPDATE OF t"
        found = self._connection.execute(
            text(
                f"SELECT {', '.join(chosen)} FROM {name} t WHERE {bounds} AND t.organization_id = :organization_id AND ({_hit(table)}){lock}"
            ),
            {**self._person, **within},
        ).all()
        return sum(self._rewrite_row(name, keys, row) for row in found)

    def _rewrite_row(self, name: str, keys: Sequence[tuple[str, str]], row: Row[Any]) -> bool:
        table = TABLES[name]
        key = dict(zip([f"key_{column}" for column, _ in keys], row[: len(keys)], strict=True))
        at = " AND ".join(f"t.{column} = CAST(:key_{column} AS {kind})" for column, kind in keys)
        before = dict(zip(table.named, row[len(keys) :], strict=True))
        after = {column: self._changed(table.named[column], value) for column, value in before.items()}
        changed = {column: value for column, value in after.items() if value != before[column]}
        if not changed:
            return False
        if any(table.named[column] in (Holds.ROW, Holds.KEY) or value == [] for column, value in changed.items()):
            self._connection.execute(text(f"DELETE FROM {name} t WHERE {at}"), key)
        elif table.function is not None:
            arguments = [f"CAST(:key_{column} AS {kind})" for column, kind in keys if column != "organization_id"]
            arguments += [":reason"] if "reason" in table.named else []
            call = f"SELECT {table.function}(:organization_id, :mentor_id, :pseudonym, {', '.join(arguments)})"
            self._connection.execute(text(call), {**self._person, **key, "reason": after.get("reason")})
        else:
            sets = [_assignment(table.named[column], column) for column in changed]
            sets += [table.also] if table.also else []
            values = {f"new_{column}": _parameter(table.named[column], value) for column, value in changed.items()}
            self._connection.execute(text(f"UPDATE {name} t SET {', '.join(sets)} WHERE {at}"), {**key, **values})
        return True

    def _changed(self, holds: Holds, value: Any) -> Any:
        """The value as it shall be afterwards."""
        if value is None:
            return None
        mentor_id, pseudonym = self._request.mentor_id, self._request.pseudonym
        match holds:
            case Holds.ID | Holds.ROW:
                return pseudonym if value == mentor_id else value
            case Holds.IDS:
                return [each for each in value if each != mentor_id]
            case Holds.BODY:
                told = orjson.loads(value)
                changed = self._forgotten.value(self._organization_id, told)
                return value if changed == told else _json(changed)
            case _:
                return self._forgotten.value(self._organization_id, value)


def _hit(table: Table) -> str:
    """The condition that a row may name the person. Texts are compared in the coarsest way; what is replaced is decided afterwards."""
    conditions = []
    for column, holds in table.named.items():
        match holds:
            case Holds.ID | Holds.ROW:
                conditions.append(f"t.{column} = :mentor_id")
            case Holds.IDS:
                conditions.append(f":mentor_id = ANY (t.{column})")
            case _:
                searched = f"registration.folded(CAST(t.{column} AS text))"
                conditions.append(
                    f"EXISTS (SELECT FROM unnest(CAST(:words AS text[])) AS w (word) WHERE strpos({searched}, w.word) > 0)"
                )
    return " OR ".join(conditions)


def _assignment(holds: Holds, column: str) -> str:
    return f"{column} = CAST(:new_{column} AS jsonb)" if holds is Holds.JSON else f"{column} = :new_{column}"


def _parameter(holds: Holds, value: Any) -> Any:
    return _json(value) if holds is Holds.JSON else value


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _spellings(mentor_id: str, name: str | None) -> list[str]:
    """What may be in the tables, as text and as JSON. A server without a locale only changes the case of ASCII letters."""
    words = spellings([mentor_id, *([name] if name else [])])
    cased = [spelling for word in words for spelling in (word, word.lower(), word.upper(), word.title())]
    return [*cased, *(_json(word)[1:-1] for word in cased)]


def _bounds(keys: Sequence[tuple[str, str]], values: Sequence[str], *, by: str, prefix: str) -> tuple[str, dict[str, str]]:
    """The condition that the key of a row is beyond these values, and its parameters."""
    names = [f"{prefix}_{column}" for column, _ in keys]
    columns = ", ".join(f"t.{column}" for column, _ in keys)
    given = ", ".join(f"CAST(:{name} AS {kind})" for name, (_, kind) in zip(names, keys, strict=True))
    return f"({columns}) {by} ({given})", dict(zip(names, values, strict=True))
