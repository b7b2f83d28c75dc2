"""Stores checkpoints, and compares those that were published with the logs (docs/decisions/0044-receipt-logs.md).

A database that was restored to an earlier point has shorter logs than their checkpoints on the lifecycle topic say. Such a log is not signed
until it has grown to that size with the same root. If it has another root, it has forked, and is never signed again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import Connection

from orchestrator.receipts.keys import VerifierKey
from orchestrator.receipts.merkle import Place, root, root_places
from orchestrator.storage import arrays
from orchestrator.storage.receipt_appending import GrowingLog, restart_log, split_hashes, take_turn
from orchestrator.storage.receipt_reading import MissingHashError, StoredHashes
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/storage/sql/receipt_checkpoints.sql")

_DUE = _SQL["due"].text()
_STORE = _SQL["store"].text()
_NOW = _SQL["now"].text()
_ADD_KEY = _SQL["add_key"].text()
_KEYS = _SQL["keys"].text()
_READING = _SQL["reading"].text()
_READ_AGAIN = _SQL["read_again"].text()
_NOTE_READING = _SQL["note_reading"].text()
_SIZES = _SQL["sizes"].text()
_OWN_ROOTS = _SQL["own_roots"].text()
_PUBLISHED = _SQL["published"].text()
_UNSETTLED = _SQL["unsettled"].text()
_NOTE_PUBLISHED = _SQL["note_published"].text()
_LAST_LOG = _SQL["last_log"].text()
_FIGURES = _SQL["figures"].text()


@dataclass(frozen=True, slots=True)
class DueLog:
    """A log of which a checkpoint is due."""

    organization_id: str
    log: int
    origin: str
    size: int
    root: bytes


class PublishedState(StrEnum):
    """How the log in the tables compares with a checkpoint that was published."""

    AHEAD = "ahead"
    """The log in the tables is shorter."""
    AGREES = "agrees"
    FORKED = "forked"
    """The log in the tables has another root at that size."""


class Published(NamedTuple):
    """A checkpoint that was read back from the lifecycle topic."""

    organization_id: str
    log: int
    size: int
    root: bytes
    note: str


class UnknownCheckpoint(NamedTuple):
    """A record of the lifecycle topic that says it is a checkpoint, and that no known key has signed for the log that it names.

    `origin` and `keys` are what its text says; without them it is no signed text.
    """

    organization_id: str
    log: int
    partition: int
    offset: int
    origin: str | None
    keys: Sequence[str]


class Unsettled(NamedTuple):
    """A published checkpoint that the tables don't agree with."""

    published: Published
    state: PublishedState


class ReceiptFigures(NamedTuple):
    """All logs together. `signed_at` is the time of the newest checkpoint; `halted` counts logs that must not be signed."""

    leaves: int
    signed_at: float | None
    halted: int


def due_logs(connection: Connection, *, older_than: timedelta) -> list[DueLog]:
    """The logs of which a checkpoint is due: a batch of the new leaves has ended, or the last checkpoint is older than that."""
    due = []
    for row in connection.execute(_DUE, {"signed_before": older_than}):
        known = dict(zip(root_places(row.size), split_hashes(row.frontier), strict=True))
        hashed = root(row.size, lambda level, index, known=known: known[Place(level, index)])  # type: ignore[misc]
        due.append(DueLog(row.organization_id, row.log, row.origin, row.size, hashed))
    return due


def clock(connection: Connection) -> datetime:
    """The database's time."""
    at: datetime = connection.execute(_NOW).scalar_one()
    return at


def store_checkpoint(connection: Connection, due: DueLog, note: str, at: datetime) -> None:
    """Stores a signed checkpoint."""
    parameters = {"organization_id": due.organization_id, "log": due.log, "size": due.size, "root": due.root}
    connection.execute(_STORE, {**parameters, "note": note, "signed_at": at})


def add_key(connection: Connection, verifier: str) -> bool:
    """Makes a public key known. Returns whether it was new. Waits for the notary's transaction.

    Checkpoints that the key has signed may be on the topic already, and were ignored. So the whole topic is compared again.
    """
    take_turn(connection)
    is_new = connection.execute(_ADD_KEY, {"verifier": verifier}).one_or_none() is not None
    if is_new:
        connection.execute(_READ_AGAIN)
    return is_new


def known_keys(connection: Connection) -> Sequence[str]:
    """All public keys, the newest first."""
    return connection.execute(_KEYS).scalars().all()


def read_keys(connection: Connection) -> Sequence[VerifierKey]:
    """The same as keys that verify."""
    return [VerifierKey.parse(text) for text in known_keys(connection)]


def read_up_to(connection: Connection) -> Mapping[int, int]:
    """How far the lifecycle topic was compared: the next offset of each partition."""
    return {row.partition: row.next_offset for row in connection.execute(_READING)}


