"""The parts of a workbook: each attribute that decides the content of a cell, and each limit of the reader."""

import zipfile
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from io import BytesIO

import pytest

from orchestrator.files import number_formats, packages, workbooks
from orchestrator.files.cells import BrokenCell, Cell, FormulaError, Number, ShownText, UnsavedFormula
from orchestrator.files.delimited import UnreadableFileError
from orchestrator.files.workbooks import Sheet, first_sheet
from tests.support.workbooks import HEADER, MAIN, RELATIONSHIPS, TEXT, moment, raw_workbook, zipped

PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"


def parts_of(raw: bytes) -> dict[str, str]:
    with zipfile.ZipFile(BytesIO(raw)) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def relations(*entries: tuple[str, str, str]) -> str:
    each = "".join(f'<Relationship Id="{id_}" Type="{RELATIONSHIPS}/{kind}" Target="{target}"/>' for id_, kind, target in entries)
    return f'<Relationships xmlns="{PACKAGE}">{each}</Relationships>'


def styled(rows: str, styles: str, *, book: str = "", before: str = "", strings: tuple[str, ...] = ()) -> Sheet:
    parts = parts_of(raw_workbook(rows, book=book, before=before, strings=strings))
    parts["xl/styles.xml"] = f'<styleSheet xmlns="{MAIN}">{styles}</styleSheet>'
    parts["xl/_rels/workbook.xml.rels"] = relations(
        ("s", "worksheet", "/xl/worksheets/sheet1.xml"),
        ("t", "sharedStrings", "sharedStrings.xml"),
        ("y", "styles", "styles.xml"),
    )
    return first_sheet(zipped(parts))


def cell(xml: str, code: str = "General", *, book: str = "", strings: tuple[str, ...] = ()) -> Cell:
    """The value that is read from a cell of style 1 with this number format."""
    formats = f'<numFmts><numFmt numFmtId="164" formatCode="{code}"/></numFmts>'
    cellXfs = '<cellStyleXfs><xf numFmtId="9"/></cellStyleXfs><cellXfs><xf numFmtId="0"/><xf numFmtId="164"/></cellXfs>'  # noqa: N806
    sheet = styled(f"<row>{xml}</row>", formats + cellXfs + '<dxfs><xf numFmtId="9"/></dxfs>', book=book, strings=strings)
    return sheet.cells.get(2, {}).get(1, "")


# --- Number formats -----------------------------------------------------------------------------------------------------------

# Among the formats that have a number and no name (ECMA-376, 18.8.30), those of dates and times.
DATES = {*range(14, 23), *range(27, 37), 45, 46, 47, *range(50, 59)}


@pytest.mark.parametrize("number", range(63))
def test_which_formats_with_only_a_number_are_dates(number: int) -> None:
    row = '<row><c s="0"><v>482</v></c><c s="0"><v>46106</v></c></row>'
    sheet = styled(row, f'<cellXfs><xf numFmtId="{number}"/></cellXfs>')
    id_, day = sheet.cells[2][1], sheet.cells[2][2]
    if number == 46:  # Hours beyond 24.
        assert day == timedelta(days=46_106)
    elif number in DATES:
        assert (type(id_), day) == (Number, moment(2026, 3, 25))
        assert number_formats.is_date(id_.format) if isinstance(id_, Number) else False
    else:
        assert isinstance(id_, Number)
        is_known = number in {2, 4, *range(9, 14), 39, 40, 48}
        assert number_formats.shown(id_, id_.format) == (None if is_known else "482")


@pytest.mark.parametrize(
    ("number", "shown"),
    [(2, "1482.00"), (9, None), (10, None), (11, None), (12, None), (13, None), (48, None), (49, "1482"), (1, "1482")],
)
def test_which_formats_with_only_a_number_show_decimals(number: int, shown: str | None) -> None:
    assert number_formats.shown(1_482, number_formats.BUILTIN[number], with_decimals=True) == shown


