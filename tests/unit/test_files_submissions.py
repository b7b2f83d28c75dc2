"""Files as submissions: every format, the command line's options, and the key that makes a repetition harmless."""

import json
from datetime import date
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.endpoints.exports import CSV
from orchestrator.batches.model import ItemValues, ItemView
from orchestrator.batches.states import ItemStatus
from orchestrator.files.corrections import read_corrections
from orchestrator.files.mistakes import BadFileError
from orchestrator.files.submissions import Given, read_submissions
from schemas.api.retries import read_retry
from schemas.api.submissions import read_submission
from schemas.fields import INT32_MAX
from schemas.mistakes import MOST_MISTAKES
from tests.support.read_submissions import ITEM, NOTHING, item_of, lines, mistakes

DATA = Path(__file__).parents[1] / "data"
SPREADSHEETS = DATA / "small" / "spreadsheets"


def test_a_table_becomes_a_submission_that_the_api_accepts() -> None:
    given = Given(organization_id="org-01", coordinator_id="coord-101", label="April")
    [submission] = read_submissions("plain.csv", (SPREADSHEETS / "plain.csv").read_bytes(), given).submissions
    accepted = read_submission(dict(submission.body), max_items=12)
    assert (accepted.organization_id, accepted.coordinator_id, accepted.label) == ("org-01", "coord-101", "April")
    assert submission.body["items"][0] == {
        "client_reference": "row 2",
        "mentor_id": "mentor-110",
        "activity_type": "peer_session",
        "activity_date": "2026-04-14",
        "duration_minutes": 90,
        "notes": "Officia quam magnam. æøå",
    }
    assert submission.rows == list(range(2, 14))


@pytest.mark.parametrize(("size", "batches"), [("small", 43), ("large", 642)])
def test_ndjson_is_sent_unchanged(size: str, batches: int) -> None:
    raw = (DATA / size / "submissions.ndjson").read_bytes()
    submissions = read_submissions("s.ndjson", raw, NOTHING).submissions
    assert [dict(each.body) for each in submissions] == [json.loads(line) for line in raw.splitlines()]
    assert [each.line for each in submissions] == list(range(1, batches + 1))
    assert len({each.derived_key for each in submissions}) == batches


def test_the_key_depends_only_on_content_label_and_line() -> None:
    def keys(name: str, raw: bytes, given: Given = NOTHING) -> list[str]:
        return [each.derived_key for each in read_submissions(name, raw, given).submissions]

    one = {"label": "a", "items": [ITEM]}
    first, second = keys("s.ndjson", lines(one, one))
    assert first != second
    assert keys("other.ndjson", lines(one, one, one))[:2] == [first, second]
    assert keys("s.json", json.dumps(one, indent=2).encode()) == [first]
    assert keys("s.ndjson", lines(one), Given(label="b")) != [first]
    assert keys("s.ndjson", lines(one | {"items": [ITEM | {"duration_minutes": 61}]})) != [first]
    formats = ("plain.csv", "excel-norwegian.csv", "bom-tabs.tsv", "workbook.xlsx")
    assert len({key for name in formats for key in keys(name, (SPREADSHEETS / name).read_bytes())}) == 1


def test_options_fill_in_what_the_file_leaves_out() -> None:
    given = Given(organization_id="org-01", coordinator_id="c-1", label="b")
    submissions = read_submissions(
        "s.ndjson", lines({"items": [ITEM]}, {"label": "a", "coordinator_id": "c-1", "items": [ITEM]}), given
    )
    expected = {"organization_id": "org-01", "coordinator_id": "c-1", "label": "b", "items": [ITEM]}
    assert [dict(each.body) for each in submissions.submissions] == [expected, expected]


def test_options_that_contradict_the_file_are_refused() -> None:
    raw = lines({"coordinator_id": "c-1", "items": [ITEM]}, {"organization_id": "org-02", "items": [ITEM]})
    assert mistakes("s.ndjson", raw, Given(organization_id="org-01", coordinator_id="c-2")) == [
        "s.ndjson, line 1, /coordinator_id: differs from --coordinator c-2",
        "s.ndjson, line 2, /organization_id: differs from --org org-01",
    ]


def test_all_mistakes_of_all_lines_are_named_before_anything_is_sent() -> None:
    raw = b"\n".join(
        [
            lines({"items": [ITEM]}),
            b"{",
            lines({"items": [ITEM | {"activity_date": "2026-02-30"}, ITEM | {"surprise": 1}]}),
            b"",
            lines({"items": [ITEM, ITEM]}),
            b"[]",
        ]
    )
    found = mistakes("s.ndjson", raw)
    expected = [
        "s.ndjson, line 2:",
        "s.ndjson, line 3, /items/0/activity_date",
        "s.ndjson, line 3, /items/1/surprise",
        "s.ndjson, line 5, /items/0",
        "s.ndjson, line 5, /items/1",
        "s.ndjson, line 6:",
    ]
    assert [each[: len(place)] for each, place in zip(found, expected, strict=True)] == expected


def test_no_mistake_quotes_notes() -> None:
    raw = lines({"items": [ITEM | {"notes": ["canary"]}, ITEM | {"notes": "canary" * 2_000}]}) + b'\n{"notes": "canary'
    assert "canary" not in "\n".join(mistakes("s.ndjson", raw))


