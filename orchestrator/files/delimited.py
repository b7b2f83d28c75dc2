"""Text with delimiters (CSV, TSV) as rows of cells: which encoding, which delimiter (specification, 9)."""

import csv
import io
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator, Sequence

DELIMITERS = (",", ";", "\t")
_NOTHING = " ,;\t"


class UnreadableFileError(ValueError):
    """The bytes are not what the file's name says; the message says why. `line` is where that shows, if it is known."""

    def __init__(self, detail: str, line: int | None = None) -> None:
        super().__init__(detail)
        self.line = line


def decode(raw: bytes) -> str:
    """The text of a file: UTF-8 with or without a byte order mark, else Windows-1252. Raises UnreadableFileError."""
    if raw.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise UnreadableFileError("is UTF-16 text; save it as CSV UTF-8")
    encodings = ["utf-8", "windows-1252"]
    if raw.startswith(BOM_UTF8):
        raw = raw.removeprefix(BOM_UTF8)
        encodings.remove("windows-1252")
    for encoding in encodings:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
    raise UnreadableFileError(f"is not {' nor '.join(encodings)} text", line)


def rows_of(text: str, recognised: Callable[[Sequence[str]], int]) -> Iterator[tuple[int, list[str]]]:
    """The rows of the text, each with the line on which it begins. Raises UnreadableFileError where the quotes don't match.

    `recognised` counts the known headers in a row: the delimiter is the one under which the first row that is not blank has
    most of them.
    """
    first = next((line for line in text.splitlines() if line.strip(_NOTHING)), None)
    if first is None:
        return
    try:
        delimiter = max(DELIMITERS, key=lambda each: recognised(next(csv.reader([first], delimiter=each))))
    except csv.Error as error:
        raise UnreadableFileError(f"can't be divided into cells ({error})", text[: text.index(first)].count("\n") + 1) from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UnreadableFileError(
                f"can't be divided into cells from here on ({error}); look for a quote too many", line
            ) from error
        yield line, row
