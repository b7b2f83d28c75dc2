"""Compares whole logs of receipts with the tables, and names each row that was changed, removed or added behind the product's back.

1. the log in itself: its leaves have their hashes, the hashes lead to every signed root, and nothing is missing at its end
2. the log and the checkpoints on the lifecycle topic, which nobody can take back
3. the newest log and the audit, row by row
4. the newest log and the activities
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson
from pydantic import ValidationError
from sqlalchemy import Connection, Engine, Row, text

from orchestrator.receipts.checkpoint import BadCheckpointError, SignedCheckpoint
from orchestrator.receipts.leaf import person_hash
from orchestrator.receipts.merkle import leaf_hash, node_hash
from orchestrator.storage import arrays
from orchestrator.storage.receipt_appending import (
    SPAN_LEVEL,
    AuditRow,
    leaf_of,
    lost_rows,
    position,
    read_rows,
    split_hashes,
    unpacked_leaves,
)
from orchestrator.storage.receipt_checkpoints import Published, UnknownCheckpoint, read_keys
from orchestrator.storage.statements import read_statements
from schemas.api.receipts import LeafResponse

_SQL = read_statements("orchestrator/verification/sql/receipts.sql")

_LOGS = _SQL["logs"].text()
_ORGANIZATIONS_WITHOUT_LOG = _SQL["organizations_without_log"].text()
_RUNS = _SQL["runs"].text()
_NODES = _SQL["nodes"].text()
_CHECKPOINTS = _SQL["checkpoints"].text()
_SALTS = _SQL["salts"].text()
_BEING_FORGOTTEN = _SQL["being_forgotten"].text()
_ACTIVITIES = _SQL["activities"].text()
_UNAUDITED = _SQL["unaudited"].text()
_REVOKED = _SQL["revoked"].text()

_LOST = "the activity of the audit row {} is gone, so the row could not become a leaf"
_RUNS_AT_ONCE = 20
_ROWS_AT_ONCE = 5_000
# Below the first id of an audit row, where somebody may have added one.
_BEFORE_ALL = -(1 << 62)


class Tampering(StrEnum):
    """What somebody did, as far as the tables show."""

    LOG_REMOVED = "log_removed"
    LOG_CUT_OFF = "log_cut_off"
    LEAF_REMOVED = "leaf_removed"
    LEAF_CHANGED = "leaf_changed"
    LEAF_REORDERED = "leaf_reordered"
    HASH_CHANGED = "hash_changed"
    CHECKPOINT_CHANGED = "checkpoint_changed"
    TWO_HEADS = "two_heads"
    UNKNOWN_SIGNER = "unknown_signer"
    AUDIT_CHANGED = "audit_changed"
    AUDIT_REMOVED = "audit_removed"
    AUDIT_ADDED = "audit_added"
    ACTIVITY_CHANGED = "activity_changed"
    ACTIVITY_REMOVED = "activity_removed"
    ACTIVITY_ADDED = "activity_added"
    REVOCATION_TAKEN_BACK = "revocation_taken_back"
    REVOCATION_ADDED = "revocation_added"


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """Something that differs. `index` is a place in the log. `detail` quotes no names and no notes."""

    kind: Tampering
    organization_id: str
    log: int
    detail: str
    index: int | None = None
    activity_id: str | None = None


@dataclass(slots=True)
class _Tree:
    """The hashes of the perfect subtrees of the leaves so far, from left to right, each with its level."""

    stored: dict[tuple[int, int], bytes]
    size: int = 0
    tops: list[tuple[int, bytes]] = field(default_factory=list)
    wrong: list[tuple[int, int]] = field(default_factory=list)

    def add(self, hashed: bytes) -> None:
        level = 0
        self.size += 1
        while self.tops and self.tops[-1][0] == level:
            hashed = node_hash(self.tops.pop()[1], hashed)
            level += 1
            place = level, (self.size - 1) >> level
            if level % SPAN_LEVEL == 0 and self.stored.pop(place, None) != hashed:
                self.wrong.append(place)
        self.tops.append((level, hashed))

    def root(self) -> bytes:
        result = self.tops[-1][1]
        for _, left in reversed(self.tops[:-1]):
            result = node_hash(left, result)
        return result


def unknown_signers(unknown: Sequence[UnknownCheckpoint], organization_id: str | None = None) -> Sequence[AuditFinding]:
    """A finding for each checkpoint on the topic that no known key has signed.

    Somebody who rewrites a whole log under a key of their own has to remove the true key from the database. Then the checkpoints that are
    named here are the true ones.
    """
    return [
        AuditFinding(Tampering.UNKNOWN_SIGNER, each.organization_id, each.log, _described(each))
        for each in unknown
        if organization_id in (None, each.organization_id)
    ]


def _described(unknown: UnknownCheckpoint) -> str:
    place = f"the topic has a record at partition {unknown.partition}, offset {unknown.offset}"
    if unknown.origin is None:
        return f"{place}, that says it is a checkpoint and is no signed text"
    return f"{place}, with a checkpoint of {unknown.origin} under {', '.join(unknown.keys)}, which no known key has signed for this log"


def audit_logs(
    engine: Engine, published: Sequence[Published], organization_id: str | None = None
) -> tuple[int, Sequence[AuditFinding]]:
    """Audits the logs in one snapshot, read-only. Returns how many leaves were compared, and what differs. Needs the worker's rights."""
    snapshot = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with snapshot.connect() as connection:
        # Reading whole tables takes longer than the product's statements are allowed to.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        auditor = LogAuditor(connection, published)
        findings = list(auditor.audit(organization_id))
        connection.rollback()
    return auditor.leaves, findings