def note_reading(connection: Connection, next_offsets: Mapping[int, int]) -> None:
    """Stores how far the lifecycle topic was compared."""
    parameters = {"partitions": arrays.plain(next_offsets.keys()), "next_offsets": arrays.plain(next_offsets.values())}
    connection.execute(_NOTE_READING, parameters)


def compare_published(connection: Connection, checkpoints: Sequence[Published]) -> None:
    """Compares checkpoints from the lifecycle topic with the logs, and stores the newest of each log with the result."""
    organizations = {"organization_ids": sorted({each.organization_id for each in checkpoints})}
    sizes = {(row.organization_id, row.log): row.size for row in connection.execute(_SIZES, organizations)}
    noted = {(row.organization_id, row.log): row for row in connection.execute(_PUBLISHED, organizations)}
    newest: dict[tuple[str, int], tuple[Published, PublishedState]] = {
        log: (Published(row.organization_id, row.log, row.size, bytes(row.root), row.note), PublishedState(row.state))
        for log, row in noted.items()
    }
    own = _own_roots(connection, checkpoints)
    for each in checkpoints:
        log = each.organization_id, each.log
        # A root of our own saves reading the log.
        is_own = own.get((*log, each.size)) == each.root
        state = PublishedState.AGREES if is_own else _compared(connection, each, sizes.get(log, 0))
        before = newest.get(log)
        # A fork is final, and of a longer log the shorter checkpoints matter only if they show one.
        if (
            before is None
            or state is PublishedState.FORKED
            or (before[1] is not PublishedState.FORKED and each.size > before[0].size)
        ):
            newest[log] = each, state
    for log, (each, state) in newest.items():
        row = noted.get(log)
        if row is None or (row.size, row.state) != (each.size, state):
            _note(connection, each, state)


def settle_published(connection: Connection) -> Sequence[Unsettled]:
    """Compares again the published checkpoints that were ahead. Returns those that the logs still don't agree with."""
    unsettled = []
    for row in connection.execute(_UNSETTLED).all():
        each = Published(row.organization_id, row.log, row.size, bytes(row.root), row.note)
        state = PublishedState(row.state)
        if state is PublishedState.AHEAD:
            found = connection.execute(_SIZES, {"organization_ids": [each.organization_id]})
            state = _compared(connection, each, {log: size for _, log, size in found}.get(each.log, 0))
            if state is not PublishedState.AHEAD:
                _note(connection, each, state)
        if state is not PublishedState.AGREES:
            unsettled.append(Unsettled(each, state))
    return unsettled


def unsettled_checkpoints(connection: Connection) -> Sequence[Unsettled]:
    """The published checkpoints that the logs don't agree with, as they were last compared."""
    return [
        Unsettled(Published(row.organization_id, row.log, row.size, bytes(row.root), row.note), PublishedState(row.state))
        for row in connection.execute(_UNSETTLED)
    ]


class LogAgreesError(Exception):
    """The log agrees with every published checkpoint, so there is no reason to begin another."""


def begin_again(connection: Connection, organization_id: str, *, name: str, reason: str) -> GrowingLog:
    """Begins another log of an organization whose present one contradicts a published checkpoint. Waits for the notary's transaction.

    Raises LogAgreesError.
    """
    take_turn(connection)
    if organization_id not in {each.published.organization_id for each in unsettled_checkpoints(connection)}:
        raise LogAgreesError(f"The log of {organization_id} agrees with all checkpoints that the notary has read from the topic.")
    return restart_log(connection, organization_id, number=next_log(connection, organization_id), name=name, reason=reason)


def next_log(connection: Connection, organization_id: str) -> int:
    """The number of the organization's next log: no log with it was ever published, as far as the topic tells."""
    return int(connection.execute(_LAST_LOG, {"organization_id": organization_id}).scalar_one() or 0) + 1


def read_receipt_figures(connection: Connection) -> ReceiptFigures:
    """The figures of all logs."""
    row = connection.execute(_FIGURES).one()
    return ReceiptFigures(int(row.leaves), None if row.signed_at is None else float(row.signed_at), int(row.halted))


def _compared(connection: Connection, each: Published, size: int) -> PublishedState:
    if each.size > size:
        return PublishedState.AHEAD
    try:
        found = root(each.size, StoredHashes(connection, each.organization_id, each.log))
    except MissingHashError:
        return PublishedState.FORKED
    return PublishedState.AGREES if found == each.root else PublishedState.FORKED


def _own_roots(connection: Connection, checkpoints: Sequence[Published]) -> Mapping[tuple[str, int, int], bytes]:
    rows = connection.execute(
        _OWN_ROOTS,
        {
            "organization_ids": arrays.texts([each.organization_id for each in checkpoints]),
            "logs": arrays.plain([each.log for each in checkpoints]),
            "sizes": arrays.plain([each.size for each in checkpoints]),
        },
    )
    return {(row.organization_id, row.log, row.size): bytes(row.root) for row in rows}


def _note(connection: Connection, each: Published, state: PublishedState) -> None:
    connection.execute(_NOTE_PUBLISHED, {**each._asdict(), "state": state.value})
