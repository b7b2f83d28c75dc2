"""Builds every event, each in one function.

A function writes the same bytes every time, because times and values come from stored rows and ids are derived.
"""

import base64
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import orjson

from schemas.envelope import ITEM_HEADERS, Header, OutgoingEvent, Topic, headers, id_of_trace, is_sampled, rfc3339
from schemas.events import (
    ACTIVITIES_REVOKED,
    BATCH_CANCELLED,
    BATCH_COMPLETED,
    BATCH_DELETED,
    BATCH_REJECTED,
    BATCH_RELABELLED,
    BATCH_RETRY_REQUESTED,
    BATCH_SUBMITTED,
    CANCELLED,
    CHECKPOINT_SIGNED,
    DEAD_LETTER_REDRIVEN,
    FAILED,
    PERIOD_CLOSED,
    PERIOD_REOPENED,
    REGISTER_ACTIVITY,
    REVOKE_ACTIVITY,
    SUCCEEDED,
)
from schemas.ids import EventIds, content_id, event_id
from schemas.mistakes import Mistake

MAX_CANCELLED_RUNS = 20_000
"""The most runs in one event. A run has at most 28 bytes, so these take a quarter of the largest message. A batch of a million items may have
half a million runs."""
MAX_REVOKED_RUNS = 20_000
"""The most runs in one event, as for a cancel. A run has at most 19 bytes."""


def _event(
    topic: Topic,
    event_type: str,
    identity: tuple[object, ...],
    time: datetime,
    trace_id: str,
    key: str,
    data: Mapping[str, Any],
) -> OutgoingEvent:
    return _event_of(topic, event_type, event_id(event_type, *identity), time, trace_id, key, orjson.dumps(data))


def _event_of(
    topic: Topic, event_type: str, identity: UUID, time: datetime, trace_id: str, key: str, value: bytes
) -> OutgoingEvent:
    return OutgoingEvent(topic, key, headers(identity, event_type, time, trace_id, subject=key), value)


def batch_submitted(
    *,
    batch_id: UUID,
    organization_id: str,
    coordinator_id: str,
    label: str | None,
    override_duplicates: bool,
    part: int,
    parts: int,
    total_items: int,
    submitted_by: str,
    channel: str,
    items: Sequence[bytes],
    time: datetime,
    trace_id: str,
) -> OutgoingEvent:
    """One part of an accepted batch, without notes. Each item is already JSON."""
    data = {
        "batch_id": batch_id,
        "organization_id": organization_id,
        "coordinator_id": coordinator_id,
        "label": label,
        "override_duplicates": override_duplicates,
        "part": part,
        "parts": parts,
        "total_items": total_items,
        "submitted_by": submitted_by,
        "channel": channel,
        "items": orjson.Fragment(b"[" + b",".join(items) + b"]"),
    }
    return _event(Topic.BATCHES, BATCH_SUBMITTED, (batch_id, part), time, trace_id, str(batch_id), data)


def batch_retry_requested(
    *,
    batch_id: UUID,
    organization_id: str,
    retry_number: int,
    part: int,
    retried_by: str,
    items: Sequence[Mapping[str, Any]],
    time: datetime,
    trace_id: str,
) -> OutgoingEvent:
    """One part of a retry. The first part's id is derived from batch and retry number; further parts add their number."""
    identity = (batch_id, retry_number) if part == 1 else (batch_id, retry_number, part)
    data = {
        "batch_id": batch_id,
        "organization_id": organization_id,
        "retry_number": retry_number,
        "part": part,
        "retried_by": retried_by,
        "items": items,
    }
    return _event(Topic.BATCHES, BATCH_RETRY_REQUESTED, identity, time, trace_id, str(batch_id), data)


def batch_cancelled(
    *,
    batch_id: UUID,
    organization_id: str,
    reason: str | None,
    cancelled_by: str,
    counts: Mapping[str, int],
    cancelled_positions: Sequence[tuple[int, int, int]],
    time: datetime,
    trace_id: str,
) -> list[OutgoingEvent]:
    """The cancel of a batch, which happens once, in parts of at most MAX_CANCELLED_RUNS runs."""
    starts = range(0, max(1, len(cancelled_positions)), MAX_CANCELLED_RUNS)
    return [
        _cancelled_part(
            part,
            batch_id=batch_id,
            organization_id=organization_id,
            reason=reason,
            cancelled_by=cancelled_by,
            counts=counts,
            cancelled_positions=cancelled_positions[start : start + MAX_CANCELLED_RUNS],
            time=time,
            trace_id=trace_id,
        )
        for part, start in enumerate(starts, start=1)
    ]


