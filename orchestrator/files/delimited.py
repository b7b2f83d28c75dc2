"""Reads delimited text (CSV, TSV) as rows of cells. Detects the encoding and the delimiter (docs/files.md)."""

import csv
import io
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from orchestrator.files import kinds
from orchestrator.files.encodings import UTF8_LETTER

DELIMITERS = (",", ";", "\t")
MOST_ROWS_ABOVE = 5
"""The most rows, such as a title, that may stand above the header. Each has one or two cells that are not blank."""

_NOTHING = " ,;\t\r\n"

# The first line in which Excel names the delimiter. It is not a row.
_DECLARATION = re.compile(r'"?sep=(?P<delimiter>\\t|[^\w"\r\n])"?(?P=delimiter)*(?:\r\n|\r|\n|$)', re.IGNORECASE)


class UnreadableFileError(ValueError):
    """The bytes are not a file of the kind that the name says. The message says why. `line` is where the error is, if known."""

    def __init__(self, detail: str, line: int | None = None) -> None:
        super().__init__(detail)
        self.line = line


UTF_8, WINDOWS_1252 = "utf-8", "windows-1252"


def decode(raw: bytes) -> tuple[str, str]:
    """The text of a file and its encoding: UTF-8 with or without a byte order mark, else Windows-1252. Raises UnreadableFileError.

    A file that has letters in both encodings is refused. If it were read as Windows-1252, the ids in UTF-8 would be others.
    """
    refusal = kinds.not_text(raw)
    if refusal is not None:
        raise UnreadableFileError(refusal)
    encodings = [UTF_8, WINDOWS_1252]
    if raw.startswith(BOM_UTF8):
        raw = raw.removeprefix(BOM_UTF8)
        encodings.remove(WINDOWS_1252)
    for encoding in encodings:
        try:
            return raw.decode(encoding), encoding
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
        if encoding == UTF_8 and UTF8_LETTER.search(raw):
            detail = "mixes UTF-8 and Windows-1252 text, or is cut off here; correct this line and save the file as CSV UTF-8"
            raise UnreadableFileError(detail, line)
    raise UnreadableFileError(f"is not {' nor '.join(encodings)} text; save it as CSV UTF-8", line)


def rows_of(text: str, recognized: Callable[[Sequence[str]], int]) -> tuple[str, Iterator[tuple[int, int, list[str]]]]:
    """The delimiter, and the rows of the text: each with its number and the line on which it begins. Raises UnreadableFileError if the quotes
    don't match.

    The delimiter is the one that a first line like `sep=;` names. Otherwise it is the one that gives the first row that is not blank the most
    known headers, which `recognized` counts; if it has none, the next rows decide.
    """
    declared = _DECLARATION.match(text)
    if declared is not None:
        delimiter, lines_before = declared["delimiter"].replace("\\t", "\t"), 1
        text = text[declared.end() :]
    else:
        delimiter, lines_before = "", 0
    if not text.strip(_NOTHING):
        return delimiter, iter(())
    delimiter = delimiter or _likely_delimiter(text, recognized)
    return delimiter, _rows(text, delimiter, lines_before)


def _rows(text: str, delimiter: str, lines_before: int) -> Iterator[tuple[int, int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 0
    while True:
        line = lines_before + reader.line_num + 1
        number += 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UnreadableFileError(
                f"can't be divided into cells from here on ({error}); look for an extra quote", line
            ) from error
        yield number, line, row


def _likely_delimiter(text: str, recognized: Callable[[Sequence[str]], int]) -> str:
    """The delimiter with the most known headers in the first row that is not blank, or, if it has none, in one of the rows after it."""
    best, most = "", -1
    trouble: csv.Error | None = None
    for number_of_rows in (1, 1 + MOST_ROWS_ABOVE):
        for delimiter in DELIMITERS:
            try:
                number = max(map(recognized, islice(_filled_rows(text, delimiter), number_of_rows)), default=0)
            except csv.Error as error:
                trouble = error
                continue
            if number > most:
                best, most = delimiter, number
        if most != 0:
            break
    if not best:
        line = text[: len(text) - len(text.lstrip(_NOTHING))].count("\n") + 1
        raise UnreadableFileError(f"can't be divided into cells ({trouble})", line) from trouble
    return best


def _filled_rows(text: str, delimiter: str) -> Iterator[list[str]]:
    # A header can span lines.
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    return (row for row in rows if any(cell.strip() for cell in row))
