"""Events of another writer in the product's name, on the batches topic, to which upstream services write."""

from collections.abc import Callable, Mapping

import orjson

from schemas import events
from schemas.envelope import CONTENT_TYPE_JSON, SOURCE, TYPE_PREFIX, OutgoingEvent, Topic

FORGED_LABEL = "forged"

Claim = Callable[[int, int], Mapping[str, object]]
"""From the batch's number of items and its version, the event's data besides the batch and the organization."""


def _cancelled(total: int, runs: list[list[int]]) -> Mapping[str, object]:
    counts = {"total_items": total, "pending": 0, "completed": 0, "failed": 0, "cancelled": total}
    return {**counts, "reason": "forged", "cancelled_by": "x", "cancelled_positions": runs}


FORGERIES: Mapping[str, tuple[str, Claim]] = {
    "a deletion": (events.BATCH_DELETED, lambda _total, version: {"version": version + 1}),
    "a label": (events.BATCH_RELABELLED, lambda _total, version: {"version": version + 1, "label": FORGED_LABEL}),
    "a cancel": (events.BATCH_CANCELLED, lambda total, _version: _cancelled(total, [[0, total - 1, 1]])),
    "a cancel before all parts": (events.BATCH_CANCELLED, lambda total, _version: _cancelled(total, [])),
    "a revocation": (
        events.ACTIVITIES_REVOKED,
        lambda total, version: {
            "revocation": version + 1,
            "reason": "forged",
            "revoked_by": "x",
            "revoked_at": "2026-03-26T10:00:00.000000Z",
            "revoked_positions": [[0, total - 1]],
        },
    ),
    "an event of a later version": (f"{TYPE_PREFIX}BatchForwarded.v1", lambda _total, _version: {"to": "nobody"}),
    "a retry": (
        events.BATCH_RETRY_REQUESTED,
        lambda _total, _version: {
            "retry_number": 1,
            "items": [{"position": 0, "attempt": 2, "correction": {"duration_minutes": 99}}],
        },
    ),
}


def forged(kind: str, number: int, batch_id: str, organization: str, total: int, version: int) -> OutgoingEvent:
    """The forged event of this number."""
    event_type, claim = FORGERIES[kind]
    data = {"batch_id": batch_id, "organization_id": organization, **claim(total, version)}
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", f"forged-{number}".encode()),
        ("ce_source", SOURCE.encode()),
        ("ce_type", event_type.encode()),
        ("ce_time", b"2026-03-26T10:00:00Z"),
        ("content-type", CONTENT_TYPE_JSON),
    )
    return OutgoingEvent(Topic.BATCHES, batch_id, headers, orjson.dumps(data))