def _cancelled_part(
    part: int,
    *,
    batch_id: UUID,
    organization_id: str,
    reason: str | None,
    cancelled_by: str,
    counts: Mapping[str, int],
    cancelled_positions: Sequence[tuple[int, int, int]],
    time: datetime,
    trace_id: str,
) -> OutgoingEvent:
    """One part of a cancel. The first part's id is derived from the batch; further parts add their number."""
    identity = (batch_id,) if part == 1 else (batch_id, part)
    data = {
        "batch_id": batch_id,
        "organization_id": organization_id,
        "part": part,
        "reason": reason,
        "cancelled_by": cancelled_by,
        **counts,
        "cancelled_positions": cancelled_positions,
    }
    return _event(Topic.BATCHES, BATCH_CANCELLED, identity, time, trace_id, str(batch_id), data)


def batch_relabelled(
    *, batch_id: UUID, organization_id: str, label: str | None, version: int, time: datetime, trace_id: str
) -> OutgoingEvent:
    """An edited label. The id includes the time, because versions restart if a batch was removed before all its parts had arrived."""
    data = {"batch_id": batch_id, "organization_id": organization_id, "label": label, "version": version}
    return _event(Topic.BATCHES, BATCH_RELABELLED, (batch_id, version, rfc3339(time)), time, trace_id, str(batch_id), data)


def batch_deleted(*, batch_id: UUID, organization_id: str, version: int, time: datetime, trace_id: str) -> OutgoingEvent:
    """The deletion of a batch, which happens once."""
    data = {"batch_id": batch_id, "organization_id": organization_id, "version": version}
    return _event(Topic.BATCHES, BATCH_DELETED, (batch_id,), time, trace_id, str(batch_id), data)


def activities_revoked(
    *,
    batch_id: UUID,
    organization_id: str,
    revocation: int,
    reason: str,
    revoked_by: str,
    revoked_positions: Sequence[tuple[int, int]],
    time: datetime,
    trace_id: str,
) -> list[OutgoingEvent]:
    """A revocation, for both of its topics, in parts of MAX_REVOKED_RUNS.

    The id includes the time, because versions restart if a batch was removed before all its parts had arrived. Of a purged batch, which has no
    version, only one activity is revoked at a time, so the id includes its position.
    """
    published: list[OutgoingEvent] = []
    for part, start in enumerate(range(0, len(revoked_positions), MAX_REVOKED_RUNS), start=1):
        runs = revoked_positions[start : start + MAX_REVOKED_RUNS]
        identity = (batch_id, revocation, rfc3339(time), part) if revocation else (batch_id, rfc3339(time), runs[0][0])
        data = {
            "batch_id": batch_id,
            "organization_id": organization_id,
            "revocation": revocation,
            "part": part,
            "reason": reason,
            "revoked_by": revoked_by,
            "revoked_at": rfc3339(time),
            "revoked_positions": runs,
        }
        published += [
            _event(topic, ACTIVITIES_REVOKED, identity, time, trace_id, str(batch_id), data)
            for topic in (Topic.BATCHES, Topic.LIFECYCLE)
        ]
    return published


def period_changed(
    *,
    organization_id: str,
    number: int,
    closed_through: date | None,
    previously: date | None,
    reason: str,
    changed_by: str,
    time: datetime,
    trace_id: str,
) -> OutgoingEvent:
    """A change of an organization's closed period: PeriodClosed if more is closed than before, else PeriodReopened.

    The key is the organization. The id includes the time, because numbers can occur again after a restore.
    """
    is_closed = closed_through is not None and (previously is None or closed_through > previously)
    data = {
        "organization_id": organization_id,
        "number": number,
        "closed_through": closed_through,
        "previously": previously,
        "reason": reason,
        "changed_by": changed_by,
        "changed_at": rfc3339(time),
    }
    event_type = PERIOD_CLOSED if is_closed else PERIOD_REOPENED
    identity = (organization_id, number, rfc3339(time))
    return _event(Topic.LIFECYCLE, event_type, identity, time, trace_id, organization_id, data)


def checkpoint_signed(
    *, organization_id: str, log: int, origin: str, size: int, root: bytes, checkpoint: str, time: datetime, trace_id: str
) -> OutgoingEvent:
    """A signed checkpoint. The key is the organization. The id includes the time, because a restored database may sign the same again."""
    data = {
        "organization_id": organization_id,
        "log": log,
        "origin": origin,
        "size": size,
        "root": base64.b64encode(root).decode(),
        "checkpoint": checkpoint,
        "signed_at": rfc3339(time),
    }
    identity = (origin, size, rfc3339(time))
    return _event(Topic.LIFECYCLE, CHECKPOINT_SIGNED, identity, time, trace_id, organization_id, data)


