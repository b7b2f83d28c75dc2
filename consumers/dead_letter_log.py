"""The dead-letter topic as a list: what could not be read, where it came from, why, and whether it was sent again."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import orjson

from consumers.topic_reader import TopicReader
from orchestrator.settings import Settings
from schemas.envelope import OutgoingEvent, Topic, UnreadableError, open_envelope, rfc3339
from schemas.events import EVENTS, DeadLetter, DeadLetterRedriven, EventData, read_event

_HIDDEN = "(hidden)"
_CLOUD_EVENT = frozenset({"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "traceparent"})


def _field_names(models: Iterable[type[EventData]]) -> Iterator[str]:
    for model in models:
        schema = model.model_json_schema()
        for part in (schema, *schema.get("$defs", {}).values()):
            yield from part["properties"]


# Text under any other name, or under none, may be notes that a sender has put in the wrong place.
_SHOWN = (_CLOUD_EVENT | frozenset(_field_names(model for models in EVENTS.values() for model in models))) - {"notes"}


@dataclass(frozen=True, slots=True)
class PutAside:
    """A dead letter. `topic` is the role of the topic that it came from."""

    id: UUID
    topic: Topic
    put_aside_at: str
    letter: DeadLetter
    redriven_at: str | None = None

    @property
    def value(self) -> bytes | None:
        """The record's value, as it was."""
        return None if self.letter.value is None else base64.b64decode(self.letter.value)

    def shown_value(self) -> object:
        """The value for people's eyes: JSON without its notes, and without any text that may be some. What is no JSON is not shown."""
        raw = self.value
        if raw is None:
            return None
        try:
            return _without_notes("", orjson.loads(raw))
        except orjson.JSONDecodeError:
            return f"({len(raw)} bytes that are not JSON)"

    def as_event(self) -> OutgoingEvent:
        """The record as it was, for its own topic: same id, so harmless twice. Raises ValueError when it had no value.

        Its key decides on nothing but the partition; one that is not UTF-8 goes to another.
        """
        if self.value is None:
            raise ValueError(f"dead letter {self.id} has no value: there is nothing to send")
        key = b"" if self.letter.key is None else base64.b64decode(self.letter.key)
        kept = tuple((name, value.encode()) for name, value in self.letter.headers.items())
        return OutgoingEvent(self.topic, key.decode(errors="replace"), kept, self.value)


def _without_notes(name: str, value: object) -> object:
    if name == "notes" or (isinstance(value, str) and name not in _SHOWN):
        return _HIDDEN
    if isinstance(value, dict):
        return {inner: _without_notes(inner, each) for inner, each in value.items()}
    if isinstance(value, list):
        return [_without_notes(name, each) for each in value]
    return value


def read_dead_letters(settings: Settings) -> list[PutAside]:
    """Every dead letter that the topic holds, oldest first. One that was written twice is there once."""
    names = {topic.on_cluster(settings.topic_prefix): topic for topic in Topic}
    letters: dict[UUID, PutAside] = {}
    with TopicReader(settings) as reader:
        for chunk in reader.read(reader.spans([Topic.DEAD_LETTER])):
            for _, message in chunk:
                raw_headers = cast("Sequence[tuple[str, bytes | None]]", message.headers() or [])
                try:
                    envelope = open_envelope(raw_headers, message.value())
                    data = read_event(Topic.DEAD_LETTER, envelope)
                except UnreadableError:
                    continue  # somebody else's: only the product writes here, and nothing is done with it
                if isinstance(data, DeadLetterRedriven) and data.dead_letter_id in letters:
                    letters[data.dead_letter_id] = replace(letters[data.dead_letter_id], redriven_at=data.redriven_at)
                elif isinstance(data, DeadLetter) and data.topic in names:
                    identity = UUID(envelope.id)
                    time = rfc3339(datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC))
                    letters.setdefault(identity, PutAside(identity, names[data.topic], time, data))
    return list(letters.values())
