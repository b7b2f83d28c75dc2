"""Reads a file as submissions to send: one from a table or `.json`, one from each line of `.ndjson` (docs/files.md)."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import orjson

from orchestrator.files import kinds
from orchestrator.files.delimited import UnreadableFileError
from orchestrator.files.documents import documents_by_line, one_document
from orchestrator.files.mistakes import BadFileError, FileMistake
from orchestrator.files.registrations import read_registrations
from schemas.api.reading import RefusedRequestError
from schemas.api.submissions import read_submission
from schemas.fields import canonical_id
from schemas.ids import MAX_POSITIONS

TABLES = (".csv", ".tsv", ".xlsx")
STANDARD_INPUT = "-"

MOST_FILE_MISTAKES = 100_000
"""The most mistakes that are listed for a JSON file. The cells of the largest table can't have as many, but a document of 6 MB could have half
a million."""

_ZIP_SIGNATURE = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class Given:
    """The options of the command line. Ids are used if the file has none; the label replaces the file's."""

    organization_id: str | None = None
    coordinator_id: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class FileSubmission:
    """One submission, as the body of a request. `line` is its line in the file; `rows` are the rows of a table's items."""

    line: int
    body: Mapping[str, Any]
    rows: Sequence[int] = ()

    @property
    def derived_key(self) -> str:
        """An Idempotency-Key that is the same for the same content on the same line, and different for any other."""
        content = orjson.dumps([self.line, self.body], option=orjson.OPT_SORT_KEYS)
        return f"file-{hashlib.sha256(content).hexdigest()[:40]}"


@dataclass(frozen=True, slots=True)
class SubmissionFile:
    """The submissions of a file. `remarks` say what was not read."""

    submissions: Sequence[FileSubmission]
    remarks: Sequence[str] = field(default=())


def read_submissions(name: str, raw: bytes, given: Given) -> SubmissionFile:
    """Reads a file. The ending of its name decides how, and for `-` its content.

    Raises BadFileError with all its mistakes; for JSON with the first `MOST_FILE_MISTAKES`.
    """
    if name == STANDARD_INPUT:
        name = f"standard input{_guessed_suffix(raw)}"
    suffix = PurePath(name).suffix.lower()
    if suffix in TABLES:
        return _from_table(name, raw, given)
    if suffix == ".json":
        return SubmissionFile(_checked(name, [_only_document(name, raw)], given))
    if suffix == ".ndjson":
        return SubmissionFile(_checked(name, documents_by_line(raw), given))
    raise BadFileError([FileMistake(name, unknown_ending(raw, (*TABLES, ".json", ".ndjson")))])


def unknown_ending(raw: bytes, known: Sequence[str]) -> str:
    """The message for a file whose name has another ending. It says what the file is, if that is recognizable."""
    content = kinds.not_a_workbook(raw) if raw and kinds.not_text(raw) else None
    is_one = f"; the file {content}" if content else ""
    return f"has an unknown ending; use {', '.join(known[:-1])} or {known[-1]}{is_one}"


def _guessed_suffix(raw: bytes) -> str:
    if raw.startswith(_ZIP_SIGNATURE):
        return ".xlsx"
    if not raw.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return ".csv"
    # A single document may span many lines; several documents have one line each.
    _, first = next(iter(documents_by_line(raw)))
    return ".json" if isinstance(first, UnreadableFileError) else ".ndjson"


def _from_table(name: str, raw: bytes, given: Given) -> SubmissionFile:
    table = read_registrations(name, raw)
    items = []
    for record in table.rows:
        item = {column: value for column, value in record.values.items() if value is not None}
        items.append({"client_reference": f"row {record.row}"} | item | {"activity_date": item["activity_date"].isoformat()})
    body = {name: value for name, value in _fields(given).items() if value is not None} | {"items": items}
    return SubmissionFile([FileSubmission(1, body, [record.row for record in table.rows])], table.remarks)


def _only_document(name: str, raw: bytes) -> tuple[int, Any]:
    try:
        return 1, one_document(raw)
    except UnreadableFileError as error:
        raise BadFileError([FileMistake(name, str(error))]) from error


def _checked(
    name: str, documents: Iterator[tuple[int, Any]] | Sequence[tuple[int, Any]], given: Given
) -> Sequence[FileSubmission]:
    mistakes: list[FileMistake] = []
    submissions = []
    for line, document in documents:
        if len(mistakes) > MOST_FILE_MISTAKES:
            break  # the last mistake says that there are more
        if isinstance(document, UnreadableFileError):
            mistakes.append(FileMistake(name, str(document), line=line))
            continue
        body = _filled_in(document, given)
        try:
            # The server limits the number of items.
            read_submission(body, max_items=MAX_POSITIONS, most_mistakes=max(1, MOST_FILE_MISTAKES - len(mistakes)))
        except RefusedRequestError as refusal:
            mistakes += (FileMistake(name, mistake.detail, line=line, pointer=mistake.pointer) for mistake in refusal.mistakes)
        mistakes += _contradictions(name, line, body, given)
        submissions.append(FileSubmission(line, body))
    if mistakes:
        raise BadFileError(mistakes)
    if not submissions:
        raise BadFileError([FileMistake(name, "is empty")])
    return submissions


def _fields(given: Given) -> dict[str, str | None]:
    return {"organization_id": given.organization_id, "coordinator_id": given.coordinator_id, "label": given.label}


def _filled_in(document: Any, given: Given) -> Any:
    if not isinstance(document, dict):
        return document
    missing = {name: value for name, value in _fields(given).items() if value is not None and document.get(name) is None}
    label = {} if given.label is None else {"label": given.label}
    return document | missing | label


def _contradictions(name: str, line: int, body: Any, given: Given) -> Iterator[FileMistake]:
    for option, field_name, value in (
        ("--org", "organization_id", given.organization_id),
        ("--coordinator", "coordinator_id", given.coordinator_id),
    ):
        if value is not None and isinstance(body, dict) and canonical_id(body.get(field_name)) != canonical_id(value):
            yield FileMistake(name, f"differs from {option} {value}", line=line, pointer=f"/{field_name}")
