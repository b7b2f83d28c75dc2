"""Files whose kind differs from their name: each kind is recognized by its first bytes, and nothing is recognized by accident."""

import pytest

from orchestrator.files.kinds import no_workbook_within, not_a_workbook, not_text
from orchestrator.files.mistakes import BadFileError
from orchestrator.files.submissions import Given, read_submissions

COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
EXCEL_2003 = b'<?mso-application progid="Excel.Sheet"?><Workbook xmlns="urn:schemas-microsoft-com:office:spreadsheet">'

# How such files begin, and a word of the message about them.
BEGINNINGS = [
    (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
    (b"{\\rtf1\\ansi", "a text document (RTF)"),
    (b"\x89PNG\r\n\x1a\n\0\0", "a picture (PNG)"),
    (b"\xff\xd8\xff\xe0\0\x10JFIF", "a picture (JPEG)"),
    (b"GIF87a", "a picture (GIF)"),
    (b"GIF89a", "a picture (GIF)"),
    (b"\x1f\x8b\x08\0", "a compressed file (gzip)"),
    (b"7z\xbc\xaf\x27\x1c\0\x04", "a compressed file (7z)"),
    (b"Rar!\x1a\x07", "a compressed file (RAR)"),
    (b"\xfd7zXZ\0", "a compressed file (xz)"),
    (b"SQLite format 3\0", "a database (SQLite)"),
    (b"\x7fELF\x02\x01", "a program"),
    (b"MZ\x90\0\x03", "a program"),
    *(
        (start + bytes(20), "an old Excel workbook")
        for start in (b"\x09\0\x04\0", b"\x09\x02\x06\0", b"\x09\x04\x06\0", b"\x09\x08")
    ),
    *(
        (prefix + tag + b" x='y'>", "a web page (HTML)")
        for tag in (
            *(b"<!DOCTYPE html", b"<html", b"<HEAD", b"<body", b"<Table", b"<meta", b"<style", b"<script", b"<div"),
            b'<?xml version="1.0"?><html',
            b'<?xml version="1.0"?>\n<!DOCTYPE HTML><HTML',
        )
        for prefix in (b"", b"\xef\xbb\xbf", b"\r\n\t ", b"\xef\xbb\xbf\n")
    ),
    (b'<?xml version="1.0"?>' + EXCEL_2003, "an XML spreadsheet of Excel 2003"),
    (EXCEL_2003.partition(b"?>")[2], "an XML spreadsheet of Excel 2003"),
    (b'<?xml version="1.0"?><list/>', "an XML file"),
    (b"<workbook/>", "an XML file"),
    (b"MIME-Version: 1.0\r\n", "a web archive (MHTML)"),
    (b" mime-version:1.0", "a web archive (MHTML)"),
    (COMPOUND + bytes(9) + "EncryptedPackage".encode("utf-16-le"), "protected by a password; open it"),
    (COMPOUND + bytes(9_000) + "Workbook".encode("utf-16-le") + bytes(2), "an old Excel workbook"),
    (COMPOUND + bytes(9_000) + "Book".encode("utf-16-le") + bytes(2), "an old Excel workbook"),
    (COMPOUND + "WordDocument".encode("utf-16-le"), "a text document (Word)"),
    # These names only contain the name of a workbook.
    (COMPOUND + "Workbook2".encode("utf-16-le") + bytes(2), "in the old format of Excel"),
    (COMPOUND + "Notebook".encode("utf-16-le") + bytes(2), "in the old format of Excel"),
    (COMPOUND, "in the old format of Excel"),
    (b"\xff\xfe\0\0m\0\0\0", "UTF-32"),
    (b"\0\0\xfe\xff\0\0\0m", "UTF-32"),
    (b"\xff\xfem\0", "UTF-16"),
    (b"\xfe\xff\0m", "UTF-16"),
    ("mentor;type;påske".encode("utf-16-le"), "UTF-16"),
    ("mentor;type;påske".encode("utf-16-be"), "UTF-16"),
]


@pytest.mark.parametrize(("raw", "said"), BEGINNINGS, ids=lambda value: repr(value)[:40])
def test_each_kind_is_recognized_in_the_place_of_a_text_and_of_a_workbook(raw: bytes, said: str) -> None:
    for found in (not_text(raw), not_a_workbook(raw)):
        assert found is not None
        assert found.startswith("is ")
        assert said in found


@pytest.mark.parametrize("raw", [b"PK\x03\x04", b"PK\x05\x06" + bytes(18)])
def test_a_zip_file_is_no_text_and_may_be_a_workbook(raw: bytes) -> None:
    assert "ends in .xlsx" in str(not_text(raw))
    assert not_a_workbook(raw) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"mentor,type\n",
        b"\xef\xbb\xbfmentor,type\n",
        b"PK,type\n",
        b"MZ,type\n",
        b"GIF,type\n",
        b"Rar,type\n",
        b"<mentor>,type\n",
        b"mentor,<html>\n",
        b"mentor,a\0b\n",
        b"\t8,mentor\n",
        "kåre".encode("windows-1252"),
        # A few zeros among many letters, or zeros in a short text, do not mean another encoding.
        b"a\0b\0c\0",
        b"mentor,type\n" + bytes(4) + b"m-1,x\n" * 3,
    ],
)
def test_a_file_that_may_be_text_is_left_to_the_text_reader(raw: bytes) -> None:
    assert not_text(raw) is None


