"""Files that are no workbooks are called what they are; unusual and damaged packages."""

import io
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.files import packages
from orchestrator.files.mistakes import BadFileError
from orchestrator.files.registrations import read_registrations
from tests.support.read_tables import mistakes, values
from tests.support.workbooks import DAY, TEXT, formatted, raw_workbook, row, zipped

STRICT = "http://purl.oclc.org/ooxml/spreadsheetml/main"
STRICT_RELATIONSHIPS = "http://purl.oclc.org/ooxml/officeDocument/relationships"


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
