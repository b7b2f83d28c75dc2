"""Tables as people keep them: the same rows in any format are the same registrations, and all mistakes are found at once."""

import csv
import io
import re
import zipfile
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook

from orchestrator.files.encodings import UTF8_LETTER, misread_part
from orchestrator.files.mistakes import BadFileError
from orchestrator.files.registrations import COLUMNS, read_registrations
from schemas.spelling import canonical
from tests.support.read_tables import mistakes, values

SPREADSHEETS = Path(__file__).parents[1] / "data" / "small" / "spreadsheets"
HEADER = ["mentor_id", "activity_type", "activity_date", "duration_minutes", "notes"]


def workbook(*rows: list[Any], **others: list[list[Any]]) -> bytes:
    book = Workbook()
    sheet = book.worksheets[0]
    for row in rows:
        sheet.append(row)
    for title, content in others.items():
        other = book.create_sheet(title)
        for row in content:
            other.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def test_one_list_in_four_formats_is_the_same_batch() -> None:
    first, *others = (
        values(name, (SPREADSHEETS / name).read_bytes())
        for name in ("plain.csv", "excel-norwegian.csv", "bom-tabs.tsv", "workbook.xlsx")
    )
    assert len(first) == 12
    assert first[0] == {
        "mentor_id": "mentor-110",
        "activity_type": "peer_session",
        "activity_date": date(2026, 4, 14),
        "duration_minutes": 90,
        "notes": "Officia quam magnam. æøå",
    }
    assert others == [first] * 3


def test_three_mistakes_are_named_with_file_row_column_and_value() -> None:
    found = mistakes("three-mistakes.csv", (SPREADSHEETS / "three-mistakes.csv").read_bytes())
    assert [each.split('" ')[0] for each in found] == [
        'three-mistakes.csv, row 4, column activity_date: "14/04/26',
        'three-mistakes.csv, row 6, column duration_minutes: "an hour',
        'three-mistakes.csv, row 9, column mentor_id: "',
    ]


# What a text cell can contain in each encoding. Blanks around it are not part of it.
WINDOWS_1252 = bytes(each for each in range(0x20, 0x100) if each not in b"\x7f\x81\x8d\x8f\x90\x9d").decode("windows-1252")
TEXTS = {
    "windows-1252": st.text(WINDOWS_1252, max_size=20).map(str.strip),
    "utf-8": st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20).map(str.strip),
}
TEXTS["utf-8-sig"] = TEXTS["utf-8"]


def _is_told_apart(text: str) -> bool:
    """Whether no letters of these Windows-1252 bytes are by accident UTF-8 as well, or look like it (`í¢£`)."""
    raw = text.encode("windows-1252")
    return raw.decode(errors="ignore").isascii() and UTF8_LETTER.search(raw) is None


def _is_an_id(text: str) -> bool:
    """Whether this is no formula, no error, no lost letter, and nothing that a program has changed."""
    changed = r"[0-9]+[.,]0|[0-9]E\+[0-9]+|NULL|NaN|NaT|\\N"
    return re.fullmatch(rf"#{{3,}}|[='].*|\".*\"|.*\ufffd.*|{changed}|", text) is None and misread_part(text) is None


@given(st.data())
def test_any_dialect_gives_the_same_rows(data: st.DataObject) -> None:
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "windows-1252"]))
    texts = TEXTS[encoding].filter(lambda text: re.fullmatch("#{3,}", text) is None)
    ids = texts.filter(lambda text: _is_an_id(canonical(text).strip()))
    rows = data.draw(
        st.lists(
            st.tuples(ids, ids, st.dates(), st.integers(0, 9_999), texts),
            min_size=1,
            max_size=5,
            unique_by=lambda row: canonical(row[0]).strip(),
        )
    )
    titles = [
        data.draw(st.sampled_from([column.name, *column.aliases]))
        .replace("_", data.draw(st.sampled_from(["_", " ", "-"])))
        .translate({ord("i"): data.draw(st.sampled_from("iI"))})
        for column in COLUMNS[:5]
    ]
    out = io.StringIO()
    writer = csv.writer(
        out, delimiter=data.draw(st.sampled_from(",;\t")), lineterminator=data.draw(st.sampled_from(["\n", "\r\n"]))
    )
    writer.writerow(titles)
    for mentor, activity, day, minutes, notes in rows:
        shown = data.draw(st.sampled_from([day.isoformat(), f"{day.day:02}.{day.month:02}.{day.year:04}"]))
        writer.writerow([mentor, activity, shown, minutes, notes])
        writer.writerows(data.draw(st.sampled_from([[], [[]], [["", " ", "", "", ""]]])))
    raw = out.getvalue().encode(encoding)
    if encoding == "windows-1252" and not _is_told_apart(out.getvalue()):
        return
    # An id has one spelling, whatever the file has (decision 26).
    expected = [(canonical(row[0]).strip(), canonical(row[1]).strip(), *row[2:4], row[4] or None) for row in rows]
    assert values("any.csv", raw) == [dict(zip(HEADER, row, strict=True)) for row in expected]


