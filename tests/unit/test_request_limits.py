"""Requests, fields and spelling: each limit at one less, at itself and at one more; and each part of what makes two things equal."""

import unicodedata
from collections.abc import Callable
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from pydantic import TypeAdapter, ValidationError

from schemas import mistakes, strict_json
from schemas.api.base import Request
from schemas.api.batches import BatchesQuery, EventsQuery, OneBatchQuery, read_update
from schemas.api.reading import RefusedRequestError, read
from schemas.api.retries import read_retry
from schemas.api.submissions import read_submission
from schemas.fields import CalendarDate, Flag, Id, Int32, Label, Notes, Reason
from schemas.mistakes import duplicate_mentors, first_of, listed, mentor_type_and_date, pointer, size_mistakes
from schemas.registration_service import RegistrationRequest, RegistrationResponse
from schemas.spelling import SQL_BLANKS, SQL_INVISIBLE, canonical, visible

ITEM_ID = "01a20651-14d3-8a55-8b41-6a1a3bd00002"
ITEM = {"mentor_id": "m", "activity_type": "x", "activity_date": "2026-03-25", "duration_minutes": 60}
# Four code points that make one letter.
LETTER = "\N{GREEK SMALL LETTER ALPHA}\N{COMBINING REVERSED COMMA ABOVE}\N{COMBINING GREEK PERISPOMENI}\N{COMBINING GREEK YPOGEGRAMMENI}"


def codes(call: Callable[[], object]) -> list[tuple[str, str]]:
    with pytest.raises(RefusedRequestError) as refusal:
        call()
    return [(mistake.pointer, mistake.code) for mistake in refusal.value.mistakes]


# --- Fields -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("field", "least", "most"), [(Id, 1, 100), (Label, 0, 200), (Notes, 0, 10_000), (Reason, 0, 1_000)])
def test_the_length_of_a_text_is_limited(field: Any, least: int, most: int) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(field)
    for length in {least, most - 1, most}:
        assert adapter.validate_python("x" * length) == "x" * length
    for bad in ("x" * (most + 1), "a\0b", 5, None, b"x", *([""] if least else [])):
        with pytest.raises(ValidationError):
            adapter.validate_python(bad)


@pytest.mark.parametrize(("field", "most"), [(Id, 100), (Label, 200)])
def test_composed_letters_count_as_one(field: Any, most: int) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(field)
    assert adapter.validate_python(LETTER * most) == unicodedata.normalize("NFC", LETTER) * most
    with pytest.raises(ValidationError):
        adapter.validate_python(LETTER * (most + 1))


@pytest.mark.parametrize("marks", [1, 29, 30])
def test_the_number_of_marks_on_a_letter_is_limited(marks: int) -> None:
    text = "x" * 40 + "a" + "\N{COMBINING RING ABOVE}" * marks
    assert TypeAdapter(Id).validate_python(text) == "x" * 40 + "å" + "\N{COMBINING RING ABOVE}" * (marks - 1)
    too_many = "x" * 40 + "a" + "\N{COMBINING RING ABOVE}" * 31
    assert TypeAdapter(Label).validate_python(too_many) == too_many


def test_a_number_is_an_integer_of_32_bits() -> None:
    adapter = TypeAdapter(Int32)
    for number in (-(2**31), -1, 0, 2**31 - 1):
        assert adapter.validate_python(number) == number
    for bad in (-(2**31) - 1, 2**31, 1.0, True, "1", None):
        with pytest.raises(ValidationError):
            adapter.validate_python(bad)


def test_a_flag_and_a_date_are_never_guessed() -> None:
    assert TypeAdapter(Flag).validate_python(True) is True
    for bad in (1, 0, "true", None):
        with pytest.raises(ValidationError):
            TypeAdapter(Flag).validate_python(bad)
    dates = TypeAdapter(CalendarDate)
    assert dates.validate_python("2024-02-29") == dates.validate_python(date(2024, 2, 29)) == date(2024, 2, 29)
    for bad in ("2026-02-29", "2026-3-25", "2026-03-25T00:00:00", " 2026-03-25", "٢٠٢٦-٠٣-٢٥", 20260325, None):
        with pytest.raises(ValidationError):
            dates.validate_python(bad)


