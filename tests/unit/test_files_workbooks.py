"""Workbooks of programs and people: a cell means what it shows, and a cell whose display is not known is named."""

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any
from uuid import uuid4
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook

from orchestrator.files import number_formats, packages, workbooks
from orchestrator.files.cells import identifier, optional_date
from orchestrator.files.corrections import read_corrections
from orchestrator.files.headers import Column
from orchestrator.files.mistakes import BadFileError
from orchestrator.files.registrations import read_registrations
from orchestrator.files.tables import no_rows, read_table
from orchestrator.files.workbooks import unescaped
from tests.unit.test_files_submissions import item_of
from tests.unit.test_files_tables import mistakes, values

HEADER = ["mentor_id", "activity_type", "activity_date", "duration_minutes", "notes"]
DAY = datetime(2026, 3, 25)  # noqa: DTZ001 - as a workbook has it

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONSHIPS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
STRICT = "http://purl.oclc.org/ooxml/spreadsheetml/main"
STRICT_RELATIONSHIPS = "http://purl.oclc.org/ooxml/officeDocument/relationships"


def formatted(*rows: list[Any], formats: Mapping[str, str], merged: Sequence[str] = ()) -> bytes:
    """A workbook whose cells have these number formats, by name, and whose cells in these ranges are merged."""
    book = Workbook()
    sheet = book.worksheets[0]
    for row in [HEADER, *rows]:
        sheet.append(row)
    for cell, code in formats.items():
        sheet[cell].number_format = code
    for cells in merged:
        sheet.merge_cells(cells)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def raw_workbook(
    rows: str,
    *,
    strings: tuple[str, ...] = (),
    book: str = "",
    before: str = "",
    after: str = "",
    main: str = MAIN,
    relations: str = RELATIONSHIPS,
) -> bytes:
    """A workbook with this XML as its rows, below a header."""
    titles = "".join(f'<c t="inlineStr"><is><t>{title}</t></is></c>' for title in HEADER)
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    parts = {
        "_rels/.rels": f'<Relationships xmlns="{package}"><Relationship Id="r" Type="{relations}/officeDocument" Target="xl/workbook.xml"/>'
        "</Relationships>",
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{relations}">{book}<sheets><sheet name="S" sheetId="1" r:id="s"/></sheets>'
        "</workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}">'
        f'<Relationship Id="s" Type="{relations}/worksheet" Target="/xl/worksheets/sheet1.xml"/>'
        f'<Relationship Id="t" Type="{relations}/sharedStrings" Target="sharedStrings.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}">{before}<sheetData><row>{titles}</row>{rows}</sheetData>{after}</worksheet>',
        "xl/sharedStrings.xml": f'<sst xmlns="{main}">{"".join(f"<si>{each}</si>" for each in strings)}</sst>',
    }
    return zipped(parts)