def test_a_workbook_gives_what_its_cells_mean() -> None:
    raw = workbook(
        [],
        ["Mentor", "Aktivitet", "Dato", "Varighet", "Notat", "Navn"],
        [482, "workshop", datetime(2026, 3, 25), time(1, 30), "first", "Kari"],  # noqa: DTZ001
        [],
        ["m-2", "workshop", date(2026, 3, 25), timedelta(hours=26), None, None],
        ["m-3", "workshop", "25.03.2026", "1,5 h", 12.0, ""],
        Notes=[["not", "this"]],
    )
    table = read_registrations("book.XLSX", raw)
    assert [(record.row, record.values["mentor_id"], record.values["duration_minutes"]) for record in table.rows] == [
        (3, "482", 90),
        (5, "m-2", 1_560),
        (6, "m-3", 90),
    ]
    assert {record.values["activity_date"] for record in table.rows} == {date(2026, 3, 25)}
    assert [record.values["notes"] for record in table.rows] == ["first", None, "12"]
    assert table.remarks == ["book.XLSX: only the sheet Sheet is read, not Notes", "book.XLSX: not read: Navn"]


def test_the_first_visible_sheet_of_a_workbook_is_read_completely() -> None:
    book = Workbook()
    hidden = book.worksheets[0]
    hidden.append(["not", "this"])
    hidden.sheet_state = "hidden"
    shown = book.create_sheet("April")
    shown.append(["Mentor", "Type", "Date", "Minutes"])
    shown.append(["m-1", "x", date(2026, 3, 25), 60])
    failed = shown.cell(row=3, column=1, value="#N/A")
    failed.data_type = "e"
    for column, value in enumerate(["x", date(2026, 3, 25), 60], start=2):
        shown.cell(row=3, column=column, value=value)
    file = io.BytesIO()
    book.save(file)
    # A program that writes a wrong extent. A reader that trusted it would see one cell.
    wrong = io.BytesIO()
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(wrong, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, re.sub(rb'<dimension ref="[^"]*"', b'<dimension ref="A1"', content))
    assert mistakes("a.xlsx", wrong.getvalue()) == ['a.xlsx, row 3, column Mentor: "#N/A" is the error of a formula']


def test_rows_are_counted_as_a_spreadsheet_program_does() -> None:
    raw = b'mentor_id,type,date,duration,notes\n\nm-1,x,2026-03-25,60,"two\nlines"\nm-2,x,2026-03-25,sixty,\n'
    assert mistakes("a.csv", raw) == [
        'a.csv, row 4, line 5, column duration: "sixty" is not a duration; write minutes (90), hours and minutes (1:30) or hours (1,5 h)'
    ]