# --- Spelling -----------------------------------------------------------------------------------------------------------------

# The format characters that are visible, and those that join or enclose others.
SEEN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13440)}
# No format characters, but invisible all the same (Unicode: default ignorable).
FILLERS = {
    0x34F,
    0x115F,
    0x1160,
    0x17B4,
    0x17B5,
    *range(0x180B, 0x1810),
    0x2065,
    0x3164,
    *range(0xFE00, 0xFE10),
    0xFFA0,
    *range(0xFFF0, 0xFFF9),
}
TAGS = range(0xE0000, 0xE1000)


def test_exactly_the_invisible_characters_are_removed_from_an_id() -> None:
    removed, blanks = set(), set()
    expected, expected_blanks = FILLERS | set(TAGS), {0x2800}
    for code in (*range(0xD800), *range(0xE000, 0x20000), *range(0xDFF00, 0xE1100)):
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Cf" and code not in SEEN:
            expected.add(code)
        if category == "Zs" and character != " ":
            expected_blanks.add(code)
        found = visible(f"a{character}b")
        if found == "ab":
            removed.add(code)
        elif found == "a b" and character != " ":
            blanks.add(code)
        else:
            assert found == f"a{character}b"
    assert removed ^ expected == set()
    assert blanks ^ expected_blanks == set()


def test_the_database_has_the_same_characters() -> None:
    assert canonical(SQL_INVISIBLE) == ""
    assert canonical(SQL_BLANKS) == " " * len(SQL_BLANKS)
    everything = "".join(map(chr, (*range(0xD800), *range(0xE000, 0xE0000))))
    table = str.maketrans("", "", SQL_INVISIBLE) | str.maketrans(SQL_BLANKS, " " * len(SQL_BLANKS))
    assert everything.translate(table) == visible(everything)


