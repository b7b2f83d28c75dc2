"""The checks of the invariants. Each is a statement of `sql/checks.sql` that finds the rows that breach an invariant.

Work in flight is not a breach: an outcome that is not folded yet, an item that waits. All checks run in one read-only snapshot and read whole
tables, so that millions of rows take minutes.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/verification/sql/checks.sql")

# Tables whose rows belong to the organization of their batch.
_TABLES = (
    "orchestrator.batch_item",
    "orchestrator.outcome",
    "orchestrator.item_history",
    "orchestrator.batch_part",
    "orchestrator.batch_edit",
    "orchestrator.batch_dismissal",
    "orchestrator.outbox",
    "orchestrator.dispatch",
    "orchestrator.revocation_request",
    "orchestrator.idempotency_key",
    "orchestrator.receipt_batch",
    "orchestrator.sweep_watch",
    "registration.activity",
    "registration.audit",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One way in which an invariant can be breached. `sql` returns batch_id, item_id and a detail that quotes no notes."""

    invariant: int
    name: str
    sql: str
    parameters: Collection[str] = ()


def _checks(invariant: int, *names: str) -> Iterator[Check]:
    for name in names:
        yield Check(invariant, name, _SQL[name].sql, _SQL[name].parameters.keys())


def _organization_of(table: str) -> Check:
    return Check(
        9,
        f"organization_of_{table.partition('.')[2]}",
        f"""
        SELECT x.batch_id, NULL AS item_id, 'a row of {table} belongs to another organization than its batch' AS detail
        FROM {table} x JOIN orchestrator.batch b ON b.batch_id = x.batch_id WHERE x.organization_id <> b.organization_id
        """,
    )


CHECKS: tuple[Check, ...] = (
    *_checks(
        1,
        "success_without_activity",
        "success_differs_from_answer",
        "registered_inside_and_asked_outside",
        "activity_without_item",
        "activity_without_success",
        "two_activities_of_an_item",
        "activity_differs_from_item",
        "activity_without_audit",
        "revocation_without_audit",
        "audit_of_no_activity",
        "audit_differs_from_activity",
        "audit_can_be_changed",
        "webhook_changes_can_be_changed",
        "revocation_differs_from_activity",
        "request_differs_from_item",
    ),
    *_checks(2, "two_outcomes_of_an_attempt", "outcome_of_a_later_attempt", "outcome_without_item", "attempt_after_success"),
    *_checks(3, "counts_differ_from_items", "revoked_differs_from_items", "positions_not_contiguous", "item_without_batch"),
    *_checks(
        4,
        "item_differs_from_outcome",
        "pending_item_with_an_answer",
        "history_not_contiguous",
        "completion_time",
        "deleted_while_running",
    ),
    *_checks(
        5,
        "decided_and_not_folded",
        "given_up_and_not_answered",
        "waiting_and_not_watched",
        "parts_overdue",
        "event_waits",
        "event_refused",
        "queue_stands",
        "role_restarts",
        "nothing_decided",
    ),
    *_checks(6, "two_unflagged", "flagged_alone"),
    *_checks(7, "outcome_after_cancel"),
    *_checks(8, "purged_and_alive", "registered_after_purge"),
    *map(_organization_of, _TABLES),
    *_checks(9, "organization_of_purged", "row_level_security", "api_role", "api_policy", "api_grants"),
    *_checks(
        10, "notes_in_outbox", "notes_in_error", "notes_in_history", "erased_notes_are_back", "notes_erasures_can_be_changed"
    ),
    *_checks(11, "changed_in_closed_period", "period_differs_from_history", "period_history_can_be_changed"),
)