@pytest.mark.parametrize(
    ("letters", "is_wide"),
    [
        # Eight of ten letters with a zero are not enough, and neither are three letters.
        ("mmmmmmmm\u0110\u0110", False),
        ("mmmmmmmmm\u0110", True),
        ("mmm", False),
        ("mmmm", True),
    ],
)
def test_text_with_two_bytes_a_letter_is_recognized_without_a_mark(letters: str, is_wide: bool) -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        assert (not_text(letters.encode(encoding)) is not None) == is_wide


def test_zeros_in_both_halves_are_no_wide_text() -> None:
    assert not_text(bytes(100)) is None
    assert not_text((b"m\0" * 4 + b"\0\0") * 10) is None  # Two of ten are in the other half.
    assert "UTF-16" in str(not_text((b"m\0" * 9 + b"\0\0") * 10))


def test_only_the_beginning_decides_the_kind() -> None:
    assert not_text(b"x" * 4_096 + b"<html") is None
    page = b'<?xml version="1.0"?>' + b" " * 5_000 + b"<html>"
    assert "an XML file" in str(not_text(page))


def test_a_file_that_is_no_workbook_and_no_known_kind() -> None:
    assert not_a_workbook(b"") == "is empty"
    assert "is text, not a workbook" in str(not_a_workbook(b"mentor,type"))
    assert str(not_a_workbook(b"mentor\0")).startswith("is not a workbook; ")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["xl/workbook.bin"], ".xlsb"),
        (["xl/Workbook.bin", "content.xml"], ".xlsb"),
        (["word/document.xml", "docProps/app.xml"], "text document (Word)"),
        (["ppt/presentation.xml"], "presentation"),
        (["Index/Document.iwa"], "Numbers or Pages"),
        (["Index.zip", "preview.jpg"], "Numbers or Pages"),
        (["mimetype", "content.xml", "META-INF/manifest.xml"], "OpenDocument"),
        (["META-INF/MANIFEST.MF", "list.csv"], "Java archive"),
        (["photo.jpg"], "without a workbook"),
        (["csv", "list.csv.bak"], "without a workbook"),
        ([], "without a workbook"),
        *(
            ([f"a{ending}", "photo.jpg"], f"contains other files (a{ending})")
            for ending in (".csv", ".tsv", ".TXT", ".xlsx", ".xls", ".xlsm")
        ),
        *(([f"a{ending}"], f"contains other files (a{ending})") for ending in (".xlsb", ".ods", ".json", ".ndjson")),
        (["d.csv", "c.csv", "a.csv", "b.csv"], "contains other files (a.csv, b.csv, c.csv)"),
    ],
)
def test_a_zip_file_is_recognized_by_its_parts(names: list[str], said: str) -> None:
    assert said in no_workbook_within(names)


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("list.pdf", b"%PDF-1.7", "use .csv, .tsv, .xlsx, .json or .ndjson; the file is a PDF document, not a table"),
        ("list.xls", COMPOUND + "Workbook".encode("utf-16-le") + bytes(2), "the file is an old Excel workbook"),
        ("list.txt", b"mentor,type", "use .csv, .tsv, .xlsx, .json or .ndjson"),
        ("list.dat", b"", "use .csv, .tsv, .xlsx, .json or .ndjson"),
        ("list", b"PK\x03\x04", "use .csv, .tsv, .xlsx, .json or .ndjson"),
    ],
)
def test_the_message_about_an_unknown_ending_names_the_kind_if_it_is_recognized(name: str, raw: bytes, said: str) -> None:
    with pytest.raises(BadFileError) as refusal:
        read_submissions(name, raw, Given())
    [mistake] = refusal.value.mistakes
    assert said in mistake.detail
    assert ("the file" in mistake.detail) == ("the file" in said)