@pytest.mark.parametrize(
    ("value", "code", "shown"),
    [
        (999, "#,##0", "999"),
        (1_000, "#,##0", None),
        (9, "0,000", None),
        (999, "#,###", "999"),
        (5, "0,", None),
        (5, ",0", None),
        (0, "#", ""),
        (0, "?", ""),
        (7, "??0", "7"),
        (7, '"a"??0', "a  7"),
        (7, "0 0", "0 7"),
        (123, "0 0", "12 3"),
        (10**15 - 1, "0", str(10**15 - 1)),
        (10**15, "0", None),
        (10**11 - 1, "General", str(10**11 - 1)),
        (10**11, "General", None),
        (-7, "General", "-7"),
        (-7, "0;0", "7"),
        (-7, "0;(0)", "(7)"),
        (-7, "0;(0);x", "(7)"),
        (7, "0;(0)", "7"),
        (0, "0;(0)", "0"),
        (0, "0;(0);\\n", "n"),
        (0, '0;(0);"none"', "none"),
        (-7, '0;(0);"none"', "(7)"),
        (7, "0;(0);0;@", "7"),
        (7, '"a;b"0', "a;b7"),
        (7, r"\;0", ";7"),
        (7, "_(0_)", "7"),
        (7, "* 0", "7"),
        (7, "*-0", None),
        (7, "[Blue]0", "7"),
        (7, "[Color 5]0", "7"),
        (7, "[colour5]0", "7"),
        (7, "[$-409]0", "7"),
        (7, "[$€-409]0", None),
        (7, "[>5]0", None),
        (7, "Standard", "7"),
        (7, "-$+():!^&'~{}<>=0", "-$+():!^&'~{}<>=7"),
        (7, "0x", None),
        (7, "x", None),
        (7, '"x"', "x"),
        (7, "@", "7"),
        (0.4, "0", "0"),
        (0.5, "0", "1"),
        (2.5, "0", "3"),
        (7, "0.0", None),
        (1.5, "General", None),
    ],
)
def test_how_a_number_is_shown(value: float, code: str, shown: str | None) -> None:
    assert number_formats.shown(value, code) == shown


@pytest.mark.parametrize(
    ("value", "code", "shown"),
    [
        (1.5, "0.00", "1.50"),
        (1.5, "0.0#", "1.5"),
        (1.5, "0.##", "1.5"),
        (1, "0.##", "1"),
        (1, "0.?0", "1.00"),
        (1.005, "0.00", "1.01"),
        (1.25, "0.0", "1.3"),
        (0.5, "#.0", ".5"),
        (0.5, ".0", ".5"),
        (1.5, ".0", None),
        (1.5, '0.0" h"', "1.5 h"),
        (1, '0.#" h"', "1 h"),
        (-1.5, "0.0", "-1.5"),
    ],
)
def test_how_a_number_with_decimals_is_shown(value: float, code: str, shown: str | None) -> None:
    assert number_formats.shown(value, code, with_decimals=True) == shown


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("General", "x"),
        ("0", "x"),
        ("0;0;0", "x"),
        ("@", "x"),
        ('"A-"@', "A-x"),
        ("0;@-", "x-"),
        ('0;0;0;"A-"@', "A-x"),
        ('0;0;0;"none"', "none"),
        ("0;0;0;", ""),
        ("@*-", None),
        ("@ @", "x x"),
        ("[Red]@", "x"),
    ],
)
def test_how_a_text_is_shown(code: str, shown: str | None) -> None:
    assert number_formats.shown_text("x", code) == shown


@pytest.mark.parametrize(
    ("code", "is_date"),
    [
        *((code, True) for code in ("d", "M", "yyyy", "h", "ss", "[h]", "[mm]:ss", "[SS]", "dd.mm.yyyy;@", '"x"d', "[$-414]d")),
        *(
            (code, False)
            for code in ("0", "General", "Standard", '"dmy"0', r"\d0", "[Red]0", "_d0", "*h0", "0;d", "@", "[$-hms]0")
        ),
    ],
)
def test_which_formats_are_dates(code: str, is_date: bool) -> None:
    assert number_formats.is_date(code) == is_date


@pytest.mark.parametrize(
    ("code", "is_elapsed"),
    [("[h]:mm", True), ("[MM]", True), ("[s]", True), ("h:mm", False), ('0" [h]"', False), ("0;[h]", False), ("[hhh]", False)],
)
def test_which_formats_count_beyond_a_day(code: str, is_elapsed: bool) -> None:
    assert number_formats.is_elapsed(code) == is_elapsed


