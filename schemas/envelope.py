"""The CloudEvents 1.0 envelope: writes and reads Kafka's binary mode, and reads structured mode.

Headers are metadata for tools and tracing. The effect of an event depends only on its topic, type and data, never on another header
(docs/events.md).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from schemas import strict_json

Header = tuple[str, bytes]

SOURCE = "/bulk-registration"
CONTENT_TYPE_JSON = b"application/json"
CONTENT_TYPE_STRUCTURED = "application/cloudevents+json"
TYPE_PREFIX = "no.bulk-registration."

MAX_ATTRIBUTE_LENGTH = 1_000
"""The most characters in an event's id and in its source, which are stored and returned."""


MAX_MESSAGE_BYTES = 2 * 1024 * 1024
"""The size of a record that a topic accepts and that is read. The largest event that we write has 1.3 MB: a part of 500 items whose every text
has 100 characters that JSON writes as six bytes each."""

MAX_DEAD_LETTER_BYTES = 2 * MAX_MESSAGE_BYTES
"""A dead letter contains a record of MAX_MESSAGE_BYTES as base64, which is a third longer, and its origin."""

ITEM_HEADERS: tuple[Header, ...] = (
    ("ce_specversion", b"1.0"),
    ("ce_source", SOURCE.encode()),
    ("content-type", CONTENT_TYPE_JSON),
)
"""The first headers of a command or a result. Its own headers follow."""
_HEXADECIMAL = frozenset("0123456789abcdef")
_ITEM_NAMES = ("ce_id", "ce_type", "ce_time", "traceparent")

_CLOUD_EVENTS = "application/cloudevents"
_CLOUD_EVENTS_BATCH = "application/cloudevents-batch"

# The byte order marks of UTF-8, and of UTF-16 in both orders.
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


class Topic(StrEnum):
    """The topics by their role. The name on the cluster consists of prefix, role and version."""

    BATCHES = "batches"
    COMMANDS = "commands"
    COMMANDS_BULK = "commands-bulk"
    RESULTS = "results"
    LIFECYCLE = "lifecycle"
    DEAD_LETTER = "dead-letter"

    def on_cluster(self, prefix: str) -> str:
        """The topic's name in Kafka."""
        return f"{prefix}.{self.value}.v1"


class UnreadableError(ValueError):
    """A record is not an event that its topic allows. `reason` is a stable code; the message says what is wrong."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class OutgoingEvent(NamedTuple):
    """An event ready to be produced: its topic and key, and its exact bytes."""

    topic: Topic
    key: str
    headers: tuple[Header, ...]
    value: bytes


class Envelope(NamedTuple):
    """The envelope of a received event. `data` is the undecoded JSON."""

    id: str
    source: str
    type: str
    data: bytes
    traceparent: str | None


def rfc3339(moment: datetime) -> str:
    """A moment as CloudEvents and the API write it, in UTC with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


_SAMPLED = "-01"


def trace_of(value: str | None) -> str | None:
    """The trace that a `traceparent` names, or None if it is invalid (W3C Trace Context, 3.2). A trace is its id, with `-01` behind it if it
    is sampled. So a batch has it in the database, and the events of a batch are the same whenever they are written."""
    if value is None:
        return None
    fields = value.split("-")
    if len(fields) < 4 or len(fields[1]) != 32 or set(fields[1]) <= {"0"} or not set(fields[1]) <= _HEXADECIMAL:
        return None
    flags = fields[3]
    is_set = len(flags) == 2 and set(flags) <= _HEXADECIMAL and bool(int(flags, 16) & 1)
    return new_trace(fields[1], sampled=is_set)


def new_trace(trace_id: str, *, sampled: bool) -> str:
    """The trace with this id."""
    return trace_id + _SAMPLED if sampled else trace_id


def id_of_trace(trace: str) -> str:
    """The id of a trace."""
    return trace[:32]


def is_sampled(trace: str) -> bool:
    """Whether spans of the trace are sent."""
    return trace.endswith(_SAMPLED)


def span_id_of(value: str) -> str | None:
    """The id of the sender's span in a `traceparent`, or None if it has none."""
    fields = value.split("-")
    is_id = len(fields) >= 3 and len(fields[2]) == 16 and set(fields[2]) <= _HEXADECIMAL and not set(fields[2]) <= {"0"}
    return fields[2] if is_id else None


def traceparent(trace: str, event_id: UUID) -> str:
    """The W3C trace context: the batch's trace, and a span derived from the event's id, so that a repeated event has the same bytes."""
    return in_trace(trace, hashlib.sha256(event_id.bytes).hexdigest()[:16])


def in_trace(trace: str, span_id: str) -> str:
    """The W3C trace context of a span."""
    return f"00-{id_of_trace(trace)}-{span_id}-{'01' if is_sampled(trace) else '00'}"


def headers(event_id: UUID, event_type: str, time: datetime, trace: str, *, subject: str = "") -> tuple[Header, ...]:
    """The binary-mode headers of one of our events."""
    optional = (("ce_subject", subject.encode()),) if subject else ()
    return (
        ("ce_specversion", b"1.0"),
        ("ce_id", str(event_id).encode()),
        ("ce_source", SOURCE.encode()),
        ("ce_type", event_type.encode()),
        ("ce_time", rfc3339(time).encode()),
        ("content-type", CONTENT_TYPE_JSON),
        ("traceparent", traceparent(trace, event_id).encode()),
        *optional,
    )


