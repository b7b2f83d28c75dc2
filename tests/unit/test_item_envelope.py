"""The headers of commands and results have a faster reader. It returns the same as the general one."""

from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from schemas.envelope import MAX_ATTRIBUTE_LENGTH, SOURCE, Envelope, UnreadableError, open_envelope
from schemas.event_builders import ItemEventHeaders
from schemas.events import REGISTER_ACTIVITY, SUCCEEDED

Headers = tuple[tuple[str, bytes | None], ...]

ITEM = "01997f00-0000-7000-8000-000000000002"
WRITTEN: Headers = ItemEventHeaders("0af7651916cd43dd8448eb211c80319c").of(
    REGISTER_ACTIVITY, ITEM, 1, datetime(2026, 3, 26, tzinfo=UTC)
)
TEXTS = ["", "1.0", SOURCE, "application/json", "application/cloudevents+json", SUCCEEDED, "kåre", "a\nb"]
LENGTHS = (MAX_ATTRIBUTE_LENGTH, MAX_ATTRIBUTE_LENGTH + 1)
KNOWN = [*map(str.encode, TEXTS), *(b"x" * length for length in LENGTHS), b"\xff"]
VALUES = st.none() | st.binary(max_size=3) | st.sampled_from(KNOWN)
NAMES = st.sampled_from([name for name, _ in WRITTEN]) | st.sampled_from(["CE_ID", "Content-Type", "ce_subject", "other"])


def read(headers: list[tuple[str, bytes | None]] | Headers, value: bytes | None) -> Envelope | tuple[str, str]:
    try:
        return open_envelope(headers, value)
    except UnreadableError as error:
        return error.reason, str(error)


@st.composite
def changed(draw: st.DrawFn) -> Headers:
    """The headers of a command, up to three of them changed, added, left out or moved."""
    headers = list(WRITTEN)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(headers) - 1))
        match draw(st.sampled_from(["value", "name", "both", "out", "in", "move"])):
            case "value":
                headers[place] = headers[place][0], draw(VALUES)
            case "name":
                headers[place] = draw(NAMES), headers[place][1]
            case "both":
                headers[place] = draw(NAMES), draw(VALUES)
            case "out":
                del headers[place]
            case "in":
                headers.insert(place, (draw(NAMES), draw(VALUES)))
            case _:
                headers.insert(draw(st.integers(0, len(headers) - 1)), headers.pop(place))
    return tuple(headers)


@given(changed(), st.none() | st.sampled_from([b"{}", b"\xef\xbb\xbf{}", b""]))
@example((*WRITTEN[:3], ("ce_id", b"x" * (MAX_ATTRIBUTE_LENGTH + 1)), *WRITTEN[4:]), b"{}")
@example((*WRITTEN[:3], ("ce_id", "kåre".encode()), *WRITTEN[4:]), b"{}")
@example((*WRITTEN[:3], ("ce_id", b"a\nb"), *WRITTEN[4:]), b"{}")
@example((*WRITTEN[:6], ("traceparent", None)), b"{}")
@example((*WRITTEN[:5], ("ce_id", b"another"), WRITTEN[6]), b"{}")
@example(WRITTEN, None)
def test_both_readers_return_the_same(headers: Headers, value: bytes | None) -> None:
    # A list takes the general way.
    assert read(headers, value) == read(list(headers), value)


def test_headers_of_a_command_are_read() -> None:
    expected = dict(WRITTEN)
    envelope = open_envelope(WRITTEN, b"{}")
    assert envelope.type == REGISTER_ACTIVITY
    assert envelope.source == SOURCE
    assert envelope.data == b"{}"
    assert [envelope.id.encode(), (envelope.traceparent or "").encode()] == [expected["ce_id"], expected["traceparent"]]
