"""Forgets a person: replaces the id by a pseudonym in every table, and erases name and notes (docs/decisions/0045-forgetting.md).

The work is done in pages of a table, a transaction each, which also stores how far it has come. So it may be interrupted anywhere. All rows of
one batch change in the same transaction, under the batch's lock, because `bulkreg verify` compares them.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, Row, text

from orchestrator.directory.forgetting_requests import is_coordinator
from orchestrator.directory.known_people import has_person, is_indexed, is_sought, sought_after
from orchestrator.directory.person_columns import OF_BATCHES, SEARCHED, TABLES
from orchestrator.directory.person_pages import Key, Page, following, may_name, read_page
from orchestrator.directory.person_rewriting import Rewriting
from orchestrator.directory.person_rows import find_rows, portions, read_rows
from orchestrator.process.actions import Action, log_action
from orchestrator.process.error_text import without_values
from orchestrator.process.failpoints import Failpoint
from orchestrator.storage import arrays
from orchestrator.storage.database import transact
from orchestrator.storage.notes import NotesOf, erase_notes_of, touch_batches
from orchestrator.storage.people import (
    ForgettingKey,
    ForgettingKeyError,
    ForgottenPeople,
    Replacement,
    read_forgotten,
    remember_forgotten,
    wait_for_imports,
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
_SIZES = _SQL["sizes"].text()
_BUSY = _SQL["busy"].text()
_TEXT_BYTES = _SQL["text_bytes"].text()
_EMPTY_PARTS = _SQL["empty_parts"].text()
_OWN_ITEMS = _SQL["own_items"].text()

FORGETTING = "forgetting"
"""Who erased the notes of a forgotten person, and through which channel, as the audit records it."""


BATCH_COSTS_ITEMS = 10
"""What a batch counts at least towards the limit of items, because each takes a lock. A purged one has no items."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one transaction does: about 0.2 s."""

    page_rows: int = 10_000
    """How many rows it looks at."""
    hits: int = 2_000
    """How many rows that may name the person it reads."""
    items: int = 2_000
    """How many items the batches have that it locks and rewrites. A batch is never divided."""
    text_bytes: int = 500_000
    """How large the texts are that it looks at between two statements, and those of the batches that it locks: each takes up to 3 s, if the id
    is a number in texts of numbers. A text and a batch are never divided."""
    sought_rows: int = 50_000
    """How many rows it looks at to find out whether anybody has the id, which costs a fraction."""


@dataclass(frozen=True, slots=True)
class Forgot:
    """How many rows changed, how many people are forgotten now, and how many wait: for a running batch, for an unpublished event, or because
    they are coordinators."""

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
    is_unknown: bool = False
    """Whether the request ended because nobody has the id."""
    is_waiting: bool = False
    has_failed: bool = False