# --- Requests -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "field", "good", "bad"),
    [
        (OneBatchQuery, "item_limit", [1, 2, 999, 1_000], [0, 1_001, -1]),
        (OneBatchQuery, "wait", [0, "0", "1s", 60, "60s"], [-1, 61, "61s", "s", "1m"]),
        (OneBatchQuery, "item_cursor", ["0", "9" * 7], ["9" * 8, "", "-1", "1a"]),
        (OneBatchQuery, "items", ["pending", "success", "failed", "cancelled"], ["completed", ""]),
        (BatchesQuery, "limit", [1, 99, 100], [0, 101]),
        (BatchesQuery, "page", [1, 999_999, 1_000_000], [0, 1_000_001]),
        (BatchesQuery, "cursor", ["", "x" * 99, "x" * 100], ["x" * 101]),
        (BatchesQuery, "q", ["x" * 200], ["x" * 201]),
        (BatchesQuery, "coordinator_id", ["x" * 100], ["", "x" * 101]),
        (
            BatchesQuery,
            "submitted_from",
            ["2026-03-25T10:00:00Z", "2026-03-25t10:00:00+02:00"],
            ["2026-03-25", "2026-03-25T10:00:00", "1774000000"],
        ),
        (BatchesQuery, "submitted_to", ["2026-03-25T10:00Z"], ["2026-03-25T10:00", "0001-01-01T00:00:00+01:00"]),
        (EventsQuery, "ticket", ["x" * 2_000], ["x" * 2_001]),
    ],
)
def test_a_query_accepts_values_within_its_limits(model: type[Request], field: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        read(model, {field: value})
    for value in bad:
        assert [place for place, _ in codes(lambda value=value: read(model, {field: value}))] == [f"/{field}"], value  # type: ignore[misc]
    assert codes(lambda: read(model, {"surprise": 1})) == [("/surprise", "unknown_field")]


def test_each_state_of_a_query_is_a_state_of_a_batch() -> None:
    for state in ("pending", "processing", "completed", "partial", "failed", "cancelled"):
        assert read(BatchesQuery, {"status": (state,)}).status == (state,)
    assert [place for place, _ in codes(lambda: read(BatchesQuery, {"status": ("failed", "success")}))] == ["/status/1"]


def test_times_are_compared_in_utc() -> None:
    query = read(BatchesQuery, {"submitted_from": "2026-03-25T01:00:00+02:00", "submitted_to": "2026-03-25T23:00:00-02:00"})
    assert query.submitted_from is not None
    assert query.submitted_to is not None
    assert (query.submitted_from.isoformat(), query.submitted_to.isoformat()) == (
        "2026-03-24T23:00:00+00:00",
        "2026-03-26T01:00:00+00:00",
    )


def submission(count: int, **others: Any) -> dict[str, Any]:
    return {"items": [ITEM | {"mentor_id": f"m-{number}"} for number in range(count)]} | others


def test_the_number_of_items_in_a_submission_is_limited() -> None:
    assert codes(lambda: read_submission(submission(0), max_items=3)) == [("/items", "no_items")]
    for count in (1, 2, 3):
        assert len(read_submission(submission(count), max_items=3).as_items()) == count
    assert codes(lambda: read_submission(submission(4), max_items=3)) == [("/items", "too_many_items")]
    activity = {name: value for name, value in ITEM.items() if name != "mentor_id"}
    for count, expected in ((0, "no_items"), (4, "too_many_items")):
        body = {"mentor_ids": [f"m-{number}" for number in range(count)], "activity": activity}
        assert codes(lambda body=body: read_submission(body, max_items=3)) == [("/mentor_ids", expected)]  # type: ignore[misc]
    # What is beyond the limit is not checked.
    beyond = submission(3)
    beyond["items"] += [beyond["items"][0], {"surprise": 1}]
    assert codes(lambda: read_submission(beyond, max_items=3)) == [("/items", "too_many_items")]


def test_one_activity_of_several_mentors_is_an_item_for_each() -> None:
    activity = ITEM | {"notes": "n"}
    del activity["mentor_id"]
    items = read_submission({"mentor_ids": ["a", "b"], "activity": activity, "override_duplicates": True}, max_items=2).as_items()
    assert [item.model_dump(mode="json") for item in items] == [
        activity | {"mentor_id": each, "client_reference": None, "override_duplicates": None} for each in "ab"
    ]
    assert codes(lambda: read_submission({"mentor_ids": ["a"]}, max_items=2)) == [("/activity", "missing_field")]
    assert codes(lambda: read_submission({"activity": activity}, max_items=2)) == [("/mentor_ids", "missing_field")]
    both = {"mentor_ids": ["a"], "activity": activity, "items": [ITEM]}
    assert codes(lambda: read_submission(both, max_items=2)) == [("/mentor_ids", "unknown_field"), ("/activity", "unknown_field")]


@pytest.mark.parametrize("name", ["mentor_id", "activity_type", "activity_date", "duration_minutes", "notes"])
def test_items_are_equal_by_mentor_type_and_date(name: str) -> None:
    other = ITEM | {name: {"activity_date": "2026-03-26", "duration_minutes": 61}.get(name, "other")}
    if name in ("duration_minutes", "notes"):
        expected = [("/items/0/mentor_id", "duplicate_mentor"), ("/items/1/mentor_id", "duplicate_mentor")]
        assert codes(lambda: read_submission({"items": [ITEM, other]}, max_items=2)) == expected
    else:
        assert len(read_submission({"items": [ITEM, other]}, max_items=2).as_items()) == 2


def test_a_malformed_item_equals_no_other() -> None:
    odds: list[Any] = [None, 1, [], {}, ITEM | {"mentor_id": None}, ITEM | {"activity_type": 5}, ITEM | {"activity_date": None}]
    for odd in odds:
        assert mentor_type_and_date(odd) != mentor_type_and_date(odd)
    assert mentor_type_and_date(ITEM) == mentor_type_and_date(dict(ITEM))
    assert codes(lambda: read_submission({"mentor_ids": [5, 5], "activity": {}}, max_items=2))[:2] == [
        ("/mentor_ids/0", "wrong_type"),
        ("/mentor_ids/1", "wrong_type"),
    ]


def test_a_retry_names_items_or_asks_for_retryable_ones() -> None:
    for good in ({}, {"only_retryable": True}, {"item_ids": [ITEM_ID]}, {"item_ids": [ITEM_ID], "only_retryable": False}):
        read_retry(good, max_items=1)
    read_retry({"item_ids": None, "only_retryable": True}, max_items=1)
    both = {"item_ids": [ITEM_ID], "only_retryable": True}
    assert codes(lambda: read_retry(both, max_items=1)) == [("/only_retryable", "not_with_item_ids")]
    correction = {"item_id": ITEM_ID, "notes": None}
    for field, entry in (("item_ids", ITEM_ID), ("corrections", correction)):
        assert codes(lambda field=field: read_retry({field: []}, max_items=2)) == [(f"/{field}", "no_items")]  # type: ignore[misc]
        assert read_retry({field: [entry] * 2}, max_items=2)
        three = {field: [entry] * 3}
        assert codes(lambda three=three: read_retry(three, max_items=2)) == [(f"/{field}", "too_many_items")]  # type: ignore[misc]
    [read_correction] = read_retry({"corrections": [correction]}, max_items=1).corrections or ()
    assert read_correction.correction() == {"notes": None}
    every = {"mentor_id": "m", "activity_type": "x", "duration_minutes": 1, "notes": "n", "override_duplicates": True}
    [read_correction] = read_retry({"corrections": [{"item_id": ITEM_ID} | every]}, max_items=1).corrections or ()
    assert read_correction.correction() == every


def test_an_update_with_a_status_is_a_cancellation() -> None:
    assert read_update({"label": None}).model_dump() == {"label": None}
    assert read_update({"status": "cancelled"}).model_dump() == {"status": "cancelled", "cancellation_reason": None}
    assert codes(lambda: read_update({"status": "completed"})) == [("/status", "unknown_value")]
    assert codes(lambda: read_update({"status": "cancelled", "label": "x"})) == [("/label", "unknown_field")]
    assert codes(lambda: read_update({})) == [("/label", "missing_field")]


# --- Mistakes -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"mentor_id": ""}, "empty"),
        ({"mentor_id": "x" * 101}, "too_long"),
        ({"mentor_id": 1}, "wrong_type"),
        ({"mentor_id": "a\0b"}, "bad_characters"),
        ({"mentor_id": "\ud800"}, "bad_characters"),
        ({"activity_date": 1}, "wrong_type"),
        ({"activity_date": "soon"}, "not_a_date"),
        ({"activity_date": "2026-02-30"}, "not_a_date"),
        ({"duration_minutes": "1"}, "wrong_type"),
        ({"duration_minutes": 1.5}, "wrong_type"),
        ({"duration_minutes": 2**31}, "out_of_range"),
        ({"duration_minutes": 2**70}, "out_of_range"),
        ({"duration_minutes": -(2**31) - 1}, "out_of_range"),
        ({"surprise": 1}, "unknown_field"),
        ({"notes": "n" * 10_001}, "too_long"),
    ],
)
def test_each_mistake_has_its_code_and_its_place(change: dict[str, Any], code: str) -> None:
    [name] = change
    assert codes(lambda: read_submission({"items": [ITEM | change]}, max_items=1)) == [(f"/items/0/{name}", code)]


