"""Reads the checkpoints that are on the lifecycle topic, and compares them with the logs."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import replace

from sqlalchemy import Engine

from consumers.loop.raw_record import RawRecord
from consumers.reading.topic_reader import Span, TopicReader
from orchestrator.process.settings import Settings
from orchestrator.storage.receipt_appending import take_turn
from orchestrator.storage.receipt_checkpoints import Published, compare_published, note_reading, read_up_to
from schemas.envelope import Topic, UnreadableError, open_envelope
from schemas.events import CHECKPOINT_SIGNED, CheckpointSigned, read_event


def compare_topic(settings: Settings, engine: Engine) -> int:
    """Compares the checkpoints on the topic since the last time with the logs. Returns how many there were.

    Raises KafkaException if the broker does not respond, DBAPIError. How far it came is restored with the database, so after that
    it reads what was published since the copy.
    """
    number = 0
    with TopicReader(settings) as reader:
        with engine.begin() as connection:
            known = read_up_to(connection)
        # A topic that was deleted and recreated begins again.
        spans = [_unread(span, known.get(span.partition, 0)) for span in reader.spans([Topic.LIFECYCLE])]
        for chunk in reader.read(spans):
            found = list(published_checkpoints([raw for _, raw in chunk]))
            if found:
                with engine.begin() as connection:
                    take_turn(connection)
                    compare_published(connection, found)
            number += len(found)
    with engine.begin() as connection:
        note_reading(connection, {span.partition: span.end for span in spans})
    return number


def _unread(span: Span, next_offset: int) -> Span:
    return replace(span, first=next_offset) if span.first <= next_offset <= span.end else span


def published_checkpoints(records: Sequence[RawRecord]) -> Iterator[Published]:
    """The checkpoints among records of the lifecycle topic. Skips whatever another program may have written."""
    for raw in records:
        try:
            envelope = open_envelope(raw.headers, raw.value)
            if envelope.type != CHECKPOINT_SIGNED:
                continue
            data = read_event(Topic.LIFECYCLE, envelope)
            assert isinstance(data, CheckpointSigned)
            root = base64.b64decode(data.root, validate=True)
        except (UnreadableError, ValueError):
            continue
        yield Published(data.organization_id, data.log, data.size, root, data.checkpoint)


def every_published_checkpoint(settings: Settings) -> Sequence[Published]:
    """All checkpoints that the topic holds. Raises KafkaException if the broker does not respond."""
    with TopicReader(settings) as reader:
        chunks = reader.read(reader.spans([Topic.LIFECYCLE]))
        return [each for chunk in chunks for each in published_checkpoints([raw for _, raw in chunk])]
