"""Converts the domain's views to JSON: exactly the models of `schemas.api`, as plain dicts."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.batches.model import (
    AttemptView,
    BatchPage,
    BatchView,
    ItemError,
    ItemValues,
    ItemView,
    Revocation,
    Revoked,
    RevokedActivity,
    StatusView,
)
from orchestrator.batches.states import BatchStatus
from orchestrator.directory.reading import Names


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def batch(view: BatchView) -> dict[str, Any]:
    """A `BatchResponse`."""
    return {
        "batch_id": view.batch_id,
        "organization_id": view.organization_id,
        "coordinator_id": view.coordinator_id,
        "submitted_by": view.submitted_by,
        "label": view.label,
        "status": view.status,
        **view.counts.as_event(),
        "revoked": view.revoked,
        "errors_by_code": view.errors_by_code,
        "needs_attention": view.needs_attention,
        **({"progress": view.progress} if view.status is BatchStatus.PROCESSING else {}),
        "submitted_at": view.submitted_at,
        **_present(
            {
                "completed_at": view.completed_at,
                "cancelled_at": view.cancelled_at,
                "cancelled_by": view.cancelled_by,
                "cancellation_reason": view.cancellation_reason,
            }
        ),
    }


def item(view: ItemView, names: Names | None = None) -> dict[str, Any]:
    """An `ItemResponse`, with names where they were asked for."""
    values = view.values
    shown: dict[str, Any] = {
        "item_id": view.item_id,
        "position": view.position,
        "mentor_id": values.mentor_id,
        "activity_type": values.activity_type,
        "activity_date": values.activity_date,
        "duration_minutes": values.duration_minutes,
        "status": view.status,
        "attempt": view.attempt,
        **item_names(values, names),
    }
    if view.client_reference is not None:
        shown["client_reference"] = view.client_reference
    if view.activity_id is not None:
        shown["activity_id"] = view.activity_id
    if view.error is not None:
        shown["error"] = error(view.error, names)
    if view.revocation is not None:
        shown |= _revocation(view.revocation)
    if view.revocation_request is not None:
        shown["revocation_request"] = view.revocation_request
    if view.plan_changed:
        shown["plan_changed"] = True
    return shown


def _revocation(revocation: Revocation) -> dict[str, Any]:
    return {"revoked_at": revocation.at, "revoked_by": revocation.by, "revocation_reason": revocation.reason}


def revoked(result: Revoked) -> dict[str, Any]:
    """A `RevokedResponse`."""
    return {
        **batch(result.batch),
        "revoked": result.revoked,
        "total_revoked": result.batch.revoked,
        "already_revoked": result.already_revoked,
        "unresolved": result.unresolved,
        "kept": [{"item_id": kept.item_id, "code": kept.code} for kept in result.kept],
    }


def revoked_activity(result: RevokedActivity) -> dict[str, Any]:
    """A `RevokedActivityResponse`."""
    return {
        "activity_id": result.activity_id,
        "batch_id": result.batch_id,
        "item_id": result.item_id,
        "revoked": int(not result.was_revoked_before),
        "already_revoked": int(result.was_revoked_before),
        **_revocation(result.revocation),
    }


def item_names(values: ItemValues, names: Names | None) -> dict[str, Any]:
    """What the mentor and the activity type are called; null for what the caller may not read, or the directory does not have."""
    if names is None:
        return {}
    return {
        "mentor_name": names.mentors.get(values.mentor_id),
        "activity_type_name": names.activity_types.get(values.activity_type),
    }


def error(found: ItemError, names: Names | None = None) -> dict[str, Any]:
    """An `ItemErrorResponse`. With names, a duplicate says who registered the other activity, and when."""
    shown = found.as_json()
    if names is None or found.conflicting_activity_id is None:
        return shown
    other = names.registrations.get(found.conflicting_activity_id)
    if other is None:
        return shown
    return shown | {"registered_by_name": other.registered_by_name, "registered_at": other.registered_at}


def batch_with_items(view: StatusView, names: Names | None = None) -> dict[str, Any]:
    """A `BatchWithItemsResponse`."""
    after = view.next_after_position
    return {
        **batch(view.batch),
        "items": [item(shown, names) for shown in view.items],
        "next_item_cursor": None if after is None else str(after),
    }


def batches(page: BatchPage, *, number: int | None, limit: int, next_cursor: str | None) -> dict[str, Any]:
    """A `BatchesResponse`."""
    return {
        "data": [batch(view) for view in page.batches],
        "pagination": {"page": number, "limit": limit, "total": page.total, "next_cursor": next_cursor},
    }


def one_item(view: ItemView, attempts: Sequence[AttemptView], names: Names | None = None) -> dict[str, Any]:
    """A `OneItemResponse`."""
    return {
        **item(view, names),
        "notes": view.values.notes,
        "override_duplicates": view.values.override_duplicates,
        "history": [
            {
                "attempt": attempt.attempt,
                "submitted": attempt.values,
                "error": error(attempt.error, names),
                "attempted_at": attempt.attempted_at,
                "correction": attempt.correction,
                "retried_by": attempt.retried_by,
                "retried_at": attempt.retried_at,
            }
            for attempt in attempts
        ],
    }
