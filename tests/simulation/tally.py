"""Counts what has changed in a step, so that a run can say how often the things that it is about have really happened."""

from collections import Counter
from collections.abc import Iterator
from datetime import date

from tests.simulation.snapshot import Snapshot

CHANGES = (
    "registered",
    "registered beside another",
    "refused in a closed period",
    "retried",
    "revoked",
    "period closed",
    "period reopened",
    "cancelled",
    "deleted",
)
"""The names of the changes that are counted."""


def changes(before: Snapshot, after: Snapshot) -> Counter[str]:
    """Returns how often each of `CHANGES` has happened between two moments."""
    return Counter(_changes(before, after))


def _changes(before: Snapshot, after: Snapshot) -> Iterator[str]:
    for place, activity in after.activities.items():
        then = before.activities.get(place)
        if then is None:
            yield "registered beside another" if activity.is_flagged else "registered"
        if activity.is_revoked and (then is None or not then.is_revoked):
            yield "revoked"
    for key in after.outcomes.keys() - before.outcomes.keys():
        if (after.outcomes[key].error or {}).get("code") == "period_closed":
            yield "refused in a closed period"
    for place, item in after.items.items():
        if place in before.items and item.attempt > before.items[place].attempt:
            yield "retried"
    for batch_id, batch in after.batches.items():
        known = before.batches.get(batch_id)
        if batch.is_cancelled and not (known and known.is_cancelled):
            yield "cancelled"
        if batch.is_deleted and not (known and known.is_deleted):
            yield "deleted"
    for organization in before.closed.keys() | after.closed.keys():
        then_closed, closed = before.closed.get(organization) or date.min, after.closed.get(organization) or date.min
        if closed != then_closed:
            yield "period closed" if closed > then_closed else "period reopened"