def batch_completed(
    *,
    batch_id: UUID,
    organization_id: str,
    status: str,
    counts: Mapping[str, int],
    retry_number: int,
    completed_at: datetime,
    trace_id: str,
) -> OutgoingEvent:
    """The completion event."""
    data = {
        "batch_id": batch_id,
        "organization_id": organization_id,
        "status": status,
        **counts,
        "retry_number": retry_number,
        "completed_at": rfc3339(completed_at),
    }
    return _event(Topic.LIFECYCLE, BATCH_COMPLETED, (batch_id, retry_number), completed_at, trace_id, str(batch_id), data)


def batch_rejected(
    *,
    batch_id: UUID,
    organization_id: str,
    rejected_source: str,
    rejected_event_id: str,
    batch_continues: bool,
    mistakes: Sequence[Mistake],
    time: datetime,
    trace_id: str,
) -> OutgoingEvent:
    """The rejection of an upstream event.

    The same record can be rejected again for another reason after the batch that it contradicts has changed, and a batch can be incomplete
    twice. So the id includes the content and the time.
    """
    data = {
        "batch_id": batch_id,
        "organization_id": organization_id,
        "rejected_event_id": rejected_event_id,
        "batch_continues": batch_continues,
        "problems": [mistake._asdict() for mistake in mistakes],
    }
    value = orjson.dumps(data)
    identity = content_id(BATCH_REJECTED, rejected_source, rejected_event_id, rfc3339(time), value=value)
    return _event_of(Topic.LIFECYCLE, BATCH_REJECTED, identity, time, trace_id, str(batch_id), value)


def dead_letter_redriven(*, dead_letter_id: UUID, time: datetime, trace_id: str) -> OutgoingEvent:
    """The record of a redrive. A dead letter can be redriven more than once."""
    data = {"dead_letter_id": dead_letter_id, "redriven_at": rfc3339(time)}
    return _event(
        Topic.DEAD_LETTER, DEAD_LETTER_REDRIVEN, (dead_letter_id, rfc3339(time)), time, trace_id, str(dead_letter_id), data
    )


# Commands and results are the hot path: one call per item. The caller's `ItemEventHeaders` encodes headers that a batch has in common once per
# batch. Only ids and values are encoded per item.


class ItemEventHeaders:
    """The headers of the item events of one batch."""

    __slots__ = ("_flags", "_time", "_time_bytes", "_trace")

    _TYPES: Mapping[str, tuple[EventIds, bytes]] = {
        event_type: (EventIds(event_type), event_type.encode())
        for event_type in (REGISTER_ACTIVITY, REVOKE_ACTIVITY, SUCCEEDED, FAILED, CANCELLED)
    }

    def __init__(self, trace: str) -> None:
        self._trace, self._flags = f"00-{id_of_trace(trace)}-", "-01" if is_sampled(trace) else "-00"
        self._time: datetime | None = None
        self._time_bytes = b""

    def of(self, event_type: str, item_id: UUID | str, attempt: int, time: datetime) -> tuple[Header, ...]:
        """The headers of one event. Its span id is taken from its own id."""
        ids, type_bytes = self._TYPES[event_type]
        event = ids.text(item_id, attempt)
        if time is not self._time:
            # The items of a set usually have the same time.
            self._time, self._time_bytes = time, rfc3339(time).encode()
        return (
            *ITEM_HEADERS,
            ("ce_id", event.encode()),
            ("ce_type", type_bytes),
            ("ce_time", self._time_bytes),
            ("traceparent", f"{self._trace}{event[-12:]}{event[:4]}{self._flags}".encode()),
        )


def register_activity(data: Mapping[str, Any], item_headers: tuple[Header, ...], *, bulk: bool) -> OutgoingEvent:
    """A command. Its key is organization + mentor, so that a large batch spreads over the partitions."""
    topic = Topic.COMMANDS_BULK if bulk else Topic.COMMANDS
    return OutgoingEvent(topic, f"{data['organization_id']}:{data['mentor_id']}", item_headers, orjson.dumps(data))


def revoke_activity(data: Mapping[str, Any], item_headers: tuple[Header, ...], *, bulk: bool) -> OutgoingEvent:
    """A command to ask an external service. Its key is the item, so that a large batch spreads over the partitions."""
    return OutgoingEvent(Topic.COMMANDS_BULK if bulk else Topic.COMMANDS, str(data["item_id"]), item_headers, orjson.dumps(data))


RESULTS_PER_KEY = 100


def result(data: Mapping[str, Any], item_headers: tuple[Header, ...], *, batch_id: str, position: int) -> OutgoingEvent:
    """A result. Its key is the batch and a hundred positions, so that a small batch stays together, and a large one does not delay others by
    filling one partition (docs/architecture.md, Fairness)."""
    return OutgoingEvent(Topic.RESULTS, f"{batch_id}:{position // RESULTS_PER_KEY}", item_headers, orjson.dumps(data))
