"""Reads JSON files with one document, or with one on each line."""

from collections.abc import Iterator
from typing import Any

from orchestrator.files.delimited import UnreadableFileError
from schemas.strict_json import MAX_JSON_DEPTH, BadJsonError, loads


def one_document(raw: bytes) -> Any:
    """The document in a file, with or without a byte order mark. Raises UnreadableFileError."""
    return _document(_text(raw), None)


def documents_by_line(raw: bytes) -> Iterator[tuple[int, Any | UnreadableFileError]]:
    """The document on each line that is not blank, with the line's number. An invalid document is returned as its error."""
    for line, text in enumerate(_text(raw).split(b"\n"), start=1):
        if text.strip():
            try:
                yield line, _document(text, line)
            except UnreadableFileError as error:
                yield line, error


def _text(raw: bytes) -> bytes:
    return raw.removeprefix(b"\xef\xbb\xbf")


def _document(text: bytes, line: int | None) -> Any:
    try:
        return loads(text, max_depth=MAX_JSON_DEPTH)
    except BadJsonError as error:
        raise UnreadableFileError(f"is not acceptable JSON: {error}", line) from error
