"""Where a person may be named: every column of text in the database, and what forgetting does to it (docs/decisions/0045-forgetting.md).

A test compares this with the live schema, so a new column has to be classified here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto


class Holds(Enum):
    """What a column may hold about a person, and so what forgetting does to it."""

    ID = auto()
    """A person's id: replaced by the pseudonym."""
    ROW = auto()
    """An id without which the row means nothing: the row is removed."""
    KEY = auto()
    """A client's own text, part of the primary key: a row whose text names the person is removed."""
    IDS = auto()
    """A group of mentors: the person leaves it, and an empty group is removed."""
    TEXT = auto()
    """Text that people write: searched for the id and the full name."""
    JSON = auto()
    """JSON whose texts are searched in the same way."""
    BODY = auto()
    """The same, stored as text."""
    NOTES = auto()
    """Notes: erased where they are the person's own, otherwise searched like text."""
    EVENT = auto()
    """An event on its way: forgetting waits until it is published. Afterwards the topic's retention counts."""
    SALT = auto()
    """A person whose hashes are in the logs of receipts: the salt is destroyed when everything is done, and the hashes name nobody."""
    REQUEST = auto()
    """What is being searched for: emptied when everything is done."""
    NOTHING = auto()
    """Chosen by the product, by a directory's file of things, or a hash: names no person."""


ID, ROW, KEY, IDS, TEXT, JSON, BODY, NOTES, EVENT, SALT, REQUEST, NOTHING = Holds


@dataclass(frozen=True, slots=True)
class Table:
    """The columns of a table that hold text. The columns that may name a person are listed with their kinds."""

    columns: Mapping[str, Holds]
    of_batch: str | None = None
    """The condition that finds the rows of batches (`:batch_ids`, or the bounds of their item ids) by an index; None: they are of no batch."""
    also: str = ""
    """What else is written to a row that changes."""
    function: str | None = None
    """The function that may change an append-only table. Its arguments end with the key, and the reason if there is one."""

    @property
    def named(self) -> Mapping[str, Holds]:
        """The columns that are searched."""
        return {column: holds for column, holds in self.columns.items() if holds not in (NOTHING, REQUEST, SALT, EVENT)}


_BY_BATCH = "t.batch_id = ANY (CAST(:batch_ids AS uuid[]))"
_ACTIVITIES = """
    SELECT a.activity_id FROM registration.activity a
    JOIN unnest(CAST(:first_items AS uuid[]), CAST(:last_items AS uuid[])) AS n (first, last) ON a.item_id BETWEEN n.first AND n.last
"""
_CHANGED = "changed_version = (SELECT b.version + 1 FROM orchestrator.batch b WHERE b.batch_id = t.batch_id)"

