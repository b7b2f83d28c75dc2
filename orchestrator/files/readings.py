"""Reads a table for people to check: the readable values of each row, and every mistake (docs/http.md, Read a file).

It runs as a process of its own, `python -m orchestrator.files.readings KIND MAX_ITEMS`: the file on standard input, the document on standard
output. So a file that takes seconds does not delay other requests, and the process can be killed.
"""

import re
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import orjson

from orchestrator.files import cells
from orchestrator.files.cells import Cell
from orchestrator.files.headers import Column, column_of
from orchestrator.files.mistakes import BadFileError, FileMistake
from orchestrator.files.registrations import COLUMNS
from orchestrator.files.remarks import FileRemark, RemarkCode
from orchestrator.files.tables import TableContent, TableRow, no_rows, read_content, repeated

# The largest workbook that is read takes 60 MB. This is a limit for files that nobody has thought of.
_MAX_MEMORY_BYTES = 1 << 30

# Two words or more, without a digit: `Kari Foss`. Ids usually have no blanks.
_NAME = re.compile(r"[^\W\d_][^\d_]*\s[^\d_]*")


def _optional(parse: Callable[[Cell], Any]) -> Callable[[Cell], Any]:
    return lambda cell: None if cells.is_blank(cell) else parse(cell)


# A list of people need not say what they did: a form asks for that. A cell of a column that is there must not be blank, but for the
# mentor's, because a row may have a name instead of an id.
_MENTOR, *_OTHERS = COLUMNS
_NAMES = Column(
    "mentor_name", _optional(cells.name), ("name", "navn", "mentor navn", "likepersonnavn"), is_required=False, is_enough=True
)
_COLUMNS: Sequence[Column] = (
    replace(_MENTOR, parse=_optional(_MENTOR.parse), is_required=False, is_enough=True),
    _NAMES,
    *(replace(column, is_required=False) for column in _OTHERS),
)


def read_file(kind: str, raw: bytes, *, max_items: int) -> Mapping[str, Any]:
    """The contents of the file: `items`, `mistakes`, `ignored_columns`, `remarks`. An unreadable file has mistakes and no items."""
    try:
        content = read_content(f"file{kind}", raw, _COLUMNS, _check, most_rows=max_items)
    except BadFileError as refusal:
        return _document([], refusal.mistakes)
    if content.found.isdisjoint({_MENTOR.name, _NAMES.name}):
        detail = f"is missing from the header (or {', '.join((*_MENTOR.aliases, *_NAMES.aliases))})"
        mistake = FileMistake("file", detail, column=_MENTOR.name, code="missing_column")
        return _document([], [mistake], content)
    mistakes = [*content.mistakes]
    if content.row_count > max_items:
        detail = f"has {content.row_count:,} rows; the limit is {max_items:,}, so split it"
        mistakes.insert(0, FileMistake("file", detail, value=str(content.row_count), code="too_many_items"))
    return _document([_item(record) for record in content.rows], mistakes, content)


def _document(
    items: Sequence[Mapping[str, Any]], mistakes: Sequence[FileMistake], content: TableContent | None = None
) -> Mapping[str, Any]:
    remarks = () if content is None else content.remarks
    return {
        "items": items,
        "mistakes": [_shown(mistake) for mistake in mistakes],
        "ignored_columns": () if content is None else content.unread,
        # The columns with unknown names have an array of their own.
        "remarks": [_remark(each) for each in remarks if each.code is not RemarkCode.UNKNOWN_COLUMNS],
    }


def _check(name: str, records: Sequence[TableRow]) -> Iterator[FileMistake]:
    yield from no_rows(name, records)
    for record in records:
        # A row whose cells could not be divided, or whose mentor could not be read, already has a mistake.
        is_read = "mentor_id" in record.values or "mentor_name" in record.values
        if is_read and record.values.get("mentor_id") is record.values.get("mentor_name") is None:
            yield FileMistake(name, "is empty", record.row, record.line, "mentor_id", "", code=cells.EMPTY)
    with_ids = [record for record in records if record.values.get("mentor_id") is not None]
    for record, first in repeated(with_ids, ("mentor_id", "activity_type", "activity_date")):
        detail = f"has the same activity type and date as in row {first.row}; remove one of the two rows"
        value = record.values["mentor_id"]
        yield FileMistake(name, detail, record.row, record.line, "mentor_id", value, code="duplicate_mentor")


def _item(record: TableRow) -> dict[str, Any]:
    """The readable values of a row. A name in the mentor's cell becomes `mentor_name`; an id has precedence over a name."""
    values = {name: value for name, value in record.values.items() if value is not None}
    mentor_id = values.get("mentor_id")
    if mentor_id is not None and _NAME.fullmatch(mentor_id):
        del values["mentor_id"]
        values.setdefault("mentor_name", mentor_id)
    elif mentor_id is not None:
        values.pop("mentor_name", None)
    return {"row": record.row, "client_reference": f"row {record.row}"} | values


@cache
def _field(title: str) -> str | None:
    return column_of(title, _COLUMNS)


def _shown(mistake: FileMistake) -> dict[str, Any]:
    return {
        "row": mistake.row if mistake.row is not None else mistake.line,
        "column": mistake.column,
        "field": None if mistake.column is None else _field(mistake.column),
        "code": mistake.code,
        "detail": mistake.detail,
        "value": mistake.value,
    }


def _remark(remark: FileRemark) -> dict[str, Any]:
    return {"code": remark.code, "detail": remark.detail, "rows": remark.rows, "names": remark.names, "count": remark.count}


def main() -> None:
    """Reads standard input, writes standard output."""
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    kind, max_items = sys.argv[1:]
    sys.stdout.buffer.write(orjson.dumps(read_file(kind, sys.stdin.buffer.read(), max_items=int(max_items))))


if __name__ == "__main__":
    main()
