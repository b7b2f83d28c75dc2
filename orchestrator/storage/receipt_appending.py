"""Appends audit rows to the logs of receipts: each row once, in the order of their ids (docs/decisions/0044-receipt-logs.md).

Leaves, hashes and the cursor are written in one transaction, so nothing is lost or doubled whenever the process ends. Transactions commit out of
order, so an audit row may appear whose id is lower than one that is visible already. A row is only appended when every transaction that may
still commit a lower id has ended.
"""

import secrets
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache
from json.encoder import encode_basestring as _quoted
from typing import NamedTuple

from psycopg2 import Binary
from sqlalchemy import Connection

from orchestrator.receipts.checkpoint import origin
from orchestrator.receipts.leaf import SALT_SIZE, person_hash
from orchestrator.receipts.merkle import HASH_SIZE, Place, appended, leaf_hash, root_places
from orchestrator.storage import arrays
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/storage/sql/receipt_appending.sql")

_TRY_TURN = _SQL["try_turn"].text()
_TURN = _SQL["turn"].text()
_POSITION = _SQL["position"].text()
_WRITERS = _SQL["writers"].text()
_ROWS = _SQL["rows"].prepared()
_LOST_ROWS = _SQL["lost_rows"].text()
_LOGS = _SQL["logs"].text()
_BEGIN_LOG = _SQL["begin_log"].text()
_SALTS = _SQL["salts"].text()
_STORE_SALTS = _SQL["store_salts"].text()
_STORE_RUN = _SQL["store_run"].text()
_STORE_NODES = _SQL["store_nodes"].text()
_GROW = _SQL["grow"].text()
_ADVANCE = _SQL["advance"].text()
_BEHIND = _SQL["behind"].text()
_FORGET = _SQL["forget"].text()

_TURN_LOCK = {"space": 0x6E6F7461, "which": 1}

SPAN_LEVEL = 8
"""Hashes of every eighth level are stored. A span is 2 ** 8 of one level; it covers one hash of the next stored level."""
SPAN = 1 << SPAN_LEVEL

# Of a log that begins again.
_ROWS_AT_ONCE = 5_000

Person = tuple[str, str]
"""The organization's id and the person's."""


class Position(NamedTuple):
    """Three ids of audit rows: the last one in the logs, the last one that is older than the logs, and the newest committed one."""

    appended_through: int
    before_log: int
    newest: int


class AuditRow(NamedTuple):
    """An audit row, with what its leaf says."""

    audit_id: int
    organization_id: str
    action: str
    activity_id: str
    mentor_id: str
    by_id: str
    batch_id: str
    at: datetime
    activity_type: str
    activity_date: date
    duration_minutes: int
    item_id: str
    attempt: int | None


class LostRow(NamedTuple):
    """An audit row that no leaf can be made of: it is of a version whose rows had no values, and somebody has removed its activity."""

    audit_id: int
    organization_id: str
    activity_id: str


class Appended(NamedTuple):
    """How many leaves were appended, and which rows were left out."""

    leaves: int
    lost: Sequence[LostRow] = ()


@dataclass(slots=True)
class GrowingLog:
    """The newest log of an organization. `frontier` has the hashes of the perfect subtrees that cover it."""

    organization_id: str
    log: int
    before_log: int
    size: int = 0
    frontier: list[bytes] = field(default_factory=list)


def try_turn(connection: Connection) -> bool:
    """Whether this transaction is the only one that changes logs and salts, until its end. Does not wait."""
    return bool(connection.execute(_TRY_TURN, _TURN_LOCK).scalar_one())


def take_turn(connection: Connection) -> None:
    """Waits until this transaction is the only one that changes logs and salts, until its end."""
    connection.execute(_TURN, _TURN_LOCK)


def forget_person(connection: Connection, organization_id: str, person_id: str) -> bool:
    """Destroys the salt of a person, whose hashes in the logs then name nobody. Returns whether there was one.

    Waits for the notary's transaction. Until the commit the notary appends nothing, so it can't give the person a new salt meanwhile.
    """
    take_turn(connection)
    return connection.execute(_FORGET, {"organization_id": organization_id, "person_id": person_id}).rowcount > 0


def position(connection: Connection) -> Position:
    """How far the audit is in the logs."""
    return Position(*connection.execute(_POSITION).one())


def audit_writers(connection: Connection) -> frozenset[str]:
    """The running transactions that may have written audit rows."""
    return frozenset(connection.execute(_WRITERS).scalars())


