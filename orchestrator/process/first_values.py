"""Begins a role's labelled counters at zero. Prometheus sees the first event of a series only if the series was there before."""

from orchestrator.process import metrics
from schemas.envelope import Topic

_WRITES = {
    "splitter": (Topic.COMMANDS, Topic.COMMANDS_BULK, Topic.LIFECYCLE, Topic.DEAD_LETTER),
    "registration": (Topic.RESULTS, Topic.DEAD_LETTER),
    "aggregator": (Topic.DEAD_LETTER,),
    "notifier": (Topic.DEAD_LETTER,),
}
"""What each consumer publishes itself, beside the outbox."""

_OF_OUTBOX = (Topic.BATCHES, Topic.COMMANDS, Topic.COMMANDS_BULK, Topic.LIFECYCLE)


def begin_at_zero(role: str) -> None:
    """Makes the series of the labels that are known beforehand."""
    for topic in _WRITES.get(role, ()):
        metrics.UNDELIVERABLE.labels(role, topic.value)
    if role in _WRITES:
        metrics.BISECTIONS.labels(role)
        metrics.LATER_EVENTS.labels(role)
        for why in ("database", "delivery"):
            metrics.RETRIES.labels(role, why)
    if role == "registration":
        for outcome in ("success", "cancelled"):
            metrics.ITEMS_DECIDED.labels(outcome, "")
    if role == "aggregator":
        for lane in ("small", "bulk"):
            metrics.BATCH_COMPLETION_SECONDS.labels(lane)
    if role == "notifier":
        metrics.WEBHOOK_ATTEMPTS.labels("delivered")
    if role == "relay":
        for why in ("database", "delivery", "broker"):
            metrics.OUTBOX_FAILURES.labels(why)
        for topic in _OF_OUTBOX:
            metrics.OUTBOX_HELD.labels(topic.value)
            metrics.OUTBOX_REFUSED.labels(topic.value)