class LogAuditor:
    """Audits logs in the snapshot of a connection. `published` are the checkpoints on the lifecycle topic."""

    def __init__(self, connection: Connection, published: Sequence[Published]) -> None:
        self._connection = connection
        self._published = published
        self._keys = read_keys(connection)
        self.leaves = 0
        """How many leaves were compared so far."""

    def audit(self, organization_id: str | None = None) -> Iterator[AuditFinding]:
        """Yields what differs, of one organization or of all."""
        logs = self._connection.execute(_LOGS, {"organization_id": organization_id}).all()
        known = {(row.organization_id, row.log) for row in logs}
        without = self._connection.execute(_ORGANIZATIONS_WITHOUT_LOG, {"organization_id": organization_id}).all()
        missing = [row.organization_id for row in without if row.had_log]
        lost = {(each.organization_id, each.log) for each in self._published if organization_id in (None, each.organization_id)}
        for organization, log in sorted((lost | {(each, 1) for each in missing}) - known):
            yield AuditFinding(Tampering.LOG_REMOVED, organization, log, "there is no such log, although there was one")
        for row in without:
            yield from self._lost(row.organization_id)
        for row in logs:
            yield from _LogAudit(self, self._connection, row).run()

    def _lost(self, organization_id: str) -> Iterator[AuditFinding]:
        """The lost rows of an organization without a log."""
        through = position(self._connection).appended_through
        for each in lost_rows(self._connection, _BEFORE_ALL, through, organization_id):
            yield AuditFinding(
                Tampering.ACTIVITY_REMOVED, organization_id, 1, _LOST.format(each.audit_id), None, each.activity_id
            )

    def published(self, organization_id: str, log: int) -> Sequence[Published]:
        """The checkpoints of a log that are on the topic."""
        return [each for each in self._published if (each.organization_id, each.log) == (organization_id, log)]

    def is_signed(self, note: str, organization_origin: str, size: int, root: bytes) -> bool:
        """Whether a note is the checkpoint of this log, size and root, signed by a known key."""
        try:
            signed = SignedCheckpoint.parse(note)
            signed.signers(self._keys)
        except BadCheckpointError:
            return False
        checkpoint = signed.checkpoint
        return (checkpoint.origin, checkpoint.size, checkpoint.root) == (organization_origin, size, root)