@pytest.mark.parametrize(
    ("code", "alters"),
    [
        *((code, True) for code in ('0" t"', r"0\t", '0;-0" t"', "0 t", "0!t", "0*t", "0[$ t]", "0[$t-414]", "[$€-2]0")),
        *((code, True) for code in ("0%", "0,", ",0", "0.0,", "0:00", '0"0"', '0"%"')),
        *((code, False) for code in ('0" "', "0", "[Red]0", "0.00", "#,##0.0", "0.00E+00", "[$-414]0", "0_t", "_-* #,##0_-")),
    ],
)
def test_which_formats_alter_the_amount(code: str, alters: bool) -> None:
    assert number_formats.alters_amount(code) == alters


@pytest.mark.parametrize(
    ("code", "is_mixed"),
    [
        *((code, True) for code in ("0 h", "0.0 h", "# min", "0 d")),
        *((code, False) for code in ("0", "mmss.0", "[h]:mm:ss.00", '0" h"', r"0\h", "dd.mm.yyyy", "0 t")),
    ],
)
def test_which_formats_mix_digits_and_dates(code: str, is_mixed: bool) -> None:
    assert number_formats.is_mixed(code) == is_mixed


# --- Cells --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("xml", "code", "kind", "value"),
    [
        ('<c s="1"><v>10</v></c>', "0", Number, 10),
        ('<c s="1" t="n"><v>10</v></c>', "0", Number, 10),
        ('<c s="2"><v>46106</v></c>', "dd.mm.yyyy", Number, 46_106),  # There is no such style.
        ("<c><v>46106</v></c>", "dd.mm.yyyy", Number, 46_106),
        ('<c s="1"><v>46106</v></c>', "dd.mm.yyyy", datetime, moment(2026, 3, 25)),
        ('<c s="1"><v>46106.5</v></c>', "dd.mm.yyyy", datetime, moment(2026, 3, 25, 12)),
        ('<c s="1"><v>9999</v></c>', "dd.mm.yyyy", Number, 9_999),
        ('<c s="1"><v>9999.5</v></c>', "dd.mm.yyyy", datetime, moment(1927, 5, 17, 12)),
        ('<c s="1"><v>10000</v></c>', "dd.mm.yyyy", datetime, moment(1927, 5, 18)),
        ('<c s="1"><v>1</v></c>', "dd.mm.yyyy", Number, 1),
        ('<c s="1"><v>0</v></c>', "h:mm", time, time(0)),
        ('<c s="1"><v>0.0625</v></c>', "h:mm", time, time(1, 30)),
        ('<c s="1"><v>0.06249999999</v></c>', "h:mm", time, time(1, 30)),
        ('<c s="1"><v>0.99999</v></c>', "h:mm", time, time(23, 59, 59, 136_000)),
        ('<c s="1"><v>0.9999999999</v></c>', "h:mm", datetime, moment(1899, 12, 31)),
        ('<c s="1"><v>0.0625</v></c>', "[h]:mm", timedelta, timedelta(minutes=90)),
        ('<c s="1"><v>1.5</v></c>', "[h]:mm", timedelta, timedelta(hours=36)),
        ('<c s="1"><v>1e9</v></c>', "dd.mm.yyyy", BrokenCell, "1000000000"),
        ('<c s="1"><v>1e400</v></c>', "0", BrokenCell, "1e400"),
        ('<c s="1"><v>ten</v></c>', "0", BrokenCell, "ten"),
        ('<c s="1" t="str"><v>x</v></c>', "0", str, "x"),
        ('<c s="1" t="str"><v>x</v></c>', "@&quot;-y&quot;", ShownText, "x"),
        ('<c s="1" t="s"><v>1</v></c>', "@&quot;-y&quot;", ShownText, "second"),
        ('<c s="1" t="s"><v>0</v></c>', "0", str, "first"),
        ('<c s="1" t="inlineStr"><is><t>a</t></is></c>', "@&quot;-y&quot;", ShownText, "a"),
        ('<c t="inlineStr"><v>a</v></c>', "0", str, "a"),
        ('<c t="inlineStr"><is><r><t>a</t></r><r><rPr/><t>b</t></r><rPh><t>no</t></rPh></is></c>', "0", str, "ab"),
        ('<c t="inlineStr"><is><rPh><r/><t>no</t></rPh><t>a</t></is></c>', "0", str, "a"),
        ('<c t="b"><v>1</v></c>', "0", bool, True),
        ('<c t="b"><v>true</v></c>', "0", bool, True),
        ('<c t="b"><v>0</v></c>', "0", bool, False),
        ('<c t="e"><v>#N/A</v></c>', "0", FormulaError, "#N/A"),
        ('<c t="d"><v>2026-03-25</v></c>', "0", date, date(2026, 3, 25)),
        ('<c t="d"><v>2026-03-25T10:00:00Z</v></c>', "0", datetime, moment(2026, 3, 25, 10)),
        ('<c t="d"><v>10:30:00</v></c>', "0", time, time(10, 30)),
        ('<c t="d"><v>soon</v></c>', "0", BrokenCell, "soon"),
        ("<c><f>A1+1</f></c>", "0", UnsavedFormula, "=A1+1"),
        ("<c><f>A1</f><v>5</v></c>", "0", Number, 5),
        ('<c t="inlineStr"><f>A1</f><is><t>a</t></is></c>', "0", str, "a"),
        ("<c><v></v></c>", "0", str, ""),
    ],
)
def test_what_a_cell_contains(xml: str, code: str, kind: type, value: object) -> None:
    found = cell(xml, code, strings=("<t>first</t>", "<t>second</t>"))
    assert (type(found), found) == (kind, value)