def test_a_missing_field_and_values_that_are_no_object_or_list() -> None:
    item = {name: value for name, value in ITEM.items() if name != "mentor_id"}
    assert codes(lambda: read_submission({"items": [item]}, max_items=1)) == [("/items/0/mentor_id", "missing_field")]
    for body, place in (
        ([], ""),
        ({"items": 5}, "/items"),
        ({"items": [5]}, "/items/0"),
        ({"items": [ITEM], "override_duplicates": 1}, "/override_duplicates"),
    ):
        assert codes(lambda body=body: read_submission(body, max_items=1)) == [(place, "wrong_type")]  # type: ignore[misc]
    assert codes(lambda: read_retry({"item_ids": ["x", 5]}, max_items=2)) == [
        ("/item_ids/0", "not_a_uuid"),
        ("/item_ids/1", "not_a_uuid"),
    ]


@pytest.mark.parametrize("extra", [-1, 0, 1, 2])
def test_the_number_of_listed_mistakes_is_limited_and_the_rest_is_mentioned(extra: int) -> None:
    most = mistakes.MOST_MISTAKES
    bad = {"items": [ITEM | {"mentor_id": f"m-{number}", "surprise": 1} for number in range(most + extra)]}
    found = codes(lambda: read_submission(bad, max_items=10_000))
    expected = [(f"/items/{number}/surprise", "unknown_field") for number in range(min(most, most + extra))]
    assert found == expected + [("", "too_many_mistakes")] * (extra > 0)
    every = codes(lambda: read_submission(bad, max_items=10_000, most_mistakes=None))
    assert every == [(f"/items/{number}/surprise", "unknown_field") for number in range(most + extra)]
    assert len(first_of(iter([mistakes.COORDINATOR_UNKNOWN] * (most + extra)))) == min(most + extra, most + 1)


