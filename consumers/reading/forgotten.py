"""Finds what a restored database has forgotten: batches that the topics have, and that the splitter has passed.

A role commits its effect to the database before its offsets to Kafka. So a group is never ahead of `consumer_progress`, unless the database
was restored from an older copy. Once the roles have handled new records, the progress is ahead again. So the latest batches that the group
has passed are looked up, too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson
from sqlalchemy import Connection

from consumers.loop.raw_record import RawRecord
from consumers.reading.submissions import Submissions
from consumers.reading.topic_reader import Span, TopicReader
from orchestrator.process.settings import Settings
from orchestrator.storage.known_batches import unknown_among
from orchestrator.storage.progress import Position
from schemas.envelope import MAX_MESSAGE_BYTES, Envelope, Topic, UnreadableError, open_envelope
from schemas.event_reader import read_event
from schemas.events import BATCH_REJECTED, BATCH_SUBMITTED, BatchSubmitted

Positions = Mapping[tuple[Topic, int], Position]

LOOK_BACK = 1_000
"""How many records of each partition are read that both the group and the database have passed."""


@dataclass(frozen=True, slots=True)
class ForgottenBatches:
    """What the database has forgotten. `since` is the time of the oldest of its events; None if nothing is forgotten."""

    batches: int
    items: int
    since: datetime | None
    undecided: Sequence[UUID] = ()
    """Other batches, which are forgotten or were refused: the rejections do not tell which."""


def records_ahead(committed: Positions, progress: Positions) -> int:
    """Returns how many records the groups have passed and the database has not handled, in topics that were not replaced."""
    return sum(
        max(0, position.next_offset - handled.next_offset)
        for place, position in committed.items()
        if (handled := progress.get(place, Position(0, position.topic_id))).topic_id == position.topic_id
    )


def forgotten_batches(settings: Settings, connection: Connection, committed: Positions, progress: Positions) -> ForgottenBatches:
    """Reads the batches that the splitter's group has passed: what the database has not handled, and LOOK_BACK records before. Raises
    KafkaException.

    Ends the connection's transaction before it reads, because reading may take longer than the database lets a transaction wait.
    """
    connection.rollback()
    with TopicReader(settings) as reader:
        spans = [_passed(span, committed, progress) for span in reader.spans([Topic.BATCHES])]
        named = set(_named(reader, spans))
        unknown = unknown_among(connection, named)
        connection.rollback()
        if not unknown:
            return ForgottenBatches(0, 0, None)
        # Their events are read again, with all checks, because the splitter has put aside what does not pass them.
        submissions = Submissions(unknown)
        for raw, envelope in _envelopes(reader, spans, BATCH_SUBMITTED):
            submissions.add(envelope, raw.timestamp_ms)
        if submissions.since is not None:  # a rejection comes after what it rejects
            for raw, envelope in _envelopes(reader, reader.spans([Topic.LIFECYCLE], since=submissions.since), BATCH_REJECTED):
                submissions.add_rejection(raw.headers, envelope)
    found = submissions.not_refused()
    lost = [each for each in found if each.is_certain]
    undecided = [each.batch_id for each in found if not each.is_certain]
    since = min((each.since for each in lost), default=None)
    return ForgottenBatches(len(lost), sum(each.items for each in lost), since, undecided)


def _passed(span: Span, committed: Positions, progress: Positions) -> Span:
    place = (span.topic, span.partition)
    end = min(span.end, committed.get(place, Position(0)).next_offset)
    handled = min(end, progress.get(place, Position(0)).next_offset)
    return Span(span.topic, span.partition, max(span.first, handled - LOOK_BACK), end)


def _named(reader: TopicReader, spans: list[Span]) -> Iterator[UUID]:
    """Yields the batches that submissions name. Most events end here, so their items are not checked."""
    for _, envelope in _envelopes(reader, spans, BATCH_SUBMITTED):
        if (batch_id := _batch_of(envelope)) is not None:
            yield batch_id


def _batch_of(envelope: Envelope) -> UUID | None:
    """The batch of a submission; None if the splitter has put it aside as a dead letter."""
    try:
        return UUID(orjson.loads(envelope.data)["batch_id"])
    except orjson.JSONDecodeError:
        return _strictly_read(envelope)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _strictly_read(envelope: Envelope) -> UUID | None:
    """The same by the parser of the splitter, which accepts an unpaired surrogate in a field that nobody reads."""
    try:
        data = read_event(Topic.BATCHES, envelope)
    except UnreadableError:
        return None
    return data.batch_id if isinstance(data, BatchSubmitted) else None


def _envelopes(reader: TopicReader, spans: list[Span], event_type: str) -> Iterator[tuple[RawRecord, Envelope]]:
    for chunk in reader.read(spans):
        for _, raw in chunk:
            if raw.bytes > MAX_MESSAGE_BYTES:
                continue  # the splitter has put it aside unread
            try:
                envelope = open_envelope(raw.headers, raw.value)
            except UnreadableError:
                continue
            if envelope.type == event_type:
                yield raw, envelope