@pytest.mark.parametrize(
    ("book", "xml", "is_unsaved"),
    [
        ('<calcPr fullCalcOnLoad="1"/>', "<c><f>A1</f><v>0</v></c>", True),
        ('<calcPr fullCalcOnLoad="true"/>', "<c><f>A1</f><v>0.0</v></c>", True),
        ('<calcPr fullCalcOnLoad="1"/>', "<c><f>A1</f><v>1</v></c>", False),
        ('<calcPr fullCalcOnLoad="1"/>', "<c><v>0</v></c>", False),
        ('<calcPr fullCalcOnLoad="1"/>', '<c t="str"><f>A1</f><v>0</v></c>', False),
        ('<calcPr fullCalcOnLoad="0"/>', "<c><f>A1</f><v>0</v></c>", False),
        ("<calcPr/>", "<c><f>A1</f><v>0</v></c>", False),
        ("", '<c t="str"><f>A1</f><v></v></c>', False),
        ("", '<c t="b"><f>A1</f><v></v></c>', True),
    ],
)
def test_which_formulas_have_no_saved_value(book: str, xml: str, is_unsaved: bool) -> None:
    assert isinstance(cell(xml, book=book), UnsavedFormula) == is_unsaved


@pytest.mark.parametrize(("flag", "day"), [("1", moment(2030, 3, 26)), ("true", moment(2030, 3, 26)), ("0", moment(2026, 3, 25))])
def test_from_which_day_dates_count(flag: str, day: datetime) -> None:
    assert cell('<c s="1"><v>46106</v></c>', "d", book=f'<workbookPr date1904="{flag}"/>') == day


def test_a_text_is_cut_at_the_limit_of_a_cell() -> None:
    for length in (32_766, 32_767):
        assert cell(f'<c t="str"><v>{"x" * length}</v></c>') == "x" * length
    long = cell(f'<c t="str"><v>{"x" * 400_000}</v></c>')
    assert isinstance(long, str)
    assert 32_767 <= len(long) < 140_000


def test_the_number_of_columns_is_limited() -> None:
    last = workbooks.column_letters(workbooks.MAX_COLUMNS)
    assert styled(f'<row><c r="{last}2"><v>1</v></c></row>', "").cells[2] == {workbooks.MAX_COLUMNS: 1}
    behind = workbooks.column_letters(workbooks.MAX_COLUMNS + 1)
    with pytest.raises(UnreadableFileError, match=f"column {behind} of row 2"):
        styled(f'<row><c r="{behind}2"><v>1</v></c></row>', "")
    assert styled(f'<row><c r="{behind}2"/></row>', "").cells.keys() == {1}