def behind_s(connection: Connection) -> float:
    """How long the oldest audit row that is in no log has existed, in seconds; 0 if there is none."""
    return float(connection.execute(_BEHIND).scalar_one())


def append_rows(connection: Connection, at: Position, through: int, *, name: str, max_rows: int) -> Appended:
    """Appends the rows up to `through`, at most `max_rows`. `name` is what the origins of new logs begin with.

    The transaction must have the turn, and every transaction that may still commit one of these rows must have ended.
    """
    rows = read_rows(connection, at.appended_through, through, None, max_rows)
    of_organization: dict[str, list[AuditRow]] = defaultdict(list)
    for row in rows:
        of_organization[row.organization_id].append(row)
    logs = _logs(connection, list(of_organization))
    for organization_id in sorted(of_organization.keys() - logs.keys()):
        logs[organization_id] = _begin(connection, GrowingLog(organization_id, 1, at.before_log), name, None)
    hashed = _hashed_persons(connection, rows)
    for organization_id, its_rows in of_organization.items():
        _append(connection, logs[organization_id], its_rows, hashed)
    reached = rows[-1].audit_id if len(rows) == max_rows else through
    connection.execute(_ADVANCE, {"through": reached})
    # Rows have had values since before there were logs.
    lost = lost_rows(connection, at.appended_through, min(reached, at.before_log)) if at.appended_through < at.before_log else ()
    return Appended(len(rows), lost)


def restart_log(connection: Connection, organization_id: str, *, number: int, name: str, reason: str) -> GrowingLog:
    """Begins a log that replaces the organization's present one, with every audit row that is in a log, and returns it.

    The transaction must have the turn.
    """
    through, after = position(connection).appended_through, 0
    log = _begin(connection, GrowingLog(organization_id, number, through), name, reason)
    while rows := read_rows(connection, after, through, organization_id, _ROWS_AT_ONCE):
        _append(connection, log, rows, _hashed_persons(connection, rows))
        after = rows[-1].audit_id
    return log


def leaf_of(row: AuditRow, mentor: str, by: str, *, before_log: int) -> bytes:
    """The leaf of an audit row in a log that is younger than the rows up to `before_log`. `mentor` and `by` are hashes.

    The same bytes as from `leaf_bytes`, at a tenth of its cost: the order of the fields is fixed, and only two need quoting.
    """
    attempt = "" if row.attempt is None else f'"attempt":{row.attempt},'
    is_older = '"before_log":true,' if row.audit_id <= before_log else ""
    change = "registered" if row.action == "registered" else "revoked"
    return (
        f'{{"activity_date":"{row.activity_date.isoformat()}","activity_id":"{row.activity_id}","activity_type":{_quoted(row.activity_type)},'
        f'"at":"{_utc(row.at)}",{attempt}"batch_id":"{row.batch_id}",{is_older}"by":"{by}","change":"{change}",'
        f'"duration_minutes":{row.duration_minutes},"item_id":"{row.item_id}","mentor":"{mentor}",'
        f'"organization_id":{_quoted(row.organization_id)}}}'
    ).encode()


# Items that are decided together have one time, and follow each other in the audit.
@lru_cache(maxsize=8)
def _utc(at: datetime) -> str:
    return f"{at.astimezone(UTC).isoformat(timespec='microseconds').removesuffix('+00:00')}Z"


def read_rows(connection: Connection, after: int, through: int, organization_id: str | None, max_rows: int) -> list[AuditRow]:
    """Audit rows with ids above `after`, up to `through`, in the order of their ids, of one organization or of all; without lost ones."""
    parameters = {"after": after, "through": through, "organization_id": organization_id, "rows": max_rows}
    return [AuditRow._make(row) for row in _ROWS.rows(connection, parameters)]


def lost_rows(connection: Connection, after: int, through: int, organization_id: str | None = None) -> Sequence[LostRow]:
    """The lost audit rows with ids above `after`, up to `through`, of one organization or of all."""
    parameters = {"after": after, "through": through, "organization_id": organization_id}
    return [LostRow(*row) for row in connection.execute(_LOST_ROWS, parameters)]


def _logs(connection: Connection, organization_ids: Sequence[str]) -> dict[str, GrowingLog]:
    found = connection.execute(_LOGS, {"organization_ids": list(organization_ids)})
    return {
        row.organization_id: GrowingLog(row.organization_id, row.log, row.before_log, row.size, split_hashes(row.frontier))
        for row in found
    }


