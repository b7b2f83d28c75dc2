"""The cursors of listings: each returns to its place, and nothing else is one."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http import cursors
from schemas.api.reading import RefusedRequestError
from schemas.fields import MAX_ID_LENGTH

# Its text has both characters in which the alphabet of addresses differs from the usual one.
AN_ID = UUID(bytes=b"\xfb\xff\xbf" * 5 + b"\0")

Reader = Callable[[str], Any]
KINDS: dict[str, tuple[str, Any, Reader]] = {
    "a batch": (
        cursors.encode((datetime(2026, 3, 25, 10, 0, 0, 1, UTC), AN_ID)),
        (datetime(2026, 3, 25, 10, 0, 0, 1, UTC), AN_ID),
        cursors.decode,
    ),
    "an old batch": (
        cursors.encode((datetime(1969, 12, 31, tzinfo=UTC), AN_ID)),
        (datetime(1969, 12, 31, tzinfo=UTC), AN_ID),
        cursors.decode,
    ),
    "a template": (cursors.encode_uuid(AN_ID), AN_ID, cursors.decode_uuid),
    "an id": (cursors.encode_id("\U0001f9ea?>"), "\U0001f9ea?>", cursors.decode_id),
    "the longest id": (cursors.encode_id("x" * MAX_ID_LENGTH), "x" * MAX_ID_LENGTH, cursors.decode_id),
    "a number": (cursors.encode_number(999_999_999), 999_999_999, cursors.decode_number),
}


@pytest.mark.parametrize(("cursor", "place", "decode"), KINDS.values(), ids=KINDS)
def test_a_cursor_returns_to_its_place_and_a_similar_text_is_none(cursor: str, place: Any, decode: Reader) -> None:
    assert decode(cursor) == place
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_="), "it is sent in an address"
    for other in (
        f"{cursor[:4]}!{cursor[4:]}",
        f"{cursor[:4]} {cursor[4:]}",
        "",
        "AAAA",
        f"{cursor}\u00e6",
    ):
        with pytest.raises(RefusedRequestError):
            decode(other)


@pytest.mark.parametrize("text", ["", "x" * (MAX_ID_LENGTH + 1), "a\0b"])
def test_a_text_that_no_id_has_is_no_place(text: str) -> None:
    with pytest.raises(RefusedRequestError):
        cursors.decode_id(cursors.encode_id(text))


@pytest.mark.parametrize("number", [0, -1, 1_000_000_000])
def test_a_number_out_of_range_is_no_place(number: int) -> None:
    with pytest.raises(RefusedRequestError):
        cursors.decode_number(cursors.encode_number(number))


@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_a_cursor_continues_where_the_page_ended_to_the_microsecond(at: datetime, batch_id: UUID) -> None:
    assert cursors.decode(cursors.encode((at, batch_id))) == (at, batch_id)


@pytest.mark.parametrize("size", [0, 8, 23, 25, 24])
def test_a_cursor_of_another_size_is_invalid(size: int) -> None:
    # 24 bytes long, and after the year 9999.
    with pytest.raises(RefusedRequestError):
        cursors.decode(base64.urlsafe_b64encode(b"\x7f" * size).decode())
