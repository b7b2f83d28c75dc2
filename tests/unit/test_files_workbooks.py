"""Workbooks of programs and people: a cell means what it shows, and nothing of a sheet is hidden from the reader."""

import io
import zipfile
from datetime import date, timedelta
from typing import Any
from uuid import uuid4
from xml.sax.saxutils import escape

import pytest
from openpyxl import Workbook

from orchestrator.files import workbooks
from orchestrator.files.cells import identifier, optional_date
from orchestrator.files.corrections import read_corrections
from orchestrator.files.headers import Column
from orchestrator.files.mistakes import BadFileError
from orchestrator.files.registrations import read_registrations
from orchestrator.files.tables import no_rows, read_table
from orchestrator.files.workbooks import unescaped
from tests.support.read_submissions import item_of
from tests.support.read_tables import mistakes, values
from tests.support.workbooks import DAY, HEADER, MAIN, RELATIONSHIPS, TEXT, formatted, raw_workbook, row, zipped

# --- Formulas -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell",
    [
        "<c><f>Z1</f></c>",
        "<c><f>Z1</f><v/></c>",
        "<c><f>Z1</f><v></v></c>",
        '<c t="str"><f>Z1</f></c>',
        '<c><f t="shared" si="0"/></c>',
    ],
)
def test_a_formula_without_a_saved_value_is_named_in_every_column(cell: str) -> None:
    others = TEXT("x")
    for position, title in enumerate(HEADER):
        cells = [TEXT("m"), others, TEXT("25.03.2026"), "<c><v>60</v></c>", others]
        cells[position] = cell
        [found] = mistakes("a.xlsx", raw_workbook(f"<row>{''.join(cells)}</row>"))
        assert found.startswith(f"a.xlsx, row 2, column {title}: ")
        assert "formula without a saved value" in found
    found_alone = mistakes("a.xlsx", raw_workbook(f"<row>{cell * 4}</row>{row(TEXT('m-2'))}"))
    assert len(found_alone) == 4


def test_the_placeholder_of_a_program_that_can_not_calculate_is_no_value() -> None:
    cell = "<c><f>Z1</f><v>0</v></c>"
    [found] = mistakes("a.xlsx", raw_workbook(row(cell), book='<calcPr fullCalcOnLoad="1"/>'))
    assert "formula without a saved value" in found
    assert values("a.xlsx", raw_workbook(row(cell)))[0]["mentor_id"] == "0"


def test_saved_values_of_formulas_are_read_and_errors_are_named() -> None:
    rows = row('<c t="str"><f>A1</f><v>m-1</v></c>', notes='<c t="str"><f>IF(1,"")</f><v></v></c>')
    assert values("a.xlsx", raw_workbook(rows))[0] | {"activity_date": 0} == {
        "mentor_id": "m-1",
        "activity_type": "x",
        "activity_date": 0,
        "duration_minutes": 60,
        "notes": None,
    }
    for error in ("#REF!", "#N/A", "#NAME?", "#SPILL!"):
        [found] = mistakes("a.xlsx", raw_workbook(row(TEXT("m"), notes=f'<c t="e"><f>A1</f><v>{error}</v></c>')))
        assert found == "a.xlsx, row 2, column notes: is the error of a formula"


def test_an_error_in_the_header_is_named() -> None:
    found = mistakes("a.xlsx", _with_header('<row r="1"><c t="e"><v>#REF!</v></c></row>'))
    assert found[0] == 'a.xlsx, row 1: "#REF!" is the error of a formula'


def _with_header(header: str) -> bytes:
    sheet = f'<worksheet xmlns="{MAIN}"><sheetData>{header}</sheetData></worksheet>'
    with zipfile.ZipFile(io.BytesIO(raw_workbook(""))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    return zipped(parts | {"xl/worksheets/sheet1.xml": sheet.encode()})


# --- Texts --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("first_x000D_\nsecond", "first\nsecond"),
        ("first_x000D__x000A_second", "first\nsecond"),
        ("a_x005F_x000D_b", "a_x000D_b"),
        ("_x0041_", "A"),
        ("_xD83D__xDE00_", "\N{GRINNING FACE}"),
        ("_xD83D_", "\N{REPLACEMENT CHARACTER}"),
        ("_x00_", "_x00_"),
        ("snake_case_x", "snake_case_x"),
    ],
)
def test_escapes_are_replaced_by_their_characters(written: str, meant: str) -> None:
    assert unescaped(written) == meant
    cells = {
        "inline": TEXT(written),
        "formula": f'<c t="str"><f>A1</f><v>{written}</v></c>',
        "shared": '<c t="s"><v>0</v></c>',
        "rich": '<c t="s"><v>1</v></c>',
    }
    half = len(written) // 2
    rich = f"<r><t>{written[:half]}</t></r><r><rPr/><t>{written[half:]}</t></r><rPh sb='0' eb='1'><t>ignored</t></rPh>"
    for cell in cells.values():
        raw = raw_workbook(row(TEXT("m"), notes=cell), strings=(f"<t>{written}</t>", rich))
        assert values("a.xlsx", raw)[0]["notes"] == meant


