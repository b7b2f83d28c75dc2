"""Workbooks, made by a library or from their XML."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from openpyxl import Workbook

HEADER = ["mentor_id", "activity_type", "activity_date", "duration_minutes", "notes"]
DAY = datetime(2026, 3, 25)  # noqa: DTZ001 - as a workbook has it

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONSHIPS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


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


def moment(*parts: int) -> datetime:
    return datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001 - as a workbook has it