def test_the_number_of_unknown_fields_named_of_one_object_is_limited() -> None:
    """Even if all mistakes of a file are listed, because describing each costs a kilobyte."""
    most = mistakes.MOST_MISTAKES
    bad = {"items": [ITEM | {f"surprise-{number}": 1 for number in range(3 * most)}]}
    every = codes(lambda: read_submission(bad, max_items=10, most_mistakes=None))
    assert every == [(f"/items/0/surprise-{number}", "unknown_field") for number in range(most + 1)]


@pytest.mark.parametrize(
    ("parts", "written"),
    [
        ((), ""),
        (("items", 0, "mentor_id"), "/items/0/mentor_id"),
        (("a/b", "c~d", "~1"), "/a~1b/c~0d/~01"),
        (("x" * 200,), "/" + "x" * 200),
        (("x" * 201,), "/" + "x" * 200),
        (("\ud800",), "/?"),
    ],
)
def test_a_pointer_is_escaped_and_cut(parts: tuple[object, ...], written: str) -> None:
    assert pointer(*parts) == written


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "0"),
        (2, "0 and 1"),
        (3, "0, 1 and 2"),
        (10, "0, 1, 2, 3, 4, 5, 6, 7, 8 and 9"),
        (11, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1 more"),
        (1_011, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1,001 more"),
    ],
)
def test_positions_in_a_message(count: int, said: str) -> None:
    assert listed(range(count)) == said


def test_each_duplicate_is_named_at_each_place() -> None:
    found = list(duplicate_mentors(["a", "b", "a", "c", "b", "a"], lambda entry: f"/{entry}", lambda entry: entry + 10))
    assert [(each.pointer, each.detail.split("positions ")[1].split(" have")[0]) for each in found] == [
        ("/0", "10, 12 and 15"),
        ("/2", "10, 12 and 15"),
        ("/5", "10, 12 and 15"),
        ("/1", "11 and 14"),
        ("/4", "11 and 14"),
    ]
    assert [size_mistakes("/x", range(count), 2) == [] for count in range(4)] == [False, True, True, False]


