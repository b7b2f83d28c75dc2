"""The keyset cursors of listings: where a page ended, as opaque text."""

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

from schemas.api.reading import RefusedRequestError
from schemas.fields import MAX_ID_LENGTH
from schemas.mistakes import Mistake

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[1-9]\d{0,8}", re.ASCII)
_MICROSECOND = timedelta(microseconds=1)


def encode(place: tuple[datetime, UUID]) -> str:
    """The cursor for the page after this batch."""
    submitted_at, batch_id = place
    microseconds = (submitted_at - _EPOCH) // _MICROSECOND
    return base64.urlsafe_b64encode(microseconds.to_bytes(8, "big", signed=True) + batch_id.bytes).decode()


def decode(cursor: str) -> tuple[datetime, UUID]:
    """Returns the place that a cursor continues from. Raises RefusedRequestError for text that `encode` did not make."""
    try:
        raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
        if len(raw) != 24:
            raise ValueError("not a cursor")
        return _EPOCH + int.from_bytes(raw[:8], "big", signed=True) * _MICROSECOND, UUID(bytes=raw[8:])
    except (ValueError, OverflowError, binascii.Error) as error:
        raise _not_a_cursor() from error


def encode_id(place: str) -> str:
    """The cursor for the page after this id."""
    return base64.urlsafe_b64encode(place.encode()).decode()


def decode_id(cursor: str) -> str:
    """The id a cursor continues from. Raises RefusedRequestError for a text that `encode_id` did not make."""
    try:
        place = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise _not_a_cursor() from error
    if not 1 <= len(place) <= MAX_ID_LENGTH or "\0" in place:
        raise _not_a_cursor()
    return place


def encode_uuid(place: UUID) -> str:
    """The cursor for the page after this id."""
    return base64.urlsafe_b64encode(place.bytes).decode()


def decode_uuid(cursor: str) -> UUID:
    """The id a cursor continues from. Raises RefusedRequestError for a text that `encode_uuid` did not make."""
    try:
        return UUID(bytes=base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True))
    except ValueError as error:
        raise _not_a_cursor() from error


def encode_number(place: int) -> str:
    """The cursor for the page after this number."""
    return encode_id(str(place))


def decode_number(cursor: str) -> int:
    """The number a cursor continues from. Raises RefusedRequestError for a text that `encode_number` did not make."""
    place = decode_id(cursor)
    if not _NUMBER.fullmatch(place):
        raise _not_a_cursor()
    return int(place)


def _not_a_cursor() -> RefusedRequestError:
    return RefusedRequestError([Mistake("/query/cursor", "not_a_cursor", "must be the next_cursor of an earlier page")])