def zipped(parts: Mapping[str, str | bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


def row(mentor: str, *, notes: str = "", attributes: str = "") -> str:
    """A row whose first and last cells have this XML."""
    rest = '<c t="inlineStr"><is><t>x</t></is></c><c t="inlineStr"><is><t>25.03.2026</t></is></c><c><v>60</v></c>'
    return f"<row {attributes}>{mentor}{rest}{notes}</row>"


TEXT = '<c t="inlineStr"><is><t>{}</t></is></c>'.format


# --- Number formats -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "code", "shown"),
    [
        (482, "00000", "00482"),
        (10, '"A-"000', "A-010"),
        (10, r"\A\-000", "A-010"),
        (482, "00000;@", "00482"),
        (482, "[Red]00000", "00482"),
        (482, "[$-414]00000", "00482"),
        (12345678, r"00\-00\-0000", "12-34-5678"),
        (1234567, "00 00 00 00", "01 23 45 67"),
        (7, '"M"#', "M7"),
        (482, "#,##0", "482"),
        (482, "General", "482"),
        (482.0, "0", "482"),
        (-5, "0", "-5"),
        (5, '@"-x"', "5-x"),
        ("010", '"A-"@', "A-010"),
        ("010", "00000", "010"),
        (99_999_999_999, "General", "99999999999"),
        (123_456_789_012_345, "0", "123456789012345"),
    ],
)
def test_an_id_is_what_the_cell_shows(stored: object, code: str, shown: str) -> None:
    raw = formatted([stored, "x", DAY, 60, None], formats={"A2": code})
    assert values("a.xlsx", raw)[0]["mentor_id"] == shown


@pytest.mark.parametrize(
    ("stored", "code"),
    [
        (482, "0.00"),
        (1_482, "#,##0"),
        (0.5, "0%"),
        (482, "0.00E+00"),
        (482, "# ?/?"),
        (482, "[$kr-414] 0"),
        (482, "[>100]000;0"),
        (482.5, "General"),
        (123_456_789_012, "General"),
        (1_234_567_890_123_456, "0"),
        (1e300, "0"),
        (482, "0,"),
        (46_106, "yyyy-mm-dd"),
        (0.0625, "h:mm"),
        (25, "dd.mm.yyyy"),
        (True, "General"),
        (482, ";;;"),
    ],
)
def test_an_id_whose_display_is_not_known_is_named(stored: object, code: str) -> None:
    raw = formatted([stored, "x", DAY, 60, None], formats={"A2": code})
    [found] = mistakes("a.xlsx", raw)
    assert found.startswith("a.xlsx, row 2, column mentor_id: ")


@given(st.integers(0, 10**15 - 1), st.integers(1, 20))
def test_zeros_are_added_to_any_width(value: int, width: int) -> None:
    assert number_formats.shown(value, "0" * width) == str(value).zfill(width)


@given(st.floats(), st.text('0#?.,;@"\\_*[]%E+-/ dmyhsAGeneral$€x', max_size=12))
def test_no_format_makes_the_reader_crash(value: float, code: str) -> None:
    shown = number_formats.shown(value, code)
    assert shown is None or shown == shown.strip()
    number_formats.shown_text("x", code)
    number_formats.is_date(code)
    number_formats.is_mixed(code)
    number_formats.alters_amount(code)
    number_formats.is_rounded(value, code)


@pytest.mark.parametrize(
    ("stored", "code", "minutes"),
    [
        (2, '0" t"', 120),
        (1.5, '0.0" h"', 90),
        (1.25, '0.00" t"', 75),
        (1.5, '0.##" t"', 90),
        (0.1 + 0.2, '0.0" t"', 18),
        (3.3000000000000003, '0.0" t";-0.0" t";"-"', 198),
        (90.0000000000001, '0" min"', 90),
        (90, '0" min"', 90),
        (90, "0.00", 90),
        (0.0625, "h:mm", 90),
        (1.5, "[h]:mm", 2_160),
        (130, '0":"00', 90),
        (130, "0:00", 90),
        (9, '0"0"', 90),
        (1_440, "#,##0.00", 1_440),
        (90, "0.00E+00", 90),
        (90, "_-* #,##0_-", 90),
    ],
)
def test_a_duration_has_the_unit_that_the_cell_shows(stored: float, code: str, minutes: int) -> None:
    raw = formatted(["m", "x", DAY, stored, None], formats={"D2": code})
    assert values("a.xlsx", raw)[0]["duration_minutes"] == minutes


@pytest.mark.parametrize(
    ("stored", "code"),
    [
        (1.25, '0.0" t"'),
        (1.5, '0" t"'),
        (1 / 3, '0.00" t"'),
        (1.25, '0.#" t"'),
        (1.25, '0.0" t";-0.00" t"'),
        (130.5, '0":"00'),
        (90.4, '0" min"'),
    ],
)
def test_a_duration_that_the_cell_shows_rounded_is_a_mistake(stored: float, code: str) -> None:
    [found] = mistakes("a.xlsx", formatted(["m", "x", DAY, stored, None], formats={"D2": code}))
    assert "row 2, column duration_minutes: " in found
    assert found.endswith(" shows a rounded number; write minutes")


@pytest.mark.parametrize(
    ("stored", "code"),
    [
        (0.5, '0.0" [h]"'),
        (90, '0" [m]"'),
        (1e12, '0" [h]"'),
        (2, "0 t"),
        (2, "0!t"),
        (2, "0[$ t]"),
        (2, "0[$t-414]"),
        (2, "0*t"),
        (2, "0 h"),
        (0.5, "0.0 h"),
        (60, "0%"),
        (1_000, "0,"),
        (1_000, "0.0,"),
    ],
)
def test_a_duration_whose_display_is_not_known_is_named(stored: float, code: str) -> None:
    raw = formatted(["m", "x", DAY, stored, None], formats={"D2": code})
    [found] = mistakes("a.xlsx", raw)
    assert found.startswith("a.xlsx, row 2, column duration_minutes: ")


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


# --- Other files --------------------------------------------------------------------------------------------------------------

COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500)