def _begin(connection: Connection, log: GrowingLog, name: str, reason: str | None) -> GrowingLog:
    connection.execute(
        _BEGIN_LOG,
        {
            "organization_id": log.organization_id,
            "log": log.log,
            "origin": origin(name, log.organization_id, log.log),
            "reason": reason,
            "before_log": log.before_log,
        },
    )
    return log


def split_hashes(joined: bytes | memoryview) -> list[bytes]:
    """The hashes of a column."""
    raw = bytes(joined)
    return [raw[at : at + HASH_SIZE] for at in range(0, len(raw), HASH_SIZE)]


def salts_of(connection: Connection, persons: Iterable[Person]) -> dict[Person, bytes]:
    """The salts that these persons have."""
    listed = sorted(set(persons))
    parameters = {
        "organization_ids": arrays.texts([organization_id for organization_id, _ in listed]),
        "person_ids": arrays.texts([person_id for _, person_id in listed]),
    }
    found = connection.execute(_SALTS, parameters)
    return {(organization_id, person_id): bytes(salt) for organization_id, person_id, salt in found}


def _hashed_persons(connection: Connection, rows: Sequence[AuditRow]) -> Mapping[Person, str]:
    """The hash of each of the rows' persons. Who has no salt gets one."""
    persons = {(row.organization_id, person_id) for row in rows for person_id in (row.mentor_id, row.by_id)}
    salts = salts_of(connection, persons)
    new = {person: secrets.token_bytes(SALT_SIZE) for person in sorted(persons - salts.keys())}
    if new:
        connection.execute(
            _STORE_SALTS,
            {
                "organization_ids": arrays.texts([organization_id for organization_id, _ in new]),
                "person_ids": arrays.texts([person_id for _, person_id in new]),
                "salts": [Binary(salt) for salt in new.values()],
            },
        )
    return {person: person_hash(salt, person[1]) for person, salt in (salts | new).items()}


def _append(connection: Connection, log: GrowingLog, rows: Sequence[AuditRow], hashed: Mapping[Person, str]) -> None:
    leaves = [
        leaf_of(
            row, hashed[row.organization_id, row.mentor_id], hashed[row.organization_id, row.by_id], before_log=log.before_log
        )
        for row in rows
    ]
    hashes = [leaf_hash(each) for each in leaves]
    key = {"organization_id": log.organization_id, "log": log.log}
    begin = 0
    while begin < len(rows):
        first_index = log.size + begin
        end = min(len(rows), begin + SPAN - first_index % SPAN)
        run = slice(begin, end)
        connection.execute(
            _STORE_RUN,
            {
                **key,
                "first_index": first_index,
                "audit_ids": arrays.plain([row.audit_id for row in rows[run]]),
                "hashes": b"".join(hashes[run]),
                "leaves": packed_leaves(leaves[run]),
                "batch_ids": arrays.plain(sorted({row.batch_id for row in rows[run]})),
            },
        )
        begin = end
    _grow(connection, log, hashes)


def _grow(connection: Connection, log: GrowingLog, hashes: Sequence[bytes]) -> None:
    known = dict(zip(root_places(log.size), log.frontier, strict=True))
    new = appended(log.size, hashes, lambda level, index: known[Place(level, index)])
    known.update(new)
    stored = [(place, hashed) for place, hashed in new if place.level and place.level % SPAN_LEVEL == 0]
    key = {"organization_id": log.organization_id, "log": log.log}
    if stored:
        connection.execute(
            _STORE_NODES,
            {
                **key,
                "levels": arrays.plain([place.level for place, _ in stored]),
                "indexes": arrays.plain([place.number for place, _ in stored]),
                "hashes": [Binary(hashed) for _, hashed in stored],
            },
        )
    log.size += len(hashes)
    log.frontier = [known[place] for place in root_places(log.size)]
    connection.execute(_GROW, {**key, "size": log.size, "frontier": b"".join(log.frontier)})


def packed_leaves(leaves: Sequence[bytes]) -> bytes:
    """The leaves of a run as they are stored."""
    return zlib.compress(b"\n".join(leaves), 1)


def unpacked_leaves(packed: bytes | memoryview) -> list[bytes]:
    """The leaves that `packed_leaves` packed. Raises ValueError if it did not write this."""
    try:
        return zlib.decompress(bytes(packed)).split(b"\n")
    except zlib.error:
        raise ValueError("the leaves are not readable") from None