def test_the_number_of_places_up_to_the_last_cell_of_each_row_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row can be one cell in a far column, so a small file can have millions of places."""
    rows = "".join(f'<row><c r="J{number}"><v>1</v></c></row>' for number in range(2, 5))
    monkeypatch.setattr(workbooks, "MAX_PLACES", 35)
    assert styled(rows, "").cells[4] == {10: 1}
    monkeypatch.setattr(workbooks, "MAX_PLACES", 34)
    with pytest.raises(UnreadableFileError, match="is too large for a list"):
        styled(rows, "")


@pytest.mark.parametrize(
    ("lengths", "is_refused"),
    [([255], False), ([256], True), ([255, 255], False), ([255, 255, 1], True), ([200, 200, 111], True)],
)
def test_the_length_of_number_formats_is_limited(lengths: list[int], is_refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading thousands of cells whose format has a million characters takes minutes, although the file is small."""
    monkeypatch.setattr(workbooks, "MAX_FORMATS_CHARACTERS", 510)
    codes = "".join(f'<numFmt numFmtId="{164 + each}" formatCode="{0:0{length}}"/>' for each, length in enumerate(lengths))
    styles = f'<numFmts>{codes}</numFmts><cellXfs><xf numFmtId="164"/></cellXfs>'
    if is_refused:
        with pytest.raises(UnreadableFileError, match="number formats that are too long or too many"):
            styled("<row><c><v>1</v></c></row>", styles)
    else:
        assert styled("<row><c><v>1</v></c></row>", styles).cells[2] == {1: 1}