class Forgetter:
    """Works on the open requests. Any number may run; each request is worked on by one of them at a time."""

    def __init__(self, key: ForgettingKey | None, passed: Callable[[Failpoint], None], *, limits: Limits | None = None) -> None:
        self._key = key
        self._passed = passed
        self._limits = limits or Limits()

    def work(self, engine: Engine, *, most_s: float | None = None) -> Forgot:
        """As `work_on_all`. In the end, raises the first error of a request."""
        forgot, failures = self.work_on_all(engine, most_s=most_s)
        for error in failures.values():
            raise error
        return forgot

    def work_on_all(self, engine: Engine, *, most_s: float | None = None) -> tuple[Forgot, Mapping[str, Exception]]:
        """Works until all is done, or `most_s` have passed; at least one step. A request whose step fails is put aside, so that the others
        are worked on. Returns what was done, and these errors by the id of the request. Raises ForgettingKeyError if a request is open and
        the key is missing or another one."""
        until = None if most_s is None else monotonic() + most_s
        rows = people = 0
        aside: list[str] = []
        failures: dict[str, Exception] = {}
        while (step := self._next(engine, aside, failures)) is not None:
            self._passed(Failpoint.FORGETTING_AFTER_PAGE)
            if step.is_done:
                log_action(Action.PERSON_FORGOTTEN, role="sweeper", request=step.forgetting_id)
            if step.is_unknown:
                log_action(Action.PERSON_UNKNOWN, role="sweeper", request=step.forgetting_id)
            rows += step.rows
            people += step.is_done
            aside += [step.forgetting_id] if step.is_waiting or step.has_failed else []
            if until is not None and monotonic() >= until:
                break
        return Forgot(rows, people, len(aside)), failures

    def _next(self, engine: Engine, aside: Sequence[str], failures: dict[str, Exception]) -> _Step | None:
        """Does the next step. Adds the error to `failures` if a request makes the step fail."""
        taken: list[str] = []
        try:
            return transact(engine, partial(self._step, aside=aside, taken=taken))
        except Exception as error:
            if not taken or isinstance(error, ForgettingKeyError):
                raise
            log_action(Action.FORGETTING_FAILED, role="sweeper", request=taken[0], error=without_values(error))
            failures[taken[0]] = error
            return _Step(taken[0], has_failed=True)

    def _step(self, connection: Connection, *, aside: Sequence[str], taken: list[str]) -> _Step | None:
        if not has_open_request(connection):
            return None
        if self._key is None:
            raise ForgettingKeyError
        # An import that has read who was forgotten finishes first, so that it does not bring somebody back.
        wait_for_imports(connection)
        request = connection.execute(_TAKE, {"aside": list(aside)}).one_or_none()
        if request is None:
            return None
        taken[:] = [request.forgetting_id]
        # The search takes one of the server's processors at most: nobody waits for it.
        connection.execute(text("SET LOCAL max_parallel_workers_per_gather = 0"))
        if request.pseudonym is not None:
            # An import may have readmitted a namesake since, and so removed the name.
            own = _remember(connection, self._key, request, request.name, request.pseudonym)
            return _Search(connection, request, read_forgotten(connection, self._key, first=own), self._limits).step()
        forgotten = read_forgotten(connection, self._key)
        if is_sought(request.place) and forgotten.pseudonym(request.organization_id, request.mentor_id) is None:
            return _seek(connection, request, self._limits)
        return _begin(connection, self._key, request, forgotten)


def has_open_request(connection: Connection) -> bool:
    """Whether a request to forget a person is open."""
    return bool(connection.execute(_HAS_OPEN).scalar_one())


def oldest_request_s(connection: Connection) -> float:
    """How long the oldest open request has waited, in seconds; 0 if none is open."""
    return float(connection.execute(_OLDEST_S).scalar_one())


def _seek(connection: Connection, request: Row[Any], limits: Limits) -> _Step:
    """Looks at a page for the id of a request that the API could not decide. If nobody has it, the request ends, and nothing is changed."""
    page = read_page(connection, request.place["table"], request.place["after"], limits.sought_rows)
    place: Mapping[str, Any] | None = None
    if not has_person(connection, page, request.organization_id, request.mentor_id):
        place = sought_after(page)
        # An import may have added the person when the directory had been searched.
        if place is None and not is_indexed(connection, request.organization_id, request.mentor_id):
            connection.execute(_FINISH, {"forgetting_id": request.forgetting_id, "changed_rows": 0})
            return _Step(request.forgetting_id, is_unknown=True)
    _move(connection, request, place)
    return _Step(request.forgetting_id)


def _begin(connection: Connection, key: ForgettingKey, request: Row[Any], forgotten: ForgottenPeople) -> _Step:
    person = {"organization_id": request.organization_id, "mentor_id": request.mentor_id}
    # An import may have added the coordinator after the request.
    if is_coordinator(connection, person):
        return _Step(request.forgetting_id, is_waiting=True)
    name = connection.execute(_REMOVE_FROM_DIRECTORY, person).scalar_one()
    known = forgotten.pseudonym(request.organization_id, request.mentor_id)
    pseudonym = known or f"forgotten-{secrets.token_hex(10)}"
    _remember(connection, key, request, name, pseudonym)
    connection.execute(_BEGIN, {"forgetting_id": request.forgetting_id, "name": name, "pseudonym": pseudonym})
    return _Step(request.forgetting_id)


def _remember(
    connection: Connection, key: ForgettingKey, request: Row[Any], name: str | None, pseudonym: str
) -> Sequence[Replacement]:
    """Stores the hashes of the person's words, and returns what replaces them."""
    words = key.words(request.organization_id, request.mentor_id, name)
    remember_forgotten(connection, key, request.organization_id, words, pseudonym)
    return [Replacement(request.organization_id, word, pseudonym) for word in words]


