"""The event that puts a record aside, with where it came from and why."""

import base64
import hashlib
from datetime import UTC, datetime

import orjson
from confluent_kafka import Message

from consumers.decoding import Entry, raw_headers
from consumers.handler import RefusedError
from schemas.envelope import OutgoingEvent, Topic, headers, rfc3339, trace_id_of
from schemas.events import DEAD_LETTER, DeadLetter
from schemas.ids import content_id

# What reading the record again needs. Others may hold anything, notes too, and headers are shown in listings.
KEPT_HEADERS = frozenset(
    {"ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type", "traceparent"},
)
MAX_HEADER_LENGTH = 1_000


def dead_letter(entry: Entry, refusal: RefusedError) -> OutgoingEvent:
    """The dead letter of a record: the same bytes each time it is refused for the same reason. The record's own bytes are whole.

    A topic that was made anew counts from 0 again, so a place alone says not which record it was: its time and its bytes do.
    """
    message = entry.message
    cluster_topic = str(message.topic())
    partition, offset = entry.partition.partition, entry.offset
    kept = _kept_headers(message)
    data = DeadLetter(
        topic=cluster_topic,
        partition=partition,
        offset=offset,
        reason=refusal.reason,
        detail=str(refusal),
        headers=kept,
        key=_base64(message.key()),
        value=_base64(message.value()),
    )
    value = orjson.dumps(data.model_dump())
    time = datetime.fromtimestamp(max(0, message.timestamp()[1]) / 1000, UTC)
    identity = content_id(DEAD_LETTER, cluster_topic, partition, offset, rfc3339(time), value=value)
    trace_id = trace_id_of(kept.get("traceparent")) or hashlib.sha256(identity.bytes).hexdigest()[:32]
    return OutgoingEvent(
        Topic.DEAD_LETTER,
        f"{cluster_topic}/{partition}/{offset}",
        headers(identity, DEAD_LETTER, time, trace_id),
        value,
    )


def _kept_headers(message: Message) -> dict[str, str]:
    return {
        name: (value or b"").decode(errors="replace")[:MAX_HEADER_LENGTH]
        for name, value in raw_headers(message)
        if name in KEPT_HEADERS
    }


def _base64(raw: bytes | None) -> str | None:
    return None if raw is None else base64.b64encode(raw).decode()