# --- JSON ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ['{{"a":{}}}', '{{"a\\\\b":{}}}', "[{}]"])
def test_the_levels_and_values_of_json_are_limited(form: str) -> None:
    for depth in (1, 2, 3, 4):
        raw = form.format("[" * (depth - 1) + "]" * (depth - 1) or "1").encode()
        if depth <= 3:
            strict_json.loads(raw, max_depth=3)
        else:
            with pytest.raises(strict_json.BadJsonError, match="nested deeper than 3"):
                strict_json.loads(raw, max_depth=3)
    for count in (1, 2, 3, 4):
        raw = form.format("[" + ",".join(['","'] * count) + "]").encode()
        # The document, its list, and the texts, which are full of commas.
        if count <= 3:
            strict_json.loads(raw, max_depth=9, max_values=5)
        else:
            with pytest.raises(strict_json.BadJsonError, match="more than 5 values"):
                strict_json.loads(raw, max_depth=9, max_values=5)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"a":1,"a":1}', "same key twice"),
        (b'{"b":{"a":1,"a":1}}', "same key twice"),
        (b'{"a":1,"\\u0061":1}', "same key twice"),
        (b'{"a":1e400}', "too large"),
        (b'{"a":-1e400}', "too large"),
        (b'{"a":' + b"9" * 5_000 + b"}", "too large"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"a":-Infinity}', "-Infinity is not JSON"),
        (b'{"a":"\xff"}', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a":1}\n{', "line 2, column 1"),
        ('{"a":1}'.encode("utf-16"), "UTF-16"),
        ('{"a":1}'.encode("utf-16-le"), "UTF-16"),
        ('{"a":1}'.encode("utf-32-be"), "UTF-32"),
    ],
)
def test_unacceptable_json_is_refused_with_a_reason(raw: bytes, said: str) -> None:
    with pytest.raises(strict_json.BadJsonError, match=said):
        strict_json.loads(raw, max_depth=9)


# --- The external service -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "is_read"),
    [
        ({"status": "registered", "activity_id": ITEM_ID}, True),
        ({"status": "registered"}, False),
        ({"status": "refused", "code": "not_active"}, True),
        ({"status": "refused"}, False),
        ({"status": "refused", "code": "not_active", "activity_id": ITEM_ID}, False),
        ({"status": "withdrawn"}, True),
        ({"status": "withdrawn", "activity_id": ITEM_ID}, False),
        ({"status": "processing"}, True),
        ({"status": "processing", "activity_id": ITEM_ID}, False),
        ({"status": "unknown"}, False),
        ({"status": "refused", "code": "x" * 50}, True),
        ({"status": "refused", "code": "x" * 51}, False),
        ({"status": "refused", "code": "Not active"}, False),
        ({"status": "refused", "code": "1x"}, False),
    ],
)
def test_which_responses_of_an_external_service_are_complete(answer: dict[str, Any], is_read: bool) -> None:
    if is_read:
        assert RegistrationResponse.model_validate({"key": "k"} | answer).key == "k"
    else:
        with pytest.raises(ValidationError):
            RegistrationResponse.model_validate({"key": "k"} | answer)
    with pytest.raises(ValidationError):
        RegistrationResponse.model_validate(answer)


def test_an_external_service_gets_everything_about_an_activity() -> None:
    told = {
        "item_id": UUID(ITEM_ID),
        "batch_id": UUID(ITEM_ID),
        "organization_id": "o",
        "attributed_to": "m",
        "registered_by": "c",
        "submitted_by": "s",
        "channel": "api",
        "activity_type": "x",
        "activity_date": date(2026, 3, 25),
        "duration_minutes": 60,
        "notes": None,
        "override_duplicates": False,
    }
    assert RegistrationRequest.model_validate(told).model_dump() == told
    for name in told:
        with pytest.raises(ValidationError):
            RegistrationRequest.model_validate({key: value for key, value in told.items() if key != name})