def encrypted_zip() -> bytes:
    raw = bytearray(zipped({"xl/workbook.xml": "<workbook/>"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        struct.pack_into("<H", raw, raw.index(signature) + offset, 1)
    return bytes(raw)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "is empty"),
        (COMPOUND + "EncryptedPackage".encode("utf-16-le"), "protected by a password"),
        (COMPOUND + "Workbook".encode("utf-16-le") + b"\0\0", "old Excel workbook (.xls)"),
        (COMPOUND + "WordDocument".encode("utf-16-le") + b"\0\0", "text document (Word)"),
        (COMPOUND, "protected by a password, or in the old format"),
        (b"\x09\x08\x10\x00\x00\x06\x05\x00" + bytes(50), "old Excel workbook (.xls)"),
        (encrypted_zip(), "protected by a password"),
        (b"<html><table><tr><td>mentor</td></tr></table></html>", "web page (HTML)"),
        (b"\xef\xbb\xbf  <!DOCTYPE html>\n", "web page (HTML)"),
        (b'<?xml version="1.0"?><html xmlns="x"/>', "web page (HTML)"),
        (
            b'<?xml version="1.0"?><?mso-application progid="Excel.Sheet"?><Workbook xmlns="urn:schemas-microsoft-com:office:spreadsheet"/>',
            "XML spreadsheet of Excel 2003",
        ),
        (b"MIME-Version: 1.0\nX-Document-Type: Workbook\n", "web archive"),
        (b"%PDF-1.7", "PDF"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
        (b"\xff\xd8\xff\xe0", "picture"),
        (b"{\\rtf1", "text document (RTF)"),
        (b"mentor,type\nm,x\n", "is text, not a workbook"),
        ("mentor;type".encode("utf-16"), "UTF-16"),
        (bytes(100), "is not a workbook"),
        (zipped({"xl/workbook.bin": b"x"}), "binary Excel workbook (.xlsb)"),
        (zipped({"mimetype": b"application/vnd.oasis.opendocument.spreadsheet", "content.xml": b"<x/>"}), "OpenDocument"),
        (zipped({"word/document.xml": b"<x/>"}), "text document (Word)"),
        (zipped({"ppt/presentation.xml": b"<x/>"}), "presentation"),
        (zipped({"Index/Document.iwa": b"x"}), "Numbers"),
        (zipped({"april.xlsx": b"x", "may.csv": b"y"}), "a zip file that contains other files (april.xlsx, may.csv)"),
        (zipped({}), "zip file without a workbook"),
        (raw_workbook(row(TEXT("m")))[:-60], "damaged or incomplete"),
        (b"PK\x03\x04" + bytes(50), "damaged or incomplete"),
        (zipped({"xl/workbook.xml": "<workbook"}), "damaged or incomplete"),
        (zipped({"xl/workbook.xml": "<workbook><sheets/></workbook>"}), "has no visible sheet"),
        (
            zipped({"xl/workbook.xml": '<!DOCTYPE x [<!ENTITY a "b">]><workbook>&a;</workbook>'}),
            "was not written by a spreadsheet program",
        ),
        (raw_workbook('<row><c r="XFD2"><v>1</v></c></row>'), "has a cell in column XFD of row 2"),
        *(
            (
                raw_workbook(f'<row><c t="s"><v>{number}</v></c></row>', strings=("<t>m</t>",)),
                "refers to a text that does not exist",
            )
            for number in ("7", "1", "-1", "+0", "0.0", "x", "1" * 5_000)
        ),
        (zipped({"xl/workbook.xml": '<?xml version="1.0" encoding="foo"?><workbook/>'}), "has the text encoding foo"),
        (zipped({"xl/workbook.xml": '<?xml version="1.0" encoding="utf-7"?><workbook/>'}), "has the text encoding utf-7"),
        *(
            (zipped({"xl/workbook.xml": "<workbook/>"}, compression), "is compressed in a way that is not supported")
            for compression in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)
        ),
    ],
)
def test_a_file_that_is_no_workbook_is_called_what_it_is(raw: bytes, said: str) -> None:
    [found] = mistakes("a.xlsx", raw)
    assert said in found
    assert "Error" not in found
    assert "Bad" not in found


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (raw_workbook(row(TEXT("m"))), "rename it so that it ends in .xlsx"),
        (COMPOUND, "old format of Excel"),
        (b"<table><tr><td>mentor</td></tr></table>", "web page (HTML)"),
        (b"%PDF-1.7", "PDF"),
        ("mentor;type;date;minutes\n".encode("utf-16-le"), "UTF-16"),
        ("mentor;type;date;minutes\n".encode("utf-16-be"), "UTF-16"),
        ("mentor;type".encode("utf-32"), "UTF-32"),
    ],
)
def test_a_file_that_is_no_text_is_called_what_it_is(raw: bytes, said: str) -> None:
    [found] = mistakes("a.csv", raw)
    assert said in found


