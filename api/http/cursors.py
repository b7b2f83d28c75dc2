"""The keyset cursor of a listing: where a page ended, as opaque text."""

import base64
import binascii
from datetime import UTC, datetime, timedelta
from uuid import UUID

from schemas.api import RefusedRequestError
from schemas.mistakes import Mistake

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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
        raise RefusedRequestError(
            [Mistake("/query/cursor", "not_a_cursor", "must be the next_cursor of an earlier page")]
        ) from error
