"""Recognizes files that are not what their names say, from their first bytes, and says what to do about it."""

from collections.abc import Sequence

AS_WORKBOOK = "open it in a spreadsheet program and save it as a workbook (.xlsx)"

_COMPOUND_FILE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_OLD_EXCEL = (b"\x09\x00\x04\x00", b"\x09\x02\x06\x00", b"\x09\x04\x06\x00", b"\x09\x08")
_WEB_PAGE = (b"<!doctype html", b"<html", b"<head", b"<body", b"<table", b"<meta", b"<style", b"<script", b"<div")

# Files that begin like this are not tables.
_OTHERS: Sequence[tuple[bytes, str]] = (
    (b"%PDF", "a PDF document"),
    (b"{\\rtf", "a text document (RTF)"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"GIF8", "a picture (GIF)"),
    (b"\x1f\x8b", "a compressed file (gzip)"),
    (b"7z\xbc\xaf\x27\x1c", "a compressed file (7z)"),
    (b"Rar!", "a compressed file (RAR)"),
    (b"\xfd7zXZ", "a compressed file (xz)"),
    (b"SQLite format 3", "a database (SQLite)"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90", "a program"),
)

# Parts by which a zip file is recognized as a document, in lower case.
_PACKAGES: Sequence[tuple[str, str]] = (
    ("xl/workbook.bin", f"is a binary Excel workbook (.xlsb); {AS_WORKBOOK}"),
    ("word/document.xml", "is a text document (Word), not a workbook; copy its table into a spreadsheet program"),
    ("ppt/presentation.xml", "is a presentation, not a workbook"),
    ("index/document.iwa", "is a Numbers or Pages document; export it as Excel (.xlsx) or CSV"),
    ("index.zip", "is a Numbers or Pages document; export it as Excel (.xlsx) or CSV"),
    ("content.xml", f"is an OpenDocument file (.ods); {AS_WORKBOOK}"),
    ("meta-inf/manifest.mf", "is a Java archive, not a workbook"),
)
_TABLE_ENDINGS = (".csv", ".tsv", ".txt", ".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".json", ".ndjson")

# The number of bytes at the beginning by which the kind is recognized.
_HEAD_BYTES = 4_096


def not_text(raw: bytes) -> str | None:
    """What these bytes are if they are not a text with a table, in words that complete "the file …"; None if they may be one."""
    head = raw[:_HEAD_BYTES]
    if head.startswith(_ZIP):
        return "is a workbook or another zip file, not text; rename it so that it ends in .xlsx, or save it as CSV UTF-8"
    return _other_kind(raw, head) or _wide_text(head)


def not_a_workbook(raw: bytes) -> str | None:
    """What these bytes are if they are not a zip file, as every workbook (.xlsx) is; None for a zip file."""
    head = raw[:_HEAD_BYTES]
    if not raw:
        return "is empty"
    if head.startswith(_ZIP):
        return None
    found = _other_kind(raw, head) or _wide_text(head)
    if found is not None:
        return found
    if b"\0" not in head:
        return "is text, not a workbook; if it is a table, rename it so that it ends in .csv"
    return f"is not a workbook; {AS_WORKBOOK}"


def no_workbook_within(names: Sequence[str]) -> str:
    """What a zip file without a workbook is, from the names of its parts."""
    known = {name.lower() for name in names}
    for name, words in _PACKAGES:
        if name in known:
            return words
    tables = [name for name in names if name.lower().endswith(_TABLE_ENDINGS)]
    if tables:
        return f"is a zip file that contains other files ({', '.join(sorted(tables)[:3])}); unpack it first"
    return f"is a zip file without a workbook; {AS_WORKBOOK}"


def _other_kind(raw: bytes, head: bytes) -> str | None:
    if head.startswith(_COMPOUND_FILE):
        return _compound_file(raw)
    if head.startswith(_OLD_EXCEL):
        return f"is an old Excel workbook (.xls); {AS_WORKBOOK}"
    for signature, kind in _OTHERS:
        if head.startswith(signature):
            return f"is {kind}, not a table"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(_WEB_PAGE):
        return f"is a web page (HTML), which some programs save as a spreadsheet; {AS_WORKBOOK}"
    if start.startswith((b"<?xml", b"<workbook")):
        if b"urn:schemas-microsoft-com:office:spreadsheet" in head:
            return f"is an XML spreadsheet of Excel 2003; {AS_WORKBOOK}"
        if b"<html" in head.lower():
            return f"is a web page (HTML), which some programs save as a spreadsheet; {AS_WORKBOOK}"
        return f"is an XML file, not a table; {AS_WORKBOOK}"
    if start.startswith(b"mime-version:"):
        return f"is a web archive (MHTML), which some programs save as a spreadsheet; {AS_WORKBOOK}"
    return None


def _compound_file(raw: bytes) -> str:
    """What a file in the container of old Office documents and protected new ones is. Its parts have names in UTF-16."""
    if "EncryptedPackage".encode("utf-16-le") in raw:
        return "is protected by a password; open it, remove the password, and save it again"
    if any(name.encode("utf-16-le") + b"\0\0" in raw for name in ("Workbook", "Book")):
        return f"is an old Excel workbook (.xls); {AS_WORKBOOK}"
    if "WordDocument".encode("utf-16-le") in raw:
        return "is a text document (Word), not a workbook; copy its table into a spreadsheet program"
    return f"is protected by a password, or in the old format of Excel (.xls); without the password, {AS_WORKBOOK}"


def _wide_text(head: bytes) -> str | None:
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "is UTF-32 text; save it as CSV UTF-8"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "is UTF-16 text; save it as CSV UTF-8"
    # Without a byte order mark, UTF-16 is recognized by its zeros: every other byte of plain letters is zero.
    for offset in (0, 1):
        half, other = head[offset::2], head[1 - offset :: 2]
        if len(half) > 3 and half.count(0) * 10 > len(half) * 8 and other.count(0) * 10 < len(other) * 2:
            return "is UTF-16 text; save it as CSV UTF-8"
    return None