@pytest.mark.parametrize(("cells", "is_refused"), [(3, False), (4, True)])
@pytest.mark.parametrize("xml", ['<c t="s"><v>0</v></c>', '<c t="inlineStr"><is><t>0123456789</t></is></c>'])
def test_the_text_of_all_cells_together_is_limited(
    xml: str, cells: int, is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of cells can refer to one long text, so the file is small."""
    header = sum(map(len, HEADER))
    monkeypatch.setattr(workbooks, "MAX_TEXT_CHARACTERS", header + 39)
    strings = ("<t>0123456789</t>",)
    if is_refused:
        with pytest.raises(UnreadableFileError, match="has too much text for a list"):
            styled(f"<row>{xml * cells}</row>", "", strings=strings)
    else:
        assert len(styled(f"<row>{xml * cells}</row>", "", strings=strings).cells[2]) == cells


def test_rows_and_cells_without_a_place_follow_the_one_before() -> None:
    rows = '<row r="3"><c r="B3"><v>1</v></c><c><v>2</v></c></row><row><c><v>3</v></c><c r="AB4"><v>4</v></c></row>'
    sheet = styled(rows, "")
    assert {number: dict(row) for number, row in sheet.cells.items() if number > 1} == {3: {2: 1, 3: 2}, 4: {1: 3, 28: 4}}
    assert [(number, cells) for number, cells in sheet.rows() if number == 3] == [(3, ["", 1, 2])]
    assert [number for number, _ in sheet.rows()] == [1, 3, 4]
    backwards = styled('<row r="9"><c><v>1</v></c></row><row r="5"><c><v>2</v></c></row>', "")
    assert [number for number, _ in backwards.rows()] == [1, 5, 9]


@pytest.mark.parametrize(
    ("before", "attributes", "is_hidden"),
    [
        ("", 'hidden="1"', True),
        ("", 'hidden="true"', True),
        ("", 'hidden="0"', False),
        ("", 'customHeight="1" ht="0"', True),
        ("", 'customHeight="1" ht="0.0"', True),
        ("", 'customHeight="1" ht="15"', False),
        ("", 'ht="0"', False),
        ('<sheetFormatPr zeroHeight="1"/>', "", True),
        ('<sheetFormatPr zeroHeight="1"/>', 'ht="15"', False),
        ('<sheetFormatPr zeroHeight="1"/>', 'hidden="0"', False),
        ('<sheetFormatPr zeroHeight="0"/>', "", False),
    ],
)
def test_which_rows_are_hidden(before: str, attributes: str, is_hidden: bool) -> None:
    sheet = styled(f'<row r="4" {attributes}>{TEXT("x")}</row>', "", before=before)
    assert (4 in sheet.hidden_rows) == is_hidden


@pytest.mark.parametrize(
    ("col", "hidden"),
    [
        ('<col min="2" max="3" hidden="1"/>', {2, 3}),
        ('<col min="2" max="2" hidden="true"/>', {2}),
        ('<col min="2" max="2" width="0"/>', {2}),
        ('<col min="2" max="2" width="8"/>', set()),
        ('<col min="2" max="2" hidden="0"/>', set()),
        ('<col min="999" max="16384" hidden="1"/>', {999, 1_000}),
    ],
)
def test_which_columns_are_hidden(col: str, hidden: set[int]) -> None:
    assert styled("", "", before=f"<cols>{col}</cols>").hidden_columns == hidden


def test_the_first_visible_sheet_is_read_and_the_others_are_named() -> None:
    parts = parts_of(raw_workbook(f"<row>{TEXT('m')}</row>"))
    names = (
        ("chart", "c", ""),
        ("first", "h", 'state="hidden"'),
        ("second", "s", ""),
        ("third", "o", 'state="visible"'),
        ("fourth", "v", 'state="veryHidden"'),
    )
    sheets = "".join(f'<sheet name="{name}" r:id="{id_}" {state}/>' for name, id_, state in names)
    parts["xl/workbook.xml"] = f'<workbook xmlns="{MAIN}" xmlns:r="{RELATIONSHIPS}"><sheets>{sheets}</sheets></workbook>'
    others = tuple((id_, "worksheet", "worksheets/none.xml") for id_ in "hov")
    parts["xl/_rels/workbook.xml.rels"] = relations(
        ("s", "worksheet", "worksheets/sheet1.xml"), ("c", "chartsheet", "x.xml"), *others
    )
    sheet = first_sheet(zipped(parts))
    assert (sheet.name, sheet.other_sheets, sheet.hidden_sheets) == ("second", ("third",), ("first", "fourth"))
    assert sheet.cells[2][1] == "m"


# --- Packages -----------------------------------------------------------------------------------------------------------------


def test_the_unpacked_size_of_all_parts_together_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = raw_workbook("<row/>" * 50)
    parts = parts_of(raw)
    size = sum(len(content.encode()) for content in parts.values())
    elements = sum(content.count("<") - content.count("</") for content in parts.values())
    for name, limit in (("MAX_XML_BYTES", size), ("MAX_ELEMENTS", elements)):
        with monkeypatch.context() as patch:
            patch.setattr(packages, name, limit)
            assert first_sheet(raw).name == "S"
            patch.setattr(packages, name, limit - 1)
            with pytest.raises(UnreadableFileError, match="is too large for a list"):
                first_sheet(raw)


def _with_relations(entries: str, others: Mapping[str, str] | None = None) -> bytes:
    parts = parts_of(raw_workbook(f"<row>{TEXT('m')}</row>")) | dict(others or {})
    parts["_rels/.rels"] = f'<Relationships xmlns="{PACKAGE}">{entries}</Relationships>'
    return zipped(parts)


def test_relationships_to_other_places_and_missing_parts_are_ignored() -> None:
    kind = f'Type="{RELATIONSHIPS}/officeDocument"'
    for entries in (
        "",
        f'<Relationship Id="r" {kind} Target="missing.xml"/>',
        f'<Relationship Id="r" {kind} Target="xl/styles.xml" TargetMode="External"/>',
        f'<Relationship Id="r" Type="{RELATIONSHIPS}/other" Target="xl/sharedStrings.xml"/>',
        f'<Relationship Id="r" {kind} Target="\\XL\\workbook.xml"/>',
        f'<Relationship Id="r" {kind} Target="docs/../xl/workbook.xml"/>',
        f'<Else Id="r" {kind} Target="xl/sharedStrings.xml"/>',
    ):
        assert first_sheet(_with_relations(entries)).cells[2][1] == "m"


@pytest.mark.parametrize("target", ["word/document.xml", "ppt/presentation.xml", "WORD/document.xml"])
def test_a_document_of_another_program_is_no_workbook(target: str) -> None:
    raw = _with_relations(f'<Relationship Id="r" Type="{RELATIONSHIPS}/officeDocument" Target="{target}"/>', {target: "<x/>"})
    with pytest.raises(UnreadableFileError, match="not a workbook"):
        first_sheet(raw)


def test_a_missing_sheet_part_is_damage() -> None:
    parts = parts_of(raw_workbook(""))
    del parts["xl/worksheets/sheet1.xml"]
    with pytest.raises(UnreadableFileError, match="damaged or incomplete"):
        first_sheet(zipped(parts))


def test_a_missing_part_with_texts_means_no_texts() -> None:
    parts = parts_of(raw_workbook(f"<row>{TEXT('m')}</row>"))
    del parts["xl/sharedStrings.xml"]
    assert first_sheet(zipped(parts)).cells[2][1] == "m"


def test_elements_may_have_prefixes() -> None:
    sheet = f'<x:worksheet xmlns:x="{MAIN}"><x:sheetData><x:row><x:c><x:v>5</x:v></x:c></x:row></x:sheetData></x:worksheet>'
    parts = parts_of(raw_workbook("")) | {"xl/worksheets/sheet1.xml": sheet}
    assert first_sheet(zipped(parts)).cells == {1: {1: 5}}