class _LogAudit:
    """The audit of one log."""

    def __init__(self, auditor: LogAuditor, connection: Connection, row: Row[Any]) -> None:
        self._auditor = auditor
        self._connection = connection
        self._log = row
        self._key = {"organization_id": row.organization_id, "log": row.log}
        nodes = connection.execute(_NODES, self._key)
        self._tree = _Tree({(each.level, each.number): bytes(each.hash) for each in nodes})
        salts = connection.execute(_SALTS, {"organization_id": row.organization_id})
        self._through = 0
        self._compared = _BEFORE_ALL
        self._hash_of = {each.person_id: person_hash(bytes(each.salt), each.person_id) for each in salts}
        self._living = set(self._hash_of.values())
        # While a person is being forgotten, some rows have the pseudonym already, and the salt is not destroyed yet.
        begun = connection.execute(_BEING_FORGOTTEN, {"organization_id": row.organization_id})
        self._new_ids = {each.pseudonym: self._hash_of.get(each.mentor_id) for each in begun}
        self._forgotten: dict[str, str] = {}
        self._revoked: set[str] = set()
        through = position(connection).appended_through
        lost = lost_rows(connection, self._compared, through, row.organization_id) if row.is_newest else ()
        self._lost = {each.audit_id: each.activity_id for each in lost}
        self._stored_hashes: list[bytes] = []

    def run(self) -> Iterator[AuditFinding]:
        row = self._log
        checkpoints = self._connection.execute(_CHECKPOINTS, self._key).all()
        published = self._auditor.published(row.organization_id, row.log)
        roots: dict[int, bytes] = {}
        sizes = sorted({each.size for each in checkpoints} | {each.size for each in published})
        for first_index, audit_ids, leaves in self._chunks():
            yield from self._add(first_index, audit_ids, leaves, sizes, roots)
            if row.is_newest:
                yield from self._compare(first_index, audit_ids, leaves)
        yield from self._end(max([row.size, row.signed_size, *sizes]))
        for each in checkpoints:
            yield from self._checkpoint(each.size, bytes(each.root), each.note, roots)
        for head in published:
            if head.size in roots and roots[head.size] != head.root:
                detail = f"the topic has a checkpoint of {head.size} leaves with another root"
                yield self._found(Tampering.TWO_HEADS, detail)
        if row.is_newest:
            yield from self._rest()

    def _found(self, kind: Tampering, detail: str, index: int | None = None, activity_id: str | None = None) -> AuditFinding:
        return AuditFinding(kind, self._log.organization_id, self._log.log, detail, index, activity_id)

    # --- 1 and 2: the log in itself ---------------------------------------------------------------------------------------------

    def _chunks(self) -> Iterator[tuple[int, list[int], list[bytes]]]:
        """The leaves, with the index of the first and the ids of their audit rows, some thousands at a time."""
        after = -1
        while runs := self._connection.execute(_RUNS, {**self._key, "after_index": after, "runs": _RUNS_AT_ONCE}).all():
            for run in runs:
                yield run.first_index, list(run.audit_ids), self._leaves(run)
            after = runs[-1].first_index

    def _leaves(self, run: Row[Any]) -> list[bytes]:
        try:
            leaves = unpacked_leaves(run.leaves)
        except ValueError:
            return [b""] * len(run.audit_ids)
        self._stored_hashes = split_hashes(run.hashes)
        return leaves

    def _add(
        self, first_index: int, audit_ids: list[int], leaves: list[bytes], sizes: Sequence[int], roots: dict[int, bytes]
    ) -> Iterator[AuditFinding]:
        if first_index != self._tree.size:
            yield self._found(
                Tampering.LEAF_REMOVED, f"leaves {self._tree.size} to {first_index - 1} are missing", self._tree.size
            )
        hashes = [leaf_hash(each) for each in leaves]
        wanted = set(sizes)
        for number, hashed in enumerate(hashes):
            index = first_index + number
            if number >= len(self._stored_hashes) or self._stored_hashes[number] != hashed:
                yield self._found(
                    Tampering.LEAF_CHANGED, f"leaf {index} does not have its hash", index, _activity_of(leaves[number])
                )
            self._tree.add(hashed)
            if self._tree.size in wanted:
                roots[self._tree.size] = self._tree.root()
        ordered = [self._through, *audit_ids]
        for number in range(len(audit_ids)):
            if ordered[number] >= ordered[number + 1]:
                index = first_index + number
                yield self._found(Tampering.LEAF_REORDERED, f"leaf {index} is not in the order of the audit", index)
        self._through = max(ordered)
        self._auditor.leaves += len(leaves)

    def _end(self, size: int) -> Iterator[AuditFinding]:
        tree = self._tree
        if tree.size < size:
            yield self._found(Tampering.LOG_CUT_OFF, f"the log ends after {tree.size} leaves; it had {size}", tree.size)
        elif tree.size > self._log.size or b"".join(hashed for _, hashed in tree.tops) != bytes(self._log.frontier):
            yield self._found(Tampering.HASH_CHANGED, "the hashes from which the log grows are not those of its leaves")
        for level, number in [*tree.wrong, *tree.stored]:
            yield self._found(Tampering.HASH_CHANGED, f"the hash {number} of level {level} is not that of its leaves")

    def _checkpoint(self, size: int, root: bytes, note: str, roots: Mapping[int, bytes]) -> Iterator[AuditFinding]:
        if not self._auditor.is_signed(note, self._log.origin, size, root):
            yield self._found(Tampering.CHECKPOINT_CHANGED, f"the checkpoint of {size} leaves is not what was signed")
        elif size in roots and roots[size] != root:
            yield self._found(Tampering.CHECKPOINT_CHANGED, f"the first {size} leaves do not have the root that was signed")

    # --- 3 and 4: the log and the tables ------------------------------------------------------------------------------------------

    def _compare(self, first_index: int, audit_ids: list[int], leaves: list[bytes]) -> Iterator[AuditFinding]:
        documents = [_document(each) for each in leaves]
        for index, document in enumerate(documents, first_index):
            if not document:
                yield self._found(Tampering.LEAF_CHANGED, f"leaf {index} is not one that the notary writes", index)
        yield from self._compare_audit(first_index, audit_ids, leaves, documents)
        yield from self._compare_activities(first_index, documents)

    def _compare_audit(
        self, first_index: int, audit_ids: list[int], leaves: list[bytes], documents: Sequence[dict[str, Any]]
    ) -> Iterator[AuditFinding]:
        before, through = self._compared, max(audit_ids, default=self._compared)
        self._compared = max(before, through)
        rows = {row.audit_id: row for row in self._rows(before, through)}
        for number, (audit_id, raw, document) in enumerate(zip(audit_ids, leaves, documents, strict=False)):
            index, row = first_index + number, rows.pop(audit_id, None)
            activity_id = document.get("activity_id")
            if row is None and self._lost.pop(audit_id, None) is not None:
                continue  # the comparison with the activities names it
            if row is None:
                yield self._found(
                    Tampering.AUDIT_REMOVED, f"the audit row {audit_id} of leaf {index} is gone", index, activity_id
                )
            elif document and (differing := self._differences(row, raw, document)):
                detail = f"the audit row {audit_id} differs from leaf {index} in {', '.join(differing)}"
                yield self._found(Tampering.AUDIT_CHANGED, detail, index, activity_id)
        for row in rows.values():
            yield self._found(Tampering.AUDIT_ADDED, f"the audit row {row.audit_id} is in no leaf", None, row.activity_id)

    def _rows(self, after: int, through: int) -> Iterator[AuditRow]:
        while rows := read_rows(self._connection, after, through, self._log.organization_id, _ROWS_AT_ONCE):
            yield from rows
            after = rows[-1].audit_id

    def _differences(self, row: AuditRow, raw: bytes, document: Mapping[str, Any]) -> list[str]:
        """The fields in which an audit row differs from its leaf."""
        mentor, by = document.get("mentor", ""), document.get("by", "")
        differing = [
            name
            for name, person, hashed in (("mentor", row.mentor_id, mentor), ("by", row.by_id, by))
            if not self._is(person, hashed)
        ]
        expected = leaf_of(row, mentor, by, before_log=self._log.before_log)
        if expected != raw:
            wanted = orjson.loads(expected)
            differing += sorted(name for name in wanted.keys() | document.keys() if wanted.get(name) != document.get(name))
        return differing

    def _is(self, person_id: str, hashed: str) -> bool:
        """Whether a hash is that of the person, as far as it can be known: that of a forgotten person belongs to one id only."""
        if hashed in (self._hash_of.get(person_id), self._new_ids.get(person_id)):
            return True
        return hashed not in self._living and self._forgotten.setdefault(hashed, person_id) == person_id

    def _compare_activities(self, first_index: int, documents: Sequence[dict[str, Any]]) -> Iterator[AuditFinding]:
        ids = sorted({each["activity_id"] for each in documents if each})
        parameters = {"organization_id": self._log.organization_id, "activity_ids": arrays.plain(ids)}
        activities = {row.activity_id: row for row in self._connection.execute(_ACTIVITIES, parameters)}
        for index, document in enumerate(documents, first_index):
            if not document:
                continue
            activity_id = document["activity_id"]
            activity = activities.get(activity_id)
            if activity is None:
                yield self._found(Tampering.ACTIVITY_REMOVED, f"the activity of leaf {index} is gone", index, activity_id)
            elif document["change"] == "revoked":
                self._revoked.add(activity_id)
                if (
                    activity.revoked_at is None
                    or _time(activity.revoked_at) != document["at"]
                    or not self._is(activity.revoked_by, document["by"])
                ):
                    detail = f"the revocation of leaf {index} was taken back or changed"
                    yield self._found(Tampering.REVOCATION_TAKEN_BACK, detail, index, activity_id)
            elif differing := self._activity_differences(activity, document):
                detail = f"the activity differs from leaf {index} in {', '.join(differing)}"
                yield self._found(Tampering.ACTIVITY_CHANGED, detail, index, activity_id)

    def _activity_differences(self, activity: Row[Any], document: Mapping[str, Any]) -> list[str]:
        values = {
            "activity_type": activity.activity_type,
            "activity_date": activity.activity_date.isoformat(),
            "duration_minutes": activity.duration_minutes,
            "batch_id": activity.batch_id,
            "item_id": activity.item_id,
            "at": _time(activity.created_at),
        }
        differing = [name for name, value in values.items() if document.get(name) != value]
        persons = (("mentor", activity.attributed_to), ("by", activity.registered_by))
        return [*(name for name, person in persons if not self._is(person, document[name])), *differing]

    def _rest(self) -> Iterator[AuditFinding]:
        """What is in the tables beyond the log."""
        organization = {"organization_id": self._log.organization_id}
        through = position(self._connection).appended_through
        for row in self._rows(self._compared, through):
            yield self._found(Tampering.AUDIT_ADDED, f"the audit row {row.audit_id} is in no leaf", None, row.activity_id)
        for audit_id, activity_id in self._lost.items():
            yield self._found(Tampering.ACTIVITY_REMOVED, _LOST.format(audit_id), None, activity_id)
        for activity_id in self._connection.execute(_UNAUDITED, organization).scalars():
            yield self._found(Tampering.ACTIVITY_ADDED, "the activity was never registered", None, activity_id)
        for activity_id in self._connection.execute(_REVOKED, organization).scalars():
            if activity_id not in self._revoked:
                yield self._found(Tampering.REVOCATION_ADDED, "the activity was never revoked", None, activity_id)


def _document(raw: bytes) -> dict[str, Any]:
    """The leaf; empty if it is none: somebody who changed it may have written anything."""
    try:
        LeafResponse.model_validate_json(raw)
    except ValidationError:
        return {}
    document: dict[str, Any] = orjson.loads(raw)
    return document


def _activity_of(raw: bytes) -> str | None:
    return _document(raw).get("activity_id")


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
