"""The event that puts a record aside, with where the record came from and why it was refused."""

import base64
import hashlib
from datetime import UTC, datetime

import orjson

from consumers.loop.decoding import Entry
from consumers.loop.handler import RefusedError
from consumers.loop.raw_record import RawRecord
from schemas.envelope import MAX_ATTRIBUTE_LENGTH, MAX_MESSAGE_BYTES, OutgoingEvent, Topic, headers, rfc3339, trace_of
from schemas.events import DEAD_LETTER, DeadLetter
from schemas.ids import content_id

# The headers that are needed to read the record again. Other headers may hold anything, also notes, and listings show headers.
KEPT_HEADERS = frozenset(
    {"ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type", "traceparent"},
)
# One more than an attribute may have: a header that is too long stays too long when the record is sent again.
MAX_HEADER_LENGTH = MAX_ATTRIBUTE_LENGTH + 1
# A dead letter always fits its topic. Each of its parts has a limit, and together they stay below MAX_DEAD_LETTER_BYTES: base64 makes
# a value and a key a third longer, and a character of a header or a detail takes six bytes at most.
MAX_KEPT_KEY_BYTES = 64 * 1024
# How much of a value is kept when the whole has more than MAX_MESSAGE_BYTES: enough to recognize it.
KEPT_OF_LARGE_VALUE_BYTES = 64 * 1024
MAX_DETAIL_LENGTH = 20_000


def dead_letter(entry: Entry, refusal: RefusedError) -> OutgoingEvent:
    """Returns the dead letter of a record: the same bytes each time the record is refused for the same reason.

    It holds all of the record's bytes, unless they are more than a topic takes. Then it says so, and says where the record is. Offsets of
    a topic that was recreated start at 0 again, so a place alone does not identify a record: its time and its bytes do.
    """
    raw = entry.raw
    kept = _kept_headers(raw)
    value = _beginning(raw.value, MAX_MESSAGE_BYTES, KEPT_OF_LARGE_VALUE_BYTES)
    key = _beginning(raw.key, MAX_KEPT_KEY_BYTES, MAX_KEPT_KEY_BYTES)
    data = DeadLetter(
        topic=raw.cluster_topic,
        partition=raw.partition,
        offset=raw.offset,
        reason=refusal.reason,
        # The detail may contain a sender's field names, and a lone surrogate in one of them can't be encoded.
        detail=str(refusal)[:MAX_DETAIL_LENGTH].encode(errors="replace").decode(),
        headers=kept,
        key=_base64(key),
        value=_base64(value),
        key_truncated=key != raw.key,
        value_truncated=value != raw.value,
        value_bytes=None if raw.value is None else len(raw.value),
    )
    content = orjson.dumps(data.model_dump())
    time = datetime.fromtimestamp(raw.timestamp_ms / 1000, UTC)
    identity = content_id(DEAD_LETTER, raw.cluster_topic, raw.partition, raw.offset, rfc3339(time), value=content)
    trace = trace_of(kept.get("traceparent")) or hashlib.sha256(identity.bytes).hexdigest()[:32]
    return OutgoingEvent(
        Topic.DEAD_LETTER,
        f"{raw.cluster_topic}/{raw.partition}/{raw.offset}",
        headers(identity, DEAD_LETTER, time, trace),
        content,
    )


def _kept_headers(raw: RawRecord) -> dict[str, str]:
    return {
        name.lower(): (value or b"")[: 4 * MAX_HEADER_LENGTH].decode(errors="replace")[:MAX_HEADER_LENGTH]
        for name, value in raw.headers
        if name.lower() in KEPT_HEADERS
    }


def _beginning(raw: bytes | None, limit: int, kept: int) -> bytes | None:
    return raw if raw is None or len(raw) <= limit else raw[:kept]


def _base64(raw: bytes | None) -> str | None:
    return None if raw is None else base64.b64encode(raw).decode()
