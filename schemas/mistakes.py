"""The mistakes in a request, all at once: the place of each (a JSON pointer), a stable code, and a message that never quotes a value.

HTTP responses (`errors`) and `BatchRejected` (`problems`) have the same list for the same mistakes.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from schemas.fields import canonical_id

MOST_MISTAKES = 100
"""The most mistakes of a request or an event that are listed, because a body of 16 MiB can have millions. Those of a file are all listed."""

# The sender chooses the name of an unknown field. The pointer cuts longer names.
_MAX_POINTER_PART = 200


class Mistake(NamedTuple):
    """One mistake. `pointer` is a JSON pointer (RFC 6901) into the request."""

    pointer: str
    code: str
    detail: str


COORDINATOR_UNKNOWN = Mistake("/coordinator_id", "coordinator_unknown", "The organization's directory has no such coordinator.")

# Our code and message for each of pydantic's error types. pydantic's own limits are filled in.
_CODES: Mapping[str, tuple[str, str]] = {
    "missing": ("missing_field", "is missing"),
    "extra_forbidden": ("unknown_field", "is not a field of this request"),
    "string_type": ("wrong_type", "must be a string"),
    "int_type": ("wrong_type", "must be an integer"),
    "int_from_float": ("wrong_type", "must be an integer"),
    "int_parsing": ("wrong_type", "must be an integer"),
    "bool_type": ("wrong_type", "must be true or false"),
    "bool_parsing": ("wrong_type", "must be true or false"),
    "list_type": ("wrong_type", "must be a list"),
    "tuple_type": ("wrong_type", "must be a list"),
    "model_type": ("wrong_type", "must be an object"),
    "model_attributes_type": ("wrong_type", "must be an object"),
    "dict_type": ("wrong_type", "must be an object"),
    "string_too_short": ("empty", "must not be empty"),
    "string_too_long": ("too_long", "is longer than {max_length:,} characters"),
    "too_short": ("no_items", "must have at least {min_length} entries"),
    "too_long": ("too_many_items", "has more than {max_length:,} entries"),
    "string_unicode": ("bad_characters", "has an unpaired surrogate"),
    "string_pattern_mismatch": ("bad_characters", "has a character that is not allowed here"),
    "greater_than_equal": ("out_of_range", "must be at least {ge:,}"),
    "less_than": ("out_of_range", "must be less than {lt:,}"),
    "less_than_equal": ("out_of_range", "must be at most {le:,}"),
    "int_parsing_size": ("out_of_range", "is too large"),
    "uuid_type": ("not_a_uuid", "must be a UUID"),
    "uuid_parsing": ("not_a_uuid", "must be a UUID"),
    "uuid_version": ("not_a_uuid", "must be a UUID"),
    "datetime_type": ("not_a_time", "must be a time like 2026-03-25T10:00:00Z"),
    "datetime_parsing": ("not_a_time", "must be a time like 2026-03-25T10:00:00Z"),
    "datetime_from_date_parsing": ("not_a_time", "must be a time like 2026-03-25T10:00:00Z"),
    "blank_for_plus": ("not_a_time", "has a blank before its offset: in a query, + means a blank and must be written %2B"),
    "timezone_aware": ("not_a_time", "must name its offset from UTC, as in 2026-03-25T10:00:00Z"),
    "enum": ("unknown_value", "must be {expected}"),
    "literal_error": ("unknown_value", "must be {expected}"),
}


def pointer(*parts: object) -> str:
    """The JSON pointer with these parts (RFC 6901, 3)."""
    return "".join(f"/{_printable(str(part)).replace('~', '~0').replace('/', '~1')}" for part in parts)


def _printable(part: str) -> str:
    """Replaces unpaired surrogates in a field's name, which can't be encoded in the response."""
    return part[:_MAX_POINTER_PART].encode(errors="replace").decode()


def _mistake(error: ErrorDetails) -> Mistake:
    place = pointer(*error["loc"])
    if error["type"] == "value_error":
        # Our only validator that raises ValueError is the date's (schemas/fields.py).
        is_text = isinstance(error["input"], str)
        return Mistake(place, "not_a_date" if is_text else "wrong_type", "must be a valid date, like 2026-03-25")
    code, words = _CODES[error["type"]]
    return Mistake(place, code, words.format_map(error.get("ctx", {})))


def first_of(mistakes: Iterable[Mistake], most: int | None = MOST_MISTAKES) -> list[Mistake]:
    """The first `most` mistakes, with a further entry if there are more; all mistakes if `most` is None.

    Takes no more from an iterator than that needs.
    """
    if most is None:
        return list(mistakes)
    found = list(islice(mistakes, most + 1))
    if len(found) > most:
        found[most:] = [Mistake("", "too_many_mistakes", f"has more mistakes than these; only the first {most:,} are listed")]
    return found


Entries = Mapping[str, Any]
"""The fields of a model that are lists, and the type of an entry of each."""


def mistakes_of(error: ValidationError) -> list[Mistake]:
    """The mistakes that pydantic found, in its order."""
    return [_mistake(found) for found in error.errors(include_url=False)]


def mistakes_in(model: type[BaseModel], raw: Any, error: ValidationError, entries: Entries) -> Iterator[Mistake]:
    """The mistakes for which `model` refused `raw` with this error.

    pydantic describes either all of its errors or none, at a kilobyte each. If there are many, this validates the document piece by piece, one
    entry of its lists after the other, so that a caller who takes the first hundred does not pay for the others.
    """
    if error.error_count() <= MOST_MISTAKES or not isinstance(raw, dict):
        yield from mistakes_of(error)
        return
    lists = {name: raw[name] for name in entries if isinstance(raw.get(name), list)}
    yield from _mistakes_of_piece(model, raw | dict.fromkeys(lists, ()), "")
    for name, values in lists.items():
        for index, value in enumerate(values):
            yield from _mistakes_of_piece(entries[name], value, pointer(name, index))


def _mistakes_of_piece(kind: Any, raw: Any, place: str) -> list[Mistake]:
    try:
        _adapter(kind).validate_python(_trimmed(kind, raw))
    except ValidationError as error:
        return [found._replace(pointer=place + found.pointer) for found in mistakes_of(error)]
    return []


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _trimmed(kind: Any, raw: Any) -> Any:
    """An object without most of its unknown fields, because no more of them can be listed than MOST_MISTAKES."""
    if not isinstance(raw, dict) or not isinstance(kind, type) or not issubclass(kind, BaseModel):
        return raw
    known = {name: _trimmed(field.annotation, raw[name]) for name, field in kind.model_fields.items() if name in raw}
    return known | {name: raw[name] for name in islice((name for name in raw if name not in known), MOST_MISTAKES + 1)}


def size_mistakes(place: str, entries: Sized, max_entries: int) -> list[Mistake]:
    """The mistake of a list with no entries, or with too many. (pydantic's own limits count only well-formed entries.)"""
    if not entries:
        return [Mistake(place, "no_items", "must have at least one entry")]
    if len(entries) > max_entries:
        return [Mistake(place, "too_many_items", f"has {len(entries):,} entries; the limit is {max_entries:,}")]
    return []


def mentor_type_and_date(entry: Any) -> Hashable:
    """The identity that must be unique in a submission, from a raw item. Malformed items are reported separately and never treated as
    duplicates."""
    if not isinstance(entry, dict):
        return object()
    identity = (canonical_id(entry.get("mentor_id")), canonical_id(entry.get("activity_type")), entry.get("activity_date"))
    return identity if all(isinstance(part, str) for part in identity) else object()


def duplicate_mentors(
    identities: Iterable[Hashable], place_of: Callable[[int], str], position_of: Callable[[int], object] = int
) -> Iterator[Mistake]:
    """The mistakes for identities (mentor, activity type and date) that occur more than once in a submission: one for each such entry.

    `position_of` returns the position of an entry's item, if that is not its place in the list.
    """
    entries: dict[Hashable, list[int]] = {}
    for entry, identity in enumerate(identities):
        entries.setdefault(identity, []).append(entry)
    for shared in entries.values():
        if len(shared) > 1:
            detail = f"The items at positions {listed(list(map(position_of, shared)))} have the same mentor, type and date."
            yield from (Mistake(place_of(entry), "duplicate_mentor", detail) for entry in shared)


def listed(positions: Sequence[object]) -> str:
    """Positions in words: `3 and 5`. Cut after ten, because a mentor may occur 10,000 times."""
    if len(positions) == 1:
        return str(positions[0])
    shown, hidden = positions[:10], len(positions) - 10
    if hidden > 0:
        return f"{', '.join(map(str, shown))} and {hidden:,} more"
    return f"{', '.join(map(str, shown[:-1]))} and {shown[-1]}"