def _move(connection: Connection, request: Row[Any], place: Mapping[str, Any] | None, rows: int = 0) -> None:
    """Stores where the request is continued."""
    written = None if place is None else orjson.dumps(place).decode()
    connection.execute(_MOVE, {"forgetting_id": request.forgetting_id, "place": written, "changed_rows": rows})


@dataclass(frozen=True, slots=True)
class _Rewritten:
    """What was done with a page."""

    rows: int
    end: Key | None
    """Where the next page begins; None: at the next table."""
    has_busy: bool = False
    """Whether a batch has to end first."""
    goes_on: bool = False
    """Whether more batches of the page may be rewritten before it has ended."""


class _Search:
    """One page of the search for one person."""

    def __init__(self, connection: Connection, request: Row[Any], forgotten: ForgottenPeople, limits: Limits) -> None:
        self._connection = connection
        self._request = request
        self._limits = limits
        self._rewriting = Rewriting(connection, request, forgotten)
        self._person = {"organization_id": request.organization_id, "mentor_id": request.mentor_id}

    def step(self) -> _Step:
        forgetting_id, place = self._request.forgetting_id, self._request.place or {"table": SEARCHED[0], "after": None}
        page = read_page(self._connection, place["table"], place["after"], self._limits.page_rows)
        done = self._rewrite(page) if TABLES[page.table].of_batch is None else self._rewrite_batches(page)
        if done.has_busy:
            # The page is looked at again, when its batches have ended.
            _move(self._connection, self._request, place, done.rows)
            return _Step(forgetting_id, done.rows, is_waiting=not (done.goes_on and done.rows))
        table = page.table if done.end is not None else following(page.table, SEARCHED)
        if table is None:
            # No audit row names the person any more, so the notary gives them no new salt.
            forget_person(self._connection, self._request.organization_id, self._request.mentor_id)
            self._connection.execute(_FINISH, {"forgetting_id": forgetting_id, "changed_rows": done.rows})
            return _Step(forgetting_id, done.rows, is_done=True)
        _move(self._connection, self._request, {"table": table, "after": done.end}, done.rows)
        return _Step(forgetting_id, done.rows)

    def _rewrite(self, page: Page) -> _Rewritten:
        rows, last = self._rewriting.rewrite_some(
            page.table, page.condition, page.parameters, most=self._limits.hits, most_bytes=self._limits.text_bytes
        )
        return _Rewritten(rows, page.end if last is None else last)

    def _rewrite_batches(self, page: Page) -> _Rewritten:
        """Rewrites the batches of the page's rows that name the person, up to the limit. The locks are taken after the search, and only on
        batches that are named here."""
        hits, end = self._hits(page)
        batch_ids = sorted({batch_id for _, batch_id in hits})
        if not batch_ids:
            return _Rewritten(0, end)
        busy = self._busy(batch_ids)
        affordable = _affordable(hits, busy, self._sizes(batch_ids), self._limits.items)
        text_bytes = self._text_bytes(sorted({batch_id for _, batch_id in affordable} - busy))
        affordable = _affordable(affordable, busy, text_bytes, self._limits.text_bytes)
        if len(affordable) < len(hits):
            end = affordable[-1][0]
        seen = {batch_id for _, batch_id in affordable}
        chosen = seen - busy
        rows, still = self._rewrite_chosen(sorted(chosen)) if chosen else (0, [])
        return _Rewritten(rows, end, has_busy=len(still) < len(seen), goes_on=end != page.end)

    def _hits(self, page: Page) -> tuple[list[tuple[Key, str]], Key | None]:
        """The rows of the page that name the person, as their keys and batches, and where the next page begins."""
        table, most = TABLES[page.table], self._limits.hits
        parameters = {**self._rewriting.parameters, **page.parameters}
        found = find_rows(self._connection, page.table, page.keys, page.condition, parameters, most=most)
        if not found:
            return [], page.end
        portion = next(portions(found, self._limits.text_bytes))
        columns = ["t.batch_id::text", *(f"t.{column}" for column in table.named)]
        first = len(page.keys)
        hits: list[tuple[Key, str]] = [
            (list(row[:first]), row[first])
            for row in read_rows(self._connection, page.table, page.keys, portion, columns)
            if self._rewriting.naming(table, dict(zip(table.named, row[first + 1 :], strict=True)))
        ]
        may_be_more = len(portion) < len(found) or len(found) == most
        return hits, portion[-1].key if may_be_more else page.end

    def _busy(self, batch_ids: Sequence[str]) -> set[str]:
        return set(self._connection.execute(_BUSY, {"batch_ids": arrays.plain(batch_ids)}).scalars())

    def _sizes(self, batch_ids: Sequence[str]) -> Mapping[str, int]:
        """How many items the batches have. A purged one is not listed: its activities are only the ones that are rewritten."""
        rows = self._connection.execute(_SIZES, {"batch_ids": arrays.plain(batch_ids)})
        return {row.batch_id: max(row.total_items, BATCH_COSTS_ITEMS) for row in rows}

    def _text_bytes(self, batch_ids: Sequence[str]) -> Mapping[str, int]:
        """How large the notes and the earlier attempts of these batches are."""
        rows = self._connection.execute(_TEXT_BYTES, {"batch_ids": arrays.plain(batch_ids)})
        return {row.batch_id: row.text_bytes for row in rows}

    def _rewrite_chosen(self, batch_ids: Sequence[str]) -> tuple[int, Sequence[str]]:
        """Locks the batches, and rewrites those that are not busy. Returns how many rows changed, and these batches."""
        repository = PostgresActivityRepository(self._connection)
        repository.lock_batches([UUID(batch_id) for batch_id in batch_ids])
        busy = self._busy(batch_ids)
        still = [batch_id for batch_id in batch_ids if batch_id not in busy]
        return self._rewrite_locked(repository, still) if still else 0, still

    def _rewrite_locked(self, repository: PostgresActivityRepository, batch_ids: Sequence[str]) -> int:
        """Rewrites everything that these batches have about the person. Returns how many rows changed."""
        ids = [DerivedIds(UUID(batch_id)) for batch_id in batch_ids]
        within = {
            "batch_ids": arrays.plain(batch_ids),
            "first_items": arrays.plain(each.item_id(0) for each in ids),
            "last_items": arrays.plain(each.item_id(MAX_POSITIONS - 1) for each in ids),
        }
        now = repository.clock()
        self._lock_activities(within)
        own = self._connection.execute(_OWN_ITEMS, {**self._person, **within}).all()
        notes = [NotesOf(row.batch_id, row.position, row.item_id, self._request.organization_id) for row in own]
        rows = erase_notes_of(self._connection, notes, at=now, by=FORGETTING, channel=FORGETTING)
        rows += self._connection.execute(_EMPTY_PARTS, {"batch_ids": within["batch_ids"]}).rowcount
        for each in OF_BATCHES:
            rows += self._rewriting.rewrite_all(each, TABLES[each].of_batch or "", within, most_bytes=self._limits.text_bytes)
        if rows:
            touch_batches(self._connection, batch_ids, at=now)
        return rows

    def _lock_activities(self, within: Mapping[str, Any]) -> None:
        """Locks the activities that will change, in the order of their key (docs/decisions/0029-one-lock-order.md)."""
        table = TABLES["registration.activity"]
        self._connection.execute(
            text(
                f"SELECT 1 FROM registration.activity t WHERE {table.of_batch} AND t.organization_id = :organization_id AND ({may_name(table)})"
                " ORDER BY t.organization_id, t.attributed_to, t.activity_type, t.activity_date, t.overrides_duplicate, t.activity_id"
                " FOR UPDATE OF t"
            ),
            {**self._rewriting.parameters, **within},
        )


def _affordable(
    hits: Sequence[tuple[Key, str]], busy: Set[str], costs: Mapping[str, int], most: int
) -> Sequence[tuple[Key, str]]:
    """The first of the hits whose batches cost so much together at most, or one batch. Those that are busy cost nothing."""
    chosen: set[str] = set()
    cost = 0
    for place, (_, batch_id) in enumerate(hits):
        if batch_id not in busy and batch_id not in chosen:
            cost += costs.get(batch_id, BATCH_COSTS_ITEMS)
            if chosen and cost > most:
                return hits[:place]
            chosen.add(batch_id)
    return hits