@pytest.mark.parametrize(
    ("raw", "batches", "first_item"),
    [
        ((SPREADSHEETS / "bom-tabs.tsv").read_bytes(), 1, "mentor-110"),
        ((SPREADSHEETS / "workbook.xlsx").read_bytes(), 1, "mentor-110"),
        (json.dumps({"items": [ITEM]}, indent=2).encode(), 1, "m-1"),
        (b"\xef\xbb\xbf" + lines({"items": [ITEM]}), 1, "m-1"),
        (lines({"items": [ITEM]}, {"items": [ITEM]}), 2, "m-1"),
    ],
)
def test_the_format_of_standard_input_is_recognized_by_its_content(raw: bytes, batches: int, first_item: str) -> None:
    submissions = read_submissions("-", raw, NOTHING).submissions
    assert len(submissions) == batches
    assert submissions[0].body["items"][0]["mentor_id"] == first_item


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("-", b"", "standard input.csv: is empty"),
        ("s.ndjson", b"\n \n", "s.ndjson: is empty"),
        ("s.json", b"[]", "s.json, line 1: must be an object"),
        ("s.json", b'{"items": [], "items": []}', "s.json: is not acceptable JSON: an object has the same key twice"),
        ("s.docx", b"", "s.docx: has an unknown ending"),
    ],
)
def test_a_file_without_a_submission_is_refused(name: str, raw: bytes, expected: str) -> None:
    assert mistakes(name, raw)[0].startswith(expected)


def test_corrections_come_from_a_table_or_from_json() -> None:
    item_id = str(uuid4())
    items = [item_of(item_id)]
    table = f"Item ID;Status;Dato;Varighet;Notat;Override duplicates\n{item_id};failed;26.03.2026;;;ja\n".encode()
    found = read_corrections("fixed.csv", table).against(items)
    assert found.corrections == [{"item_id": item_id, "activity_date": "2026-03-26", "override_duplicates": True}]
    assert found.remarks == ["fixed.csv: not read: Status"]
    [sent] = read_retry({"corrections": found.corrections}, max_items=1).corrections or ()
    assert sent.override_duplicates
    for document in (found.corrections, {"corrections": found.corrections}):
        assert read_corrections("fixed.json", json.dumps(document).encode()).against(items).corrections == found.corrections


def test_every_mistake_of_a_json_file_is_listed() -> None:
    """A response of the API lists the first ones. The author of a file corrects all at once."""
    many = MOST_MISTAKES + 50
    wrong = [{"item_id": str(uuid4()), "duration_minutes": "long"} for _ in range(many)]
    with pytest.raises(BadFileError) as refused:
        read_corrections("c.json", json.dumps(wrong).encode())
    assert [each.pointer for each in refused.value.mistakes] == [f"/{place}/duration_minutes" for place in range(many)]
    items = [{"mentor_id": f"m-{place}", "activity_type": "x", "duration_minutes": 60} for place in range(many)]
    found = mistakes("s.json", json.dumps({"items": items}).encode())
    assert found == [f"s.json, line 1, /items/{place}/activity_date: is missing" for place in range(many)]


# The values are stored. Blanks around an id mean nothing, and a table is read without them.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20) | st.from_regex(
    r"'*[=+\-@\t\r][^\x00]{0,3}", fullmatch=True
)
IDS = TEXTS.map(str.strip).filter(bool)


@given(IDS, IDS, st.dates(), st.integers(0, INT32_MAX), st.none() | TEXTS)
def test_an_exported_row_that_was_not_edited_corrects_nothing(
    mentor: str, kind: str, day: date, minutes: int, notes: str | None
) -> None:
    values = ItemValues(mentor, kind, day, minutes, notes)
    item = ItemView(uuid4(), 0, values, "=1", ItemStatus.FAILED, 1, None, None)
    exported = {"item_id": str(item.item_id), "status": "failed", **values._asdict(), "activity_date": day.isoformat()}
    found = read_corrections("results.csv", CSV.header(True) + CSV.rows([item], True)).against([exported])
    assert found.corrections == [{"item_id": str(item.item_id)}]
    assert (found.changes, len(found.remarks)) == ([], 1)


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("c.csv", b"mentor_id\nm-1\n", "c.csv, row 1, column item_id: is missing from the header"),
        (
            "c.csv",
            b"item_id,override_duplicates\n01a20651-14d3-8a55-8b41-6a1a3bd00002,perhaps\n",
            'c.csv, row 2, column override_duplicates: "perhaps" is neither yes nor no',
        ),
        ("c.csv", b"item_id,date\nitem 7,\n", 'c.csv, row 2, column item_id: "item 7" is not the id of an item'),
        (
            "c.csv",
            b"item_id\n01a20651-14d3-8a55-8b41-6a1a3bd00002\n01A20651-14d3-8a55-8b41-6a1a3bd00002\n",
            'c.csv, row 3, column item_id: "01a20651-14d3-8a55-8b41-6a1a3bd00002" is already corrected in row 2',
        ),
        ("c.csv", b"item_id,mentor_id\n\n", "c.csv: has a header, but no rows"),
        ("c.json", b"[]", "c.json: must have at least one entry"),
        ("c.json", b'{"corrections": []}', "c.json, /corrections: must have at least one entry"),
        (
            "c.json",
            b'[{"item_id": "01a20651-14d3-8a55-8b41-6a1a3bd00002", "mentor_id": "\\ud800"}]',
            "c.json, /0/mentor_id: has an unpaired surrogate",
        ),
        ("c.json", b"{}", "c.json: must be a list of corrections"),
        ("c.ndjson", b"", "c.ndjson: has an unknown ending"),
    ],
)
def test_bad_corrections_are_refused(name: str, raw: bytes, expected: str) -> None:
    with pytest.raises(BadFileError) as refusal:
        read_corrections(name, raw).against([])
    assert str(refusal.value).startswith(expected)
