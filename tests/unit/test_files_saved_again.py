"""An export that a spreadsheet program has saved again corrects only what a person has edited."""

import csv
import io
import json
from datetime import date
from typing import Any
from uuid import uuid4

import pytest
from openpyxl import Workbook

from orchestrator.files.corrections import Corrections, read_corrections
from orchestrator.files.mistakes import BadFileError
from tests.support.read_submissions import item_of
from tests.support.workbooks import moment

FIRST, SECOND, THIRD = (str(uuid4()) for _ in range(3))
ITEMS = [
    item_of(FIRST, mentor_id="00482", activity_date="2027-02-10"),
    item_of(SECOND, mentor_id="kåre-07", activity_date="2027-02-10"),
    item_of(THIRD, mentor_id="m-001", activity_date="2027-02-10", status="success"),
]


def corrected(name: str, *rows: list[Any]) -> Corrections:
    """A file with the columns of an export, compared with the three items."""
    header = ["item_id", "mentor_id", "activity_type", "activity_date", "duration_minutes"]
    if name.endswith(".xlsx"):
        book = Workbook()
        for row in [header, *rows]:
            book.worksheets[0].append(row)
        file = io.BytesIO()
        book.save(file)
        return read_corrections(name, file.getvalue()).against(ITEMS)
    text = io.StringIO()
    csv.writer(text, delimiter=";").writerows([header, *rows])
    return read_corrections(name, text.getvalue().encode()).against(ITEMS)


@pytest.mark.parametrize("name", ["corrected.xlsx", "corrected.csv"])
def test_only_the_edited_dates_are_corrected(name: str) -> None:
    """A spreadsheet program has removed one id's zeros and changed another id's letters. That must register nobody else."""
    day: Any = moment(2025, 2, 10) if name.endswith("xlsx") else "10.02.2025"
    found = corrected(
        name, [FIRST, 482, "x", day, 60], [SECOND, "kÃ¥re-07", "x", day, "60,0"], [THIRD, "m-001", "x", "2027-02-10", 60]
    )
    assert found.corrections == [
        {"item_id": FIRST, "activity_date": "2025-02-10"},
        {"item_id": SECOND, "activity_date": "2025-02-10"},
    ]
    assert (found.changes, found.moves_to_another_mentor) == ([], False)
    unchanged, kept = found.remarks
    assert "skipped 1 unchanged rows of items that have succeeded" in unchanged
    assert "row 2, mentor_id 482 for 00482; row 3, mentor_id kÃ¥re-07 for kåre-07" in kept


def test_an_edited_id_is_shown_before_and_after() -> None:
    found = corrected("c.csv", [FIRST, "m-002", "y", "2027-02-10", 60])
    assert list(map(str, found.changes)) == ["row 2: mentor_id 00482 → m-002", "row 2: activity_type x → y"]
    assert found.moves_to_another_mentor
    assert found.corrections == [{"item_id": FIRST, "mentor_id": "m-002", "activity_type": "y"}]
    assert not corrected("c.csv", [FIRST, "00482", "y", "2027-02-10", 60]).moves_to_another_mentor
    document = json.dumps([{"item_id": FIRST, "mentor_id": "482"}]).encode()
    assert list(map(str, read_corrections("c.json", document).against(ITEMS).changes)) == ["/0: mentor_id 00482 → 482"]


def test_dates_with_slashes_are_read_in_the_order_of_the_unedited_ones() -> None:
    rows = [[FIRST, "00482", "x", "2/10/2027", 60], [SECOND, "kåre-07", "x", "2/10/2027", 60]]
    assert corrected("c.csv", *rows).corrections == [{"item_id": FIRST}, {"item_id": SECOND}]
    rows[1][3] = "10/2/2027"  # 2 October here, where the other one is 10 February.
    with pytest.raises(BadFileError, match=r"row 3, column activity_date.*has slashes"):
        corrected("c.csv", *rows)


def test_an_item_of_another_batch_is_named() -> None:
    stranger = str(uuid4())
    with pytest.raises(BadFileError, match=f"row 2.*{stranger}.*is not an item of this batch"):
        corrected("c.csv", [stranger, "m", "x", "", ""])


def test_a_file_with_only_successes_is_refused_as_the_server_would() -> None:
    assert corrected("c.csv", [THIRD, "m-001", "x", "2027-02-10", 60]).corrections == [{"item_id": THIRD}]


def test_an_export_from_before_another_retry_reverts_nothing() -> None:
    item = item_of(FIRST, attempt=2)
    unedited, edited = (f"item_id,attempt,mentor_id\n{FIRST},1,{mentor}\n".encode() for mentor in ("m-1", "m-2"))
    assert read_corrections("c.csv", unedited).against([item]).corrections == [{"item_id": FIRST}]
    with pytest.raises(BadFileError, match="exported at attempt 1 and has been retried since"):
        read_corrections("c.csv", edited).against([item])


OLDER: list[Any] = ["1", "1,0", "1.00", "1E0", "1\N{ZERO WIDTH SPACE}", "'1", "1,000", "100%", 1, 1.0]
PRESENT: list[Any] = ["2", "2,0", "2.00", "2E+00", "2,000", "", " ", 2, 2.0]
NO_NUMBER: list[Any] = ["TRUE", "#N/A", "1,5", "-1", "x", "01.jan", True, 1.5, date(2026, 1, 1)]


@pytest.mark.parametrize(
    ("cell", "refusal"),
    [
        *((cell, "exported at attempt 1 and has been retried") for cell in OLDER),
        *((cell, None) for cell in PRESENT),
        *((cell, "is not a whole number; export") for cell in NO_NUMBER),
    ],
)
def test_the_attempt_counts_in_every_form_of_its_number(cell: Any, refusal: str | None) -> None:
    """In a text file and in a workbook, with and without a number format."""
    rows = [["item_id", "attempt", "mentor_id"], [FIRST, cell, "m-2"]]
    text, files = io.StringIO(), {}
    csv.writer(text, delimiter=";").writerows(rows)
    if type(cell) is str:
        files["c.csv"] = text.getvalue().encode()
    for code in ("General", "0.00"):
        book, file = Workbook(), io.BytesIO()
        for row in rows:
            book.worksheets[0].append(row)
        book.worksheets[0]["B2"].number_format = "yyyy-mm-dd" if isinstance(cell, date) else code
        book.save(file)
        files[f"{code}.xlsx"] = file.getvalue()
    for name, raw in files.items():
        read = read_corrections(name, raw)
        # In a row that corrects nothing, it is not looked at.
        assert read.against([item_of(FIRST, attempt=2, mentor_id="m-2")]).corrections == [{"item_id": FIRST}]
        if refusal is None:
            assert read.against([item_of(FIRST, attempt=2)]).corrections == [{"item_id": FIRST, "mentor_id": "m-2"}]
            continue
        with pytest.raises(BadFileError, match=refusal):
            read.against([item_of(FIRST, attempt=2)])