def _text(raw: Mapping[str, bytes | None], name: str) -> str | None:
    value = raw.get(name)
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise UnreadableError("bad_envelope", f"header {name} is not UTF-8") from error


def open_envelope(raw_headers: Sequence[tuple[str, bytes | None]], value: bytes | None) -> Envelope:
    """Reads a record as a CloudEvent, binary or structured. Raises UnreadableError for anything else.

    If a header occurs twice, the last one counts. Names of headers and media types are case-insensitive.
    """
    if value is None:
        raise UnreadableError("no_value", "the record has no value")
    if value.startswith(_BYTE_ORDER_MARKS):
        raise UnreadableError("not_json", "the value begins with a byte order mark; send UTF-8 without one")
    if len(raw_headers) == 7 and raw_headers[:3] == ITEM_HEADERS and (envelope := _of_item(raw_headers, value)) is not None:
        return envelope
    raw = {name.lower(): header for name, header in raw_headers}
    if raw.get("content-type") != CONTENT_TYPE_JSON and _is_structured(_text(raw, "content-type") or ""):
        return _open_structured(value, _text(raw, "traceparent"))
    return _checked(
        _text(raw, "ce_specversion"),
        _text(raw, "ce_id"),
        _text(raw, "ce_source"),
        _text(raw, "ce_type"),
        value,
        _text(raw, "traceparent"),
    )


def _of_item(raw_headers: Sequence[tuple[str, bytes | None]], value: bytes) -> Envelope | None:
    """The envelope of a command or a result as we write it; None for any other record, which needs all checks."""
    (id_name, id_), (type_name, type_), (time_name, _), (trace_name, trace) = raw_headers[3:]
    if (id_name, type_name, time_name, trace_name) != _ITEM_NAMES or not (id_ and type_ and trace):
        return None
    try:
        text = id_.decode()
        envelope = Envelope(text, SOURCE, type_.decode(), value, trace.decode())
    except UnicodeDecodeError:
        return None
    return envelope if len(text) <= MAX_ATTRIBUTE_LENGTH and text.isprintable() else None


def _is_structured(content_type: str) -> bool:
    """Whether the value is a whole CloudEvent. Raises UnreadableError for an unsupported format or character set."""
    media_type, *parameters = [part.strip().lower() for part in content_type.split(";")]
    for parameter in parameters:
        name, _, text = parameter.partition("=")
        if name.rstrip() == "charset" and text.strip().strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise UnreadableError("bad_envelope", "content-type names a character set other than UTF-8; events are UTF-8")
    if not media_type.startswith(_CLOUD_EVENTS):
        return False
    if media_type.startswith(_CLOUD_EVENTS_BATCH):
        raise UnreadableError("bad_envelope", "batches of CloudEvents are not supported; send each event as a record of its own")
    if media_type != CONTENT_TYPE_STRUCTURED:
        raise UnreadableError(
            "bad_envelope", f"the only supported content-type of a CloudEvent in structured mode is {CONTENT_TYPE_STRUCTURED}"
        )
    return True


def _open_structured(value: bytes, header_traceparent: str | None) -> Envelope:
    try:
        document = strict_json.loads(value, max_depth=strict_json.MAX_JSON_DEPTH + 1)
    except strict_json.BadJsonError as error:
        raise UnreadableError("not_json", f"the structured event is not JSON: {error}") from error
    if isinstance(document, dict) and document.get("data_base64") is not None:
        raise UnreadableError("bad_envelope", "data_base64 is not supported; send the data as JSON, in `data`")
    if not isinstance(document, dict) or not isinstance(document.get("data"), dict):
        raise UnreadableError("bad_envelope", "a structured event must be a JSON object with an object `data`")
    fields: dict[str, str | None] = {}
    for name in ("specversion", "id", "source", "type", "traceparent"):
        field = document.get(name)
        if field is not None and not isinstance(field, str):
            raise UnreadableError("bad_envelope", f"attribute {name} is not a string")
        fields[name] = field
    trace = fields["traceparent"] or header_traceparent
    return _checked(fields["specversion"], fields["id"], fields["source"], fields["type"], _as_json(document["data"]), trace)


def _as_json(data: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(data)
    except TypeError:
        # orjson refuses unpaired surrogates and integers beyond 64 bits. The event's model refuses them, too, and names the place.
        return json.dumps(data).encode()


def _checked(
    specversion: str | None, id_: str | None, source: str | None, type_: str | None, data: bytes, trace: str | None
) -> Envelope:
    if not (specversion and id_ and source and type_):
        found = {"specversion": specversion, "id": id_, "source": source, "type": type_}
        missing = [name for name, field in found.items() if not field]
        raise UnreadableError("bad_envelope", f"CloudEvents attributes are missing: {', '.join(missing)}")
    if specversion != "1.0":
        raise UnreadableError("bad_envelope", "specversion is not 1.0")
    if len(id_) > MAX_ATTRIBUTE_LENGTH or len(source) > MAX_ATTRIBUTE_LENGTH or not (id_.isprintable() and source.isprintable()):
        name = "source" if len(id_) <= MAX_ATTRIBUTE_LENGTH and id_.isprintable() else "id"
        raise UnreadableError("bad_envelope", f"{name} is longer than {MAX_ATTRIBUTE_LENGTH:,} characters, or not printable")
    return Envelope(id_, source, type_, data, trace)