def test_a_header_may_have_escapes_and_line_breaks() -> None:
    header = (
        "<row>"
        + "".join(TEXT(each) for each in ("Mentor_x000D_\nid", "Aktivitet", "Dato ", "Varighet\N{NO-BREAK SPACE}minutter"))
        + "</row>"
    )
    line = f"<row>{TEXT('m')}{TEXT('x')}{TEXT('25.03.2026')}<c><v>60</v></c></row>"
    assert values("a.xlsx", _with_header(header + line))[0]["mentor_id"] == "m"


# --- Dates --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", [1, 25, 60, 366, 2_026, 9_999])
def test_a_number_that_was_typed_into_a_date_cell_is_no_date(typed: int) -> None:
    raw = formatted(["m", "x", typed, 60, None], formats={"C2": "dd.mm.yyyy"})
    [found] = mistakes("a.xlsx", raw)
    assert (
        found
        == f'a.xlsx, row 2, column activity_date: "{typed}" is a number in a cell formatted as a date, but not a date; write 25.03.2026'
    )


@pytest.mark.parametrize(
    ("book", "serial", "day"),
    [
        ("", "46106", date(2026, 3, 25)),
        ("", "46106.75", date(2026, 3, 25)),
        ('<workbookPr date1904="1"/>', "44644", date(2026, 3, 25)),
    ],
)
def test_dates_count_from_1900_or_1904(book: str, serial: str, day: date) -> None:
    styles = f'<styleSheet xmlns="{MAIN}"><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/></cellXfs></styleSheet>'
    cells = f'{TEXT("m")}{TEXT("x")}<c s="1"><v>{serial}</v></c><c><v>60</v></c>'
    with zipfile.ZipFile(io.BytesIO(raw_workbook(f"<row>{cells}</row>", book=book))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    relations = parts["xl/_rels/workbook.xml.rels"].replace(
        b"</Relationships>", f'<Relationship Id="y" Type="{RELATIONSHIPS}/styles" Target="styles.xml"/></Relationships>'.encode()
    )
    raw = zipped(parts | {"xl/styles.xml": styles.encode(), "xl/_rels/workbook.xml.rels": relations})
    assert values("a.xlsx", raw)[0]["activity_date"] == day


def test_dates_that_are_written_out() -> None:
    cells = f'{TEXT("m")}{TEXT("x")}<c t="d"><v>2026-03-25T00:00:00</v></c><c><v>60</v></c>'
    assert values("a.xlsx", raw_workbook(f"<row>{cells}</row>"))[0]["activity_date"] == date(2026, 3, 25)


# --- What is hidden -----------------------------------------------------------------------------------------------------------


def test_hidden_rows_and_columns_are_read_and_reported() -> None:
    rows = row(TEXT("m-1")) + row(TEXT("m-2"), attributes='hidden="1"') + row(TEXT("m-3"), attributes='ht="0" customHeight="1"')
    table = read_registrations("a.xlsx", raw_workbook(rows, before='<cols><col min="4" max="5" hidden="1"/></cols>'))
    assert len(table.rows) == 3
    assert table.remarks == [
        "a.xlsx: 2 rows are hidden in the sheet, but read: 3, 4",
        "a.xlsx: these columns are hidden in the sheet, but read: duration_minutes, notes",
    ]


def test_hidden_sheets_are_reported() -> None:
    book = Workbook()
    for line in (HEADER[:4], ["m-1", "x", DAY, 60]):
        book.worksheets[0].append(line)
    for state in ("hidden", "veryHidden"):
        book.create_sheet(state).sheet_state = state
    file = io.BytesIO()
    book.save(file)
    assert read_registrations("a.xlsx", file.getvalue()).remarks == ["a.xlsx: hidden sheets are not read: hidden, veryHidden"]


def test_rows_and_cells_with_a_place_are_read_there() -> None:
    raw = raw_workbook('<row r="7"><c r="A7" t="inlineStr"><is><t>m</t></is></c><c r="D7"><v>60</v></c></row>')
    assert [each.split(":")[0] for each in mistakes("a.xlsx", raw)] == [
        "a.xlsx, row 7, column activity_type",
        "a.xlsx, row 7, column activity_date",
    ]


# --- Merged cells -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("title", HEADER)
def test_a_cell_that_is_merged_over_several_rows_is_a_mistake_in_each_row_after_its_first(title: str) -> None:
    letter = workbooks.column_letters(HEADER.index(title) + 1)
    rows = [[f"m-{number}", "x", "25.03.2026", 60, "n"] for number in range(4)]
    found = mistakes("a.xlsx", formatted(*rows, formats={}, merged=[f"{letter}2:{letter}4"]))
    assert [each.split(":")[0] for each in found] == [f"a.xlsx, row {row}, column {title}" for row in (3, 4)]
    assert all("is a merged cell that begins in row 2; unmerge it and write the value in each row" in each for each in found)


@pytest.mark.parametrize("merged", ["E2:F2", "E1:F1", "F1:F9", "F1:G9", "E4:E9", "A9:E12", "E2:E2"])
def test_merged_cells_that_leave_no_row_without_a_value_are_read(merged: str) -> None:
    rows = [[f"m-{number}", "x", "25.03.2026", 60, "n"] for number in range(3)]
    raw = formatted(*rows, formats={}, merged=[merged])
    assert [each["notes"] for each in values("a.xlsx", raw)] == ["n"] * 3


def test_a_merged_cell_without_a_value_is_blank_in_every_row() -> None:
    rows = [[f"m-{number}", "x", "25.03.2026", 60, None] for number in range(3)]
    assert [each["notes"] for each in values("a.xlsx", formatted(*rows, formats={}, merged=["E2:E4"]))] == [None] * 3


@pytest.mark.parametrize("blank", [" ", "\N{NO-BREAK SPACE}", "\N{ZERO WIDTH SPACE}"])
def test_a_merged_cell_that_reaches_into_a_blank_row_does_not_make_it_a_row(blank: str) -> None:
    rows: list[list[Any]] = [
        ["m-1", "x", "25.03.2026", 60, None],
        ["m-2", "x", "25.03.2026", 60, "n"],
        [blank, None, None, None, None],
    ]
    raw = formatted(*rows, formats={}, merged=["E3:E5", "D3:D4"])
    assert [each["notes"] for each in values("a.xlsx", raw)] == [None, "n"]


def test_a_merged_cell_in_an_optional_column_is_a_mistake() -> None:
    book = Workbook()
    sheet = book.worksheets[0]
    for line in (["id", "until"], ["m-1", DAY], ["m-2", None]):
        sheet.append(line)
    sheet.merge_cells("B2:B3")
    file = io.BytesIO()
    book.save(file)
    columns = [Column("id", identifier), Column("until", optional_date)]
    with pytest.raises(BadFileError, match=r"row 3, column until: .* is a merged cell"):
        read_table("a.xlsx", file.getvalue(), columns, no_rows)


def test_a_merged_cell_does_not_keep_the_values_of_items_that_are_corrected() -> None:
    ids = [str(uuid4()) for _ in range(2)]
    book = Workbook()
    sheet = book.worksheets[0]
    for line in (["item_id", "activity_date"], [ids[0], DAY + timedelta(days=1)], [ids[1], None]):
        sheet.append(line)
    sheet.merge_cells("B2:B3")
    file = io.BytesIO()
    book.save(file)
    with pytest.raises(BadFileError, match=r"row 3, column activity_date: .* is a merged cell"):
        read_corrections("c.xlsx", file.getvalue()).against([item_of(each) for each in ids])


def test_the_number_of_merged_places_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbooks, "MAX_PLACES", 50)
    merged = '<mergeCell ref="A2:A5"/>'
    assert len(mistakes("a.xlsx", raw_workbook(row(TEXT("m")) * 4, after=f"<mergeCells>{merged}</mergeCells>"))) == 3
    [found] = mistakes("a.xlsx", raw_workbook(row(TEXT("m")) * 4, after=f"<mergeCells>{merged * 17}</mergeCells>"))
    assert "is too large for a list" in found


def test_columns_have_the_names_that_programs_show() -> None:
    assert [workbooks.column_letters(each) for each in (1, 26, 27, 702, 703, 16_384)] == ["A", "Z", "AA", "ZZ", "AAA", "XFD"]


def test_text_between_tags_is_escaped() -> None:
    assert values("a.xlsx", raw_workbook(row(TEXT(escape("a&b<c")))))[0]["mentor_id"] == "a&b<c"