def test_notes_are_optional_and_never_shown() -> None:
    assert values("a.csv", b"mentor,type,date,minutes\nm-1,x,2026-03-25,60\n")[0].keys() == set(HEADER) - {"notes"}
    raw = f"mentor,type,date,minutes,notes\nm-1,x,2026-03-25,60,{'private' * 2_000}\n".encode()
    assert mistakes("a.csv", raw) == ["a.csv, row 2, column notes: is longer than 10,000 characters"]


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("a.csv", b"", "a.csv: is empty"),
        ("a.csv", b"\n;;\n \n", "a.csv: is empty"),
        ("a.csv", b"mentor,type,date,minutes\n", "a.csv: has a header, but no rows"),
        ("a.csv", "mentor,type".encode("utf-16"), "a.csv: is UTF-16 text; save it as CSV UTF-8"),
        ("a.csv", b"\n" + b"m" * 131_073, "a.csv, line 2: can't be divided into cells (field larger"),
        ("a.csv", b"mentor,type\nx\x81y", "a.csv, line 2: is not utf-8 nor windows-1252 text"),
        ("a.csv", b"\xef\xbb\xbfmentor,type\n\xe6", "a.csv, line 2: is not utf-8 text"),
        ("a.tsv", b'"', "a.tsv, line 1: can't be divided into cells"),
        ("a.csv", b'\n,,"', "a.csv, line 2: can't be divided into cells"),
        ("a.csv", b'mentor,type,date,minutes\nm,"x,2026-03-25,60\nm', "a.csv, line 2: can't be divided into cells"),
        (
            "a.csv",
            b"mentor,type,minutes\nm,x,60\n",
            "a.csv, row 1, column activity_date: is missing from the header (or date, dato",
        ),
        (
            "a.csv",
            b"mentor,type,date,minutes,Peer_Mentor\n",
            "a.csv, row 1, column mentor_id: is in the header more than once; remove or rename all but one",
        ),
        ("a.csv", b"mentor,type,date,minutes\nm,x,2026-03-25,60,more\n", "a.csv, row 2: has 5 cells, but the header has 4"),
        ("a.csv", b"mentor,type,date,minutes\nm,x,2026-03-25\n", 'a.csv, row 2, column minutes: "" is empty'),
        ("a.csv", b"mentor,type,date,minutes\nm,x\0,2026-03-25,1\n", "a.csv, row 2, column type: "),
        ("a.xlsx", b"mentor,type", "a.xlsx: is text, not a workbook; if it is a table, rename it so that it ends in .csv"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_the_place(name: str, raw: bytes, expected: str) -> None:
    [found] = mistakes(name, raw)
    assert found.startswith(expected)


@given(st.binary(max_size=200), st.sampled_from(["a.csv", "a.tsv", "a.xlsx"]))
def test_no_bytes_make_the_reader_crash(raw: bytes, name: str) -> None:
    header = b"mentor,type,date,minutes\n" if name != "a.xlsx" else b"PK\x03\x04"
    try:
        read_registrations(name, header + raw)
    except BadFileError as refusal:
        assert refusal.mistakes  # noqa: PT017 - most bytes are refused, a few are a table


def test_a_mentor_in_two_rows_is_named_with_both() -> None:
    raw = b"mentor,type,date,minutes\nm-1,x,2026-03-25,60\nm-2,x,2026-03-25,60\nm-1,x,25.03.2026,30\nm-1,x,26.03.2026,30\n"
    assert mistakes("a.csv", raw) == [
        'a.csv, row 4, column mentor_id: "m-1" has the same activity type and date as in row 2; remove one of the two rows'
    ]


def test_a_mentor_in_two_rows_is_named_beside_bad_cells() -> None:
    raw = b"mentor,type,date,minutes\nm-1,x,2026-03-25,60\n,x,2026-03-25,60\nm-1,x,2026-03-25,an hour\nm-1,x,soon,60\nm-2,,,,,,\n"
    found = [each.split('" ')[0] for each in mistakes("a.csv", raw)]
    assert found == [
        'a.csv, row 3, column mentor: "',
        'a.csv, row 4, column minutes: "an hour',
        'a.csv, row 5, column date: "soon',
        'a.csv, row 6, column type: "',
        'a.csv, row 6, column date: "',
        'a.csv, row 6, column minutes: "',
        'a.csv, row 4, column mentor_id: "m-1',
    ]


# --- Above the header ---------------------------------------------------------------------------------------------------------

ROWS = "mentor;type;date;minutes\nm-1;x;2026-03-25;60\n"


@pytest.mark.parametrize(
    ("above", "numbers"),
    [
        ("Likepersoner, april\n", "1"),
        ("April;;;\n;;;\n", "1"),
        ("\nTabell 1\nav; \n;1. mai;;\n", "2, 3, 4"),
        ("Avdeling:;Oslo\n", "1"),
        ("Liste;;;01.03.2026\nAvdeling:;Oslo\n", "1, 2"),
    ],
)
def test_titles_above_the_header_are_not_read_and_mentioned(above: str, numbers: str) -> None:
    table = read_registrations("a.csv", (above + ROWS).encode())
    assert [(record.row, record.values["mentor_id"]) for record in table.rows] == [(above.count("\n") + 2, "m-1")]
    assert table.remarks == [f"a.csv: above the header, and so not read: row {numbers}"]
    cells = [line.split(";") for line in (above + ROWS).splitlines()]
    table = read_registrations("a.xlsx", workbook(*cells))
    assert (len(table.rows), table.remarks) == (1, [f"a.xlsx: above the header, and so not read: row {numbers}"])


@pytest.mark.parametrize(
    "above",
    [
        "m-9;x;2026-03-24;60\n",  # a record: somebody has sorted the header into the list
        "m-9;;2026-03-24;\n",
        "m-9;;;60\n",
        "Liste\nm-9;x;2026-03-24;60\n",
        "1\n2\n3\n4\n5\n6\n",
        "minutes\n",
        '"Liste\n',
    ],
)
def test_a_header_below_what_may_be_records_is_refused(above: str) -> None:
    assert mistakes("a.csv", (above + ROWS).encode())
    assert mistakes("a.csv", above.encode())


@pytest.mark.parametrize("above", ["Liste mars\n", "Avdeling:;Oslo\n", "Liste;;;01.03.2026\n"])
def test_only_the_missing_columns_of_a_header_below_a_title_are_named(above: str) -> None:
    header, row = "Likeperson;Aktivitet;Dato;Tid", "m-1;x;2026-03-25;60"
    found = mistakes("a.csv", f"{above}{header}\n{row}\n".encode())
    assert [each.split(":")[0] for each in found] == ["a.csv, row 2, column duration_minutes"]
    found = mistakes("a.csv", f"{above}Deltaker;Tid\nKari;60\n".encode())
    assert [each.split(":")[0] for each in found] == [f"a.csv, row 1, column {column.name}" for column in COLUMNS[:4]]


# --- Ids that a program may have changed --------------------------------------------------------------------------------------


def of_mentors(*mentors: str) -> bytes:
    return ("mentor;type;date;minutes\n" + "".join(f"{mentor};x;2026-03-25;60\n" for mentor in mentors)).encode()


@pytest.mark.parametrize("mentors", [("1.0", "1.1", "2.0"), ("1,0", "2,0", "2,10"), ("m-1", "1.0", "1.5")])
def test_ids_with_decimals_are_read_if_one_stands_beside_another_of_its_whole_number(mentors: Sequence[str]) -> None:
    assert [each["mentor_id"] for each in values("a.csv", of_mentors(*mentors))] == list(mentors)


@pytest.mark.parametrize(
    "mentors", [("1.0", "2.0"), ("1.0", "m-1"), ("482.0", "483"), ("482.0", "1.1.1"), ("482.0", "483.0", "48.25")]
)
def test_ids_whose_decimals_are_all_0_are_mistakes(mentors: Sequence[str]) -> None:
    found = mistakes("a.csv", of_mentors(*mentors))
    assert [each.split('"')[1] for each in found] == [mentor for mentor in mentors if mentor.endswith(".0")]
    assert all("into a number with decimals" in each and '="…"' in each for each in found)
    assert values("a.csv", of_mentors(*(f'="{mentor}"' for mentor in mentors)))[0]["mentor_id"] == mentors[0]


def test_a_missing_column_is_named_with_the_sheet_if_there_are_others() -> None:
    found = mistakes("a.xlsx", workbook(["Summary"], Liste=[HEADER]))
    assert len(found) == 4
    assert all("is missing from the header of the sheet Sheet (or" in each for each in found)
    assert "the sheet" not in mistakes("a.xlsx", workbook(["Summary"]))[0]


@pytest.mark.parametrize(
    ("duration", "minutes", "is_doubtful"),
    [
        ("1,30 t", 78, True),
        ("1.45 h", 87, True),
        ("0,20 timer", 12, True),
        ("1,25 t", 75, False),
        ("1,50 t", 90, False),
        ("1,5 t", 90, False),
    ],
)
def test_hours_that_may_be_hours_and_minutes_are_read_with_a_remark(duration: str, minutes: int, is_doubtful: bool) -> None:
    table = read_registrations("a.csv", ROWS.replace("60", duration).encode())
    assert table.rows[0].values["duration_minutes"] == minutes
    assert [remark.startswith("a.csv: hours were read with decimals") for remark in table.remarks] == [True] * is_doubtful


def test_a_date_in_notes_has_no_time_if_it_is_midnight() -> None:
    midnight, later = datetime(2026, 5, 1), datetime(2026, 5, 1, 9, 30)  # noqa: DTZ001 - as a workbook has them
    raw = workbook(HEADER, ["m", "x", "2026-03-25", 60, midnight], ["n", "x", "2026-03-25", 60, later])
    assert [record["notes"] for record in values("a.xlsx", raw)] == ["2026-05-01", "2026-05-01 09:30:00"]


@pytest.mark.parametrize(
    ("durations", "mentioned"),
    [
        (["2", "1", "9"], "2, 3, 4"),
        (["2", "1,5 t", "3"], "2, 4"),
        (["2", "90 min"], "2"),
        (["1:30", "9"], "3"),
        (["2", "0"], "2"),
        (["2", "10"], None),
        (["2", "1,5 t", "45"], None),
        (["0"], None),
        (["5 min", "1,5 t"], None),
    ],
)
def test_durations_without_a_unit_that_are_all_very_short_are_read_with_a_remark(
    durations: list[str], mentioned: str | None
) -> None:
    rows = "".join(f"m-{number};x;2026-03-25;{duration}\n" for number, duration in enumerate(durations))
    remarks = read_registrations("a.csv", f"mentor;type;date;minutes\n{rows}".encode()).remarks
    said = "a.csv: all durations without a unit are 9 minutes or less; if they are hours, write them as 2 h: row"
    assert remarks == ([f"{said} {mentioned}"] if mentioned else [])


def test_hours_in_a_workbook_without_a_unit_are_read_with_a_remark() -> None:
    [remark] = read_registrations("a.xlsx", workbook(HEADER, ["m", "x", "2026-03-25", 2, "n"])).remarks
    assert remark.endswith("write them as 2 h: row 2")
