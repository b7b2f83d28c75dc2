"""Reads the data of a record by its type. An error says what is wrong and where, and repeats no value."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from pydantic import ValidationError

from schemas import events, strict_json
from schemas.envelope import SOURCE, TYPE_PREFIX, Envelope, Topic, UnreadableError
from schemas.ids import MAX_POSITIONS
from schemas.mistakes import (
    MOST_MISTAKES,
    Entries,
    Mistake,
    duplicate_mentors,
    first_of,
    mentor_type_and_date,
    mistakes_in,
    pointer,
    size_mistakes,
)

MAX_EVENT_JSON_VALUES = 1_000_000
"""More values than a record has room for. As Python objects they take 80 MB."""
LATER_EVENTS_COME_ON = frozenset({Topic.BATCHES})
"""The topics to which later versions may add types that are effective without a consumer (docs/decisions/0034-undo.md)."""

_BY_TOPIC: Mapping[Topic, Mapping[str, type[events.EventData]]] = {
    topic: {events.type_name(model): model for model in models} for topic, models in events.EVENTS.items()
}


def read_event(topic: Topic, envelope: Envelope) -> events.EventData:
    """The data of an event. Its type selects one of the schemas that its topic allows. Raises UnreadableError.

    An event of ours with a type that belongs to no topic comes from a later version. It is read as a LaterEvent.

    Other services write to the batches topic, so its JSON is parsed strictly. Only we write to the other topics, so these take the fast path.
    """
    model = _BY_TOPIC[topic].get(envelope.type)
    if model is None and _is_of_later_version(topic, envelope):
        return events.LaterEvent()
    if model is None:
        raise UnreadableError("unknown_type", f"no event of this type belongs on {topic.value}")
    try:
        if topic is not Topic.BATCHES:
            data: events.EventData = model.__pydantic_validator__.validate_json(envelope.data)
            return data
        document = strict_json.loads(envelope.data, max_depth=strict_json.MAX_JSON_DEPTH, max_values=MAX_EVENT_JSON_VALUES)
        return _read_submitted(document) if model is events.BatchSubmitted else model.model_validate(document)
    except strict_json.BadJsonError as error:
        raise UnreadableError("not_json", str(error)) from error
    except ValidationError as error:
        raise InvalidEventError(model, _places(error), None) from error


def _is_of_later_version(topic: Topic, envelope: Envelope) -> bool:
    is_ours = envelope.source == SOURCE and envelope.type.startswith(TYPE_PREFIX)
    return topic in LATER_EVENTS_COME_ON and is_ours and not any(envelope.type in known for known in _BY_TOPIC.values())


def _read_submitted(document: Any) -> events.BatchSubmitted:
    """A part. Raises InvalidEventError, with the mistakes for the sender. If there are too many items, only the first MAX_PART_ITEMS are
    checked."""
    items = document.get("items") if isinstance(document, dict) else None
    shown = document
    sizes: list[Mistake] = []
    if isinstance(items, list):
        sizes = size_mistakes("/items", items, events.MAX_PART_ITEMS)
        shown = document | {"items": items[: events.MAX_PART_ITEMS]}
    try:
        submitted = events.BatchSubmitted.model_validate(shown)
        if not sizes:
            return submitted
    except ValidationError as error:
        mistakes = first_of(chain(sizes, mistakes_in(events.BatchSubmitted, shown, error, _ENTRIES), _duplicates(shown)))
    else:
        mistakes = first_of(chain(sizes, _duplicates(shown)))
    raise InvalidEventError(
        events.BatchSubmitted, [(each.pointer, each.detail) for each in mistakes], _malformed(document, mistakes)
    )


_ENTRIES: Entries = {"items": events.SubmittedItem}


def _duplicates(document: Any) -> Iterator[Mistake]:
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list):
        return iter(())
    return duplicate_mentors(map(mentor_type_and_date, items), place_of_mentor, lambda index: _position(items[index], index))


def _malformed(document: Any, mistakes: Sequence[Mistake]) -> events.MalformedSubmission | None:
    """The malformed submission to reject; None if its batch or organization can't be read."""
    if not isinstance(document, dict):
        return None
    try:
        return events.MalformedSubmission.model_validate(
            {"batch_id": document.get("batch_id"), "organization_id": document.get("organization_id"), "mistakes": mistakes}
        )
    except ValidationError:
        return None


def _places(error: ValidationError) -> Sequence[tuple[str, str]]:
    """The places at which an event does not match its type, with messages without values."""
    if error.error_count() > MOST_MISTAKES:
        return [("", f"has {error.error_count():,} mistakes")]
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return [(pointer(*each["loc"]), each["msg"]) for each in found]


def place_of_mentor(index: int) -> str:
    """The pointer to an item's mentor in a `events.BatchSubmitted`. `index` is the item's place in the list, not its position in the batch."""
    return pointer("items", index, "mentor_id")


def _position(item: dict[str, Any], index: int) -> int:
    """The item's position if it has a valid one, so that nothing else is repeated to the sender; else its index."""
    position = item.get("position")
    return position if type(position) is int and 0 <= position < MAX_POSITIONS else index


class InvalidEventError(UnreadableError):
    """Data that does not match the event's type. On the topics of our own roles, that includes data that is not JSON.

    It has the places, but never a value, because values may be notes.
    """

    def __init__(
        self, model: type[events.EventData], places: Sequence[tuple[str, str]], submission: events.MalformedSubmission | None
    ) -> None:
        shown = "; ".join(f"{place}: {message}" for place, message in places[:20])
        super().__init__("invalid_data", f"not a {model.__name__}: {shown}")
        self.submission = submission
        """The rejection to send; None if the batch or its organization can't be read."""