TABLES: Mapping[str, Table] = {
    "orchestrator.batch": Table(
        {
            "organization_id": NOTHING, "coordinator_id": ID, "submitted_by": ID, "channel": NOTHING, "label": TEXT, "status": NOTHING,
            "content_hash": NOTHING, "trace_id": NOTHING, "cancelled_by": ID, "cancellation_reason": TEXT,
        },
        _BY_BATCH,
    ),
    # Before `batch_item`: the items of a batch are here until its last part comes, and there from then on.
    "orchestrator.batch_part": Table(
        {"organization_id": NOTHING, "content_hash": NOTHING, "public_hash": NOTHING, "items": JSON}, _BY_BATCH
    ),
    "orchestrator.batch_item": Table(
        {
            "organization_id": NOTHING, "mentor_id": ID, "activity_type": NOTHING, "notes": NOTES, "client_reference": TEXT, "status": NOTHING,
            "error": JSON, "planned": NOTHING, "revoked_by": ID, "revocation_reason": TEXT, "revocation_request": NOTHING,
        },
        _BY_BATCH,
        also=_CHANGED,
    ),
    "orchestrator.item_history": Table(
        {"organization_id": NOTHING, "submitted": JSON, "error": JSON, "correction": JSON, "retried_by": ID}, _BY_BATCH
    ),
    "orchestrator.outcome": Table({"organization_id": NOTHING, "outcome": NOTHING, "error": JSON}, _BY_BATCH),
    "orchestrator.batch_edit": Table(
        {"organization_id": NOTHING, "kind": NOTHING, "label": TEXT, "reason": TEXT, "edited_by": ID}, _BY_BATCH
    ),
    "orchestrator.batch_dismissal": Table({"organization_id": NOTHING, "dismissed_by": ID}, _BY_BATCH),
    "orchestrator.dispatch": Table({"organization_id": NOTHING, "state": NOTHING, "error": JSON}, _BY_BATCH),
    "orchestrator.revocation_request": Table(
        {"organization_id": NOTHING, "state": NOTHING, "asked_by": ID, "channel": NOTHING, "reason": TEXT, "code": NOTHING}, _BY_BATCH
    ),
    "registration.activity": Table(
        {
            "organization_id": NOTHING, "attributed_to": ID, "registered_by": ID, "activity_type": NOTHING, "notes": NOTES, "revoked_by": ID,
            "revocation_reason": TEXT, "chapter_id": NOTHING,
        },
        f"t.activity_id = ANY (ARRAY ({_ACTIVITIES}))",
    ),
    "registration.audit": Table(
        {
            "organization_id": NOTHING, "action": NOTHING, "registered_by": ID, "attributed_to": ID, "submitted_by": ID, "channel": NOTHING,
            "reason": TEXT, "activity_type": NOTHING,
        },
        f"t.activity_id = ANY (ARRAY ({_ACTIVITIES}))",
        function="registration.forget_in_audit",
    ),
    "registration.notes_erasure": Table(
        {"organization_id": NOTHING, "erased_by": ID, "channel": NOTHING}, _BY_BATCH, function="registration.forget_in_notes_erasure"
    ),
    "registration.period_change": Table(
        {"organization_id": NOTHING, "reason": TEXT, "changed_by": ID, "channel": NOTHING}, function="registration.forget_in_period_change"
    ),
    "registration.mentor": Table({"organization_id": NOTHING, "mentor_id": ROW, "name": NOTHING, "chapter_id": NOTHING}),
    "registration.coordinator": Table({"organization_id": NOTHING, "coordinator_id": ROW, "name": NOTHING, "role": NOTHING}),
    "registration.coordinator_scope": Table({"organization_id": NOTHING, "coordinator_id": ROW, "chapter_id": NOTHING}),
    "registration.forgetting": Table(
        {
            "organization_id": NOTHING, "mentor_id": REQUEST, "name": REQUEST, "pseudonym": NOTHING, "requested_by": ID, "channel": NOTHING,
            "place": REQUEST,
        }
    ),
    "orchestrator.template": Table(
        {"organization_id": NOTHING, "coordinator_id": ID, "name": TEXT, "mentor_ids": IDS, "activity_type": NOTHING},
        also="version = t.version + 1, changed_at = clock_timestamp()",
    ),
    "orchestrator.idempotency_key": Table(
        {"organization_id": NOTHING, "subject": ROW, "key": KEY, "request_hash": NOTHING, "answer": JSON}
    ),
    "orchestrator.console_session": Table({"session_hash": NOTHING, "organization_id": NOTHING, "subject": ROW, "role": NOTHING}),
    "orchestrator.outbox": Table(
        {
            "organization_id": NOTHING, "topic": NOTHING, "key": EVENT, "headers": EVENT, "value": EVENT, "held_for": NOTHING,
            "held_why": NOTHING,
        }
    ),
    "orchestrator.receipt_salt": Table({"organization_id": NOTHING, "person_id": SALT, "salt": NOTHING}),
    "orchestrator.receipt_log": Table({"organization_id": NOTHING, "origin": NOTHING, "reason": TEXT, "frontier": NOTHING}),
    "orchestrator.receipt_run": Table({"organization_id": NOTHING, "audit_ids": NOTHING, "hashes": NOTHING, "leaves": NOTHING}),
    "orchestrator.receipt_batch": Table({"organization_id": NOTHING}),
    "orchestrator.receipt_node": Table({"organization_id": NOTHING, "hash": NOTHING}),
    "orchestrator.receipt_checkpoint": Table({"organization_id": NOTHING, "root": NOTHING, "note": NOTHING}),
    "orchestrator.receipt_published": Table({"organization_id": NOTHING, "root": NOTHING, "note": NOTHING, "state": NOTHING}),
    "orchestrator.receipt_key": Table({"verifier": NOTHING}),
    "orchestrator.webhook": Table(
        {
            "organization_id": NOTHING, "url": NOTHING, "events": NOTHING, "secret": NOTHING, "previous_secret": NOTHING, "created_by": ID,
            "disabled_because": NOTHING,
        }
    ),
    "orchestrator.webhook_change": Table(
        {
            "organization_id": NOTHING, "change": NOTHING, "because": NOTHING, "url": NOTHING, "events": NOTHING, "changed_by": ID,
            "channel": NOTHING,
        },
        function="registration.forget_in_webhook_change",
    ),
    "orchestrator.webhook_delivery": Table(
        {"organization_id": NOTHING, "event_type": NOTHING, "body": BODY, "state": NOTHING, "problem": NOTHING, "response": TEXT}
    ),
    "registration.forgotten_word": Table(
        {"organization_id": NOTHING, "hash": NOTHING, "pseudonym": NOTHING, "key_check": NOTHING}
    ),
    "registration.replaced_word": Table(
        {"organization_id": NOTHING, "hash": NOTHING, "pseudonym": NOTHING, "key_check": NOTHING}
    ),
    "registration.organization": Table({"organization_id": NOTHING, "name": NOTHING, "time_zone": NOTHING}),
    "registration.chapter": Table({"organization_id": NOTHING, "chapter_id": NOTHING, "name": NOTHING}),
    "registration.activity_type": Table({"organization_id": NOTHING, "activity_type": NOTHING, "name": NOTHING}),
    "orchestrator.tombstone": Table({"organization_id": NOTHING, "content_hash": NOTHING}),
    "orchestrator.sweep_watch": Table({"organization_id": NOTHING, "stage": NOTHING}),
    "orchestrator.sweep_mark": Table({"offsets": NOTHING}),
    "orchestrator.consumer_group": Table({"role": NOTHING}),
    "orchestrator.consumer_progress": Table({"topic": NOTHING, "topic_id": NOTHING}),
    "orchestrator.queue_end": Table({"topic": NOTHING, "topic_id": NOTHING}),
    "orchestrator.role_start": Table({"role": NOTHING, "host": NOTHING}),
}  # fmt: skip
"""Every table, in the order in which it is searched: those of batches first."""

SEARCHED = [name for name, table in TABLES.items() if table.named]
OF_BATCHES = [name for name in SEARCHED if TABLES[name].of_batch is not None]
