"""Reads the dead-letter topic as a list: each record with its origin, the reason, and whether it was sent again."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

import orjson

from consumers.loop.decoding import BAD_HEADERS
from consumers.loop.raw_record import RawRecord
from consumers.reading.topic_reader import TopicReader
from orchestrator.process.settings import Settings
from schemas.envelope import MAX_DEAD_LETTER_BYTES, OutgoingEvent, Topic, UnreadableError, open_envelope, rfc3339
from schemas.event_reader import read_event
from schemas.events import EVENTS, DeadLetter, DeadLetterRedriven, EventData

_HIDDEN = "(hidden)"
_CLOUD_EVENT = frozenset({"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "traceparent"})


def _field_names(models: Iterable[type[EventData]]) -> Iterator[str]:
    for model in models:
        schema = model.model_json_schema()
        for part in (schema, *schema.get("$defs", {}).values()):
            yield from part["properties"]


# Text under any other name, or under none, may be notes that a sender put in the wrong place.
_SHOWN = (_CLOUD_EVENT | frozenset(_field_names(model for models in EVENTS.values() for model in models))) - {"notes"}


@dataclass(frozen=True, slots=True)
class PutAside:
    """A dead letter. `topic` is the role of the topic that its record came from."""

    id: UUID
    topic: Topic
    put_aside_at: str
    letter: DeadLetter
    redriven_at: str | None = None

    @property
    def value(self) -> bytes | None:
        """The record's value, unchanged. Of a very large one, only the beginning."""
        return None if self.letter.value is None else base64.b64decode(self.letter.value)

    @property
    def key(self) -> bytes | None:
        """The record's key, unchanged. Of a very large one, only the beginning."""
        return None if self.letter.key is None else base64.b64decode(self.letter.key)

    @property
    def is_truncated(self) -> bool:
        """Whether the letter holds only a part of the record."""
        return self.letter.key_truncated or self.letter.value_truncated

    def shown_value(self) -> object:
        """The value for display: JSON without notes, and without any text that may be notes. Values that are not JSON are not shown."""
        raw = self.value
        if raw is None:
            return None
        if self.letter.value_truncated:
            return f"({self.letter.value_bytes} bytes, of which the letter holds the first {len(raw)})"
        try:
            return _without_notes("", orjson.loads(raw))
        except orjson.JSONDecodeError:
            return f"({len(raw)} bytes that are not JSON)"
        except RecursionError:
            return f"({len(raw)} bytes of JSON, nested too deeply to be shown)"

    def as_event(self, original: RawRecord | None = None) -> OutgoingEvent:
        """Returns the record as an event for its own topic. It has the same id, so a second copy is harmless. A letter that does not hold
        the whole record needs `original`, the record itself. Raises CannotRedriveError.

        The key decides only the partition. A key that is not UTF-8 may lead to another partition than before.
        """
        if self.letter.reason == BAD_HEADERS:
            raise CannotRedriveError(
                f"Dead letter {self.id}: the record's headers cannot be read. Its sender has to send it again."
            )
        key, value = self.key, self.value
        if self.is_truncated:
            key, value = self._whole(original)
        if value is None:
            raise CannotRedriveError(f"Dead letter {self.id} has no value: there is nothing to send.")
        if len(key or b"") + len(value) > MAX_DEAD_LETTER_BYTES:
            raise CannotRedriveError(
                f"Dead letter {self.id}: the record is larger than its topic takes. Its sender has to send less."
            )
        kept = tuple((name, text.encode()) for name, text in self.letter.headers.items())
        return OutgoingEvent(self.topic, (key or b"").decode(errors="replace"), kept, value)

    def _whole(self, original: RawRecord | None) -> tuple[bytes | None, bytes | None]:
        """Returns the key and the value of the record itself, if it still is the one that was put aside."""
        if (
            original is None
            or not _begins_with(original.value, self.value)
            or not _begins_with(original.key, self.key)
            or len(original.value or b"") != self.letter.value_bytes
        ):
            raise CannotRedriveError(
                f"Dead letter {self.id} holds only the beginning of a large record, and the topic no longer holds the record itself."
                " Its sender has to send it again."
            )
        return original.key, original.value


class CannotRedriveError(Exception):
    """A record can't be sent again. The message says which, why, and what to do."""


def _begins_with(whole: bytes | None, beginning: bytes | None) -> bool:
    return whole is beginning is None or (whole is not None and beginning is not None and whole.startswith(beginning))


def _without_notes(name: str, value: object) -> object:
    if name == "notes" or (isinstance(value, str) and name not in _SHOWN):
        return _HIDDEN
    if isinstance(value, dict):
        return {inner: _without_notes(inner, each) for inner, each in value.items()}
    if isinstance(value, list):
        return [_without_notes(name, each) for each in value]
    return value


def read_dead_letters(settings: Settings) -> list[PutAside]:
    """Returns every dead letter that the topic holds, oldest first. Removes duplicates."""
    names = {topic.on_cluster(settings.topic_prefix): topic for topic in Topic}
    letters: dict[UUID, PutAside] = {}
    for raw in _records(settings):
        try:
            identity, data = _read(raw)
        except (UnreadableError, ValueError):
            continue  # another program wrote it: only the product's own letters are listed
        if isinstance(data, DeadLetterRedriven) and data.dead_letter_id in letters:
            letters[data.dead_letter_id] = replace(letters[data.dead_letter_id], redriven_at=data.redriven_at)
        elif isinstance(data, DeadLetter) and data.topic in names:
            time = rfc3339(datetime.fromtimestamp(raw.timestamp_ms / 1000, UTC))
            letters.setdefault(identity, PutAside(identity, names[data.topic], time, data))
    return list(letters.values())


def _records(settings: Settings) -> Iterator[RawRecord]:
    """Everything that the dead-letter topic holds."""
    with TopicReader(settings) as reader:
        for chunk in reader.read(reader.spans([Topic.DEAD_LETTER])):
            for _, raw in chunk:
                yield raw


def _read(raw: RawRecord) -> tuple[UUID, EventData]:
    """Decodes a record of the dead-letter topic. Raises UnreadableError, ValueError."""
    envelope = open_envelope(raw.headers, raw.value)
    data = read_event(Topic.DEAD_LETTER, envelope)
    if isinstance(data, DeadLetter):
        for encoded in (data.key, data.value):
            base64.b64decode(encoded or "", validate=True)
    return UUID(envelope.id), data


def read_originals(settings: Settings, letters: Sequence[PutAside]) -> dict[UUID, RawRecord]:
    """Returns the records that the letters are about, as far as their topics still hold them. Raises KafkaException."""
    with TopicReader(settings) as reader:
        found = {each.id: reader.record_at(each.topic, each.letter.partition, each.letter.offset) for each in letters}
    return {identity: raw for identity, raw in found.items() if raw is not None}