def test_strict_workbooks_are_read() -> None:
    raw = raw_workbook(row(TEXT("m-049")), main=STRICT, relations=STRICT_RELATIONSHIPS)
    assert values("a.xlsx", raw)[0]["mentor_id"] == "m-049"


def test_parts_may_have_backslashes_and_other_capitals() -> None:
    with zipfile.ZipFile(io.BytesIO(raw_workbook(row(TEXT("m"))))) as archive:
        parts = {name.replace("xl/w", "XL\\W"): archive.read(name) for name in archive.namelist()}
    assert values("a.xlsx", zipped(parts))[0]["mentor_id"] == "m"


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = raw_workbook("<row/>" * 200_000)
    assert len(bomb) < 10_000
    monkeypatch.setattr(packages, "MAX_ELEMENTS", 100_000)
    assert mistakes("a.xlsx", bomb) == [f"a.xlsx: {packages._TOO_LARGE}"]
    monkeypatch.setattr(packages, "MAX_XML_BYTES", 100_000)
    assert mistakes("a.xlsx", bomb) == [f"a.xlsx: {packages._TOO_LARGE}"]


@given(st.data())
def test_no_change_of_a_workbook_makes_the_reader_crash(data: st.DataObject) -> None:
    with zipfile.ZipFile(io.BytesIO(formatted([482, "x", DAY, 60, "n"], formats={"A2": "00000"}))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = data.draw(st.sampled_from(sorted(parts)))
    content = bytearray(parts[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 30))] = data.draw(
            st.sampled_from([b"", b"<c>", b"9", b"</row>", b"-", b'"', b"&#0;"])
        )
    try:
        read_registrations("a.xlsx", zipped(parts | {name: bytes(content)}))
    except BadFileError as refusal:
        assert refusal.mistakes  # noqa: PT017 - many are refused, some are a table


def test_columns_have_the_names_that_programs_show() -> None:
    assert [workbooks.column_letters(each) for each in (1, 26, 27, 702, 703, 16_384)] == ["A", "Z", "AA", "ZZ", "AAA", "XFD"]


def test_text_between_tags_is_escaped() -> None:
    assert values("a.xlsx", raw_workbook(row(TEXT(escape("a&b<c")))))[0]["mentor_id"] == "a&b<c"
