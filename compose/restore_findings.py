"""Compares the database with the topics: one of them may have been restored from an older copy. Says how what is missing comes back."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection

from compose.findings import Finding, State
from consumers.reading.forgotten import LOOK_BACK, Positions, forgotten_batches, records_ahead
from consumers.upkeep.groups import TOPICS, Groups
from orchestrator.process.settings import Settings
from orchestrator.storage.progress import read_progress
from orchestrator.storage.sweeping import Queues

_SUBJECT = "database and topics"

# The aggregator stays where it is: the results that it has passed name outcomes that are forgotten too. The notifier has passed events whose
# deliveries are forgotten.
_SET_BACK = ("splitter", "registration", "notifier")

# Events that waited in the queues when the copy was made have to be read again, too.
_BEFORE = timedelta(hours=1)


def restore_findings(settings: Settings, connection: Connection, groups: Groups) -> Iterator[Finding]:
    """Yields at least one finding. Needs the worker's or the owner's rights. Raises KafkaException."""
    names = {role: groups.name(connection, role) for role in _SET_BACK}
    # Kafka may take longer than the database lets a transaction wait.
    connection.rollback()
    # First what Kafka has: the roles may go on meanwhile, and they commit to the database first.
    committed = {role: groups.committed(name, TOPICS[role]) for role, name in names.items()}
    queues = {role: groups.queues(role) for role in TOPICS}
    progress = {role: read_progress(connection, topics) for role, topics in TOPICS.items()}
    ahead = sum(records_ahead(committed[role], progress[role]) for role in _SET_BACK)
    forgotten = forgotten_batches(settings, connection, committed["splitter"], progress["splitter"])
    lost = [finding for role in TOPICS for finding in _lost(queues[role], progress[role])]
    yield from lost
    if forgotten.since is not None:
        detail = (
            f"the database is older than the topics: it does not know {forgotten.batches:,} batches with {forgotten.items:,} items that the"
            f" splitter has passed, the first of {forgotten.since:%Y-%m-%d %H:%M:%S} UTC"
        )
        yield Finding(_SUBJECT, State.UNSAFE, detail, _fix(forgotten.since))
    elif ahead:
        detail = (
            f"the database is older than the topics: it has not handled {ahead:,} events that the consumer groups have passed"
        )
        # The new groups begin where the database's progress is, if that is earlier.
        yield Finding(_SUBJECT, State.UNSAFE, detail, _fix(datetime.now(UTC)))
    elif not (lost or forgotten.undecided):
        detail = f"what the groups have passed is handled, and the last {LOOK_BACK:,} batch events of each partition are known"
        yield Finding(_SUBJECT, State.OK, detail)
    if forgotten.undecided:
        yield _undecided(forgotten.undecided)


def _undecided(batches: Sequence[UUID]) -> Finding:
    """The fix renews no groups, because a renewed group might register a batch although its sender was told that it is refused."""
    detail = (
        f"{len(batches):,} batches that the splitter has passed may be forgotten: the database does not know them, and the rejections under"
        f" their ids do not tell whether they were refused; the first is {batches[0]}"
    )
    fix = (
        f"run: bulkreg replay --batch {batches[0]}; if it says that the batch is not covered, ask the sender: a batch that was accepted has to"
        " be sent again under its id, and one that was refused is not missing"
    )
    return Finding(_SUBJECT, State.ADVICE, detail, fix)


def _lost(queues: Queues, progress: Positions) -> Iterator[Finding]:
    for place, queue in queues.items():
        position = progress.get(place)
        if position is not None and position.topic_id == queue.topic_id and position.next_offset > queue.next_offset:
            topic, partition = place
            detail = (
                f"partition {partition} of {topic.value} ends at {queue.next_offset:,}, but the database has handled"
                f" {position.next_offset - queue.next_offset:,} more events: Kafka has lost them"
            )
            fix = (
                "look for an unclean leader election or a restored disk in the brokers' logs; then run: bulkreg replay, which names the batches"
                " that the topics no longer cover"
            )
            yield Finding(_SUBJECT, State.UNSAFE, detail, fix)


def _fix(since: datetime) -> str:
    start = f"{since - _BEFORE:%Y-%m-%dT%H:%M}"
    renewals = " && ".join(f"bulkreg groups renew {role} --from {start}" for role in _SET_BACK)
    return (
        f"run: {renewals}; the roles accept and register what is missing, each item once, and tell webhooks of it;"
        " when bulkreg groups list shows that nothing waits, run: bulkreg replay --promote && bulkreg verify"
    )
