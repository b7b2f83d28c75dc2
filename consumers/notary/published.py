"""Reads the checkpoints that are on the lifecycle topic, and compares them with the logs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import Engine

from consumers.loop.raw_record import RawRecord
from consumers.reading.topic_reader import Span, TopicReader
from orchestrator.process import metrics
from orchestrator.process.actions import Action, log_action
from orchestrator.process.settings import Settings
from orchestrator.receipts.checkpoint import BadCheckpointError, SignedCheckpoint, is_origin_of_log
from orchestrator.receipts.keys import VerifierKey
from orchestrator.storage.receipt_appending import take_turn
from orchestrator.storage.receipt_checkpoints import (
    Published,
    UnknownCheckpoint,
    compare_published,
    note_reading,
    read_keys,
    read_up_to,
)
from schemas.envelope import Topic, UnreadableError, open_envelope
from schemas.event_reader import read_event
from schemas.events import CHECKPOINT_SIGNED, CheckpointSigned


def compare_topic(
    settings: Settings, engine: Engine, *, stall_s: float | None = None, is_stopping: Callable[[], bool] = lambda: False
) -> int:
    """Compares the checkpoints on the topic since the last time with the logs. Returns how many there were.

    Raises KafkaException if the broker does not respond, ReadingStoppedError, DBAPIError. The database keeps how far it came. So after a
    restore it reads again what was published since the copy was made. A key that becomes known sets it back to the beginning (`add_key`).
    """
    number = 0
    with TopicReader(settings, stall_s=stall_s, is_stopping=is_stopping) as reader:
        all_spans = reader.spans([Topic.LIFECYCLE])
        with engine.begin() as connection:
            known = read_up_to(connection)
            keys = read_keys(connection)
        # A topic that was deleted and recreated begins again.
        spans = [_unread(span, known.get(span.partition, 0)) for span in all_spans]
        for chunk in reader.read(spans):
            found = published_checkpoints([raw for _, raw in chunk], keys).signed
            if found:
                with engine.begin() as connection:
                    take_turn(connection)
                    compare_published(connection, found)
            number += len(found)
    with engine.begin() as connection:
        take_turn(connection)
        # The checkpoints of a key that was added meanwhile were ignored, and have to be read again.
        if read_keys(connection) == keys:
            note_reading(connection, {span.partition: span.end for span in spans})
    return number


def _unread(span: Span, next_offset: int) -> Span:
    return replace(span, first=next_offset) if span.first <= next_offset <= span.end else span


class FoundCheckpoints(NamedTuple):
    """The checkpoints that one of the known keys has signed, and the records that only say that they are checkpoints."""

    signed: Sequence[Published]
    ignored: Sequence[UnknownCheckpoint] = ()


def published_checkpoints(records: Sequence[RawRecord], keys: Sequence[VerifierKey]) -> FoundCheckpoints:
    """The checkpoints among records of the lifecycle topic.

    Everybody who may write to the topic may write records that look like checkpoints, and a false one would stop a log for good. So only
    a checkpoint that one of the keys has signed counts. Others are named in the log and counted.
    """
    signed, ignored = [], []
    for raw in records:
        data = _read(raw)
        if data is None:
            continue
        if (published := _signed(data, keys)) is not None:
            signed.append(published)
            continue
        ignored.append(_unknown(raw, data))
        metrics.RECEIPT_CHECKPOINTS_IGNORED.inc()
        log_action(Action.CHECKPOINT_IGNORED, role=None, topic=Topic.LIFECYCLE.value, partition=raw.partition, offset=raw.offset)
    return FoundCheckpoints(signed, ignored)


def _read(raw: RawRecord) -> CheckpointSigned | None:
    """The event; None if another program has written something else."""
    try:
        envelope = open_envelope(raw.headers, raw.value)
        if envelope.type != CHECKPOINT_SIGNED:
            return None
        data = read_event(Topic.LIFECYCLE, envelope)
    except UnreadableError:
        return None
    assert isinstance(data, CheckpointSigned)
    return data


def _signed(data: CheckpointSigned, keys: Sequence[VerifierKey]) -> Published | None:
    """What the signed text says; None if no key has signed it, or it is about another log than the event says."""
    try:
        note = SignedCheckpoint.parse(data.checkpoint)
    except BadCheckpointError:
        return None
    checkpoint = note.checkpoint
    if not is_origin_of_log(checkpoint.origin, data.organization_id, data.log) or not note.is_signed_by_one_of(keys):
        return None
    return Published(data.organization_id, data.log, checkpoint.size, checkpoint.root, data.checkpoint)


def _unknown(raw: RawRecord, data: CheckpointSigned) -> UnknownCheckpoint:
    """Where the record is, and what its text says about itself."""
    try:
        note = SignedCheckpoint.parse(data.checkpoint)
    except BadCheckpointError:
        return UnknownCheckpoint(data.organization_id, data.log, raw.partition, raw.offset, None, ())
    keys = [f"{each.name}+{each.key_id.hex()}" for each in note.signatures]
    return UnknownCheckpoint(data.organization_id, data.log, raw.partition, raw.offset, note.checkpoint.origin, keys)


def every_published_checkpoint(settings: Settings, keys: Sequence[VerifierKey]) -> FoundCheckpoints:
    """All checkpoints that the topic holds. Raises KafkaException if the broker does not respond."""
    with TopicReader(settings) as reader:
        chunks = reader.read(reader.spans([Topic.LIFECYCLE]))
        found = [published_checkpoints([raw for _, raw in chunk], keys) for chunk in chunks]
    return FoundCheckpoints([one for each in found for one in each.signed], [one for each in found for one in each.ignored])
