"""A file of corrections for failed items: a table with `item_id` and the columns to change, or JSON (specification, 5, retry)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any
from uuid import UUID

from orchestrator.files import cells, formulas
from orchestrator.files.cells import BadCellError, Cell
from orchestrator.files.delimited import UnreadableFileError
from orchestrator.files.documents import one_document
from orchestrator.files.problems import BadFileError, FileProblem
from orchestrator.files.registrations import COLUMNS
from orchestrator.files.submissions import TABLES
from orchestrator.files.tables import Column, Record, no_rows, read_table, repeated
from schemas.api import RefusedRequestError, read_retry
from schemas.ids import MAX_POSITIONS

_YES = frozenset({"yes", "true", "ja", "1", "x"})
_NO = frozenset({"no", "false", "nei", "0"})


def _flag(cell: Cell) -> bool:
    word = cells.text(cell).casefold()
    if word not in _YES | _NO:
        raise BadCellError("is neither yes nor no")
    return word in _YES


def _item_id(cell: Cell) -> str:
    try:
        return str(UUID(cells.identifier(cell)))
    except BadCellError:
        raise
    except ValueError:
        raise BadCellError("is not the id of an item") from None


def _unchanged_if_blank(parse: Callable[[Cell], Any]) -> Callable[[Cell], Any]:
    return lambda cell: None if cells.is_blank(cell) else parse(formulas.original(cell))


def _correcting(column: Column) -> Column:
    """The column as a file of corrections has it. Notes are kept to the last blank: what nobody has edited must not change."""
    parse = cells.verbatim_notes if column.name == "notes" else column.parse
    return replace(column, parse=_unchanged_if_blank(parse), is_required=False)


_COLUMNS: Sequence[Column] = (
    Column("item_id", _item_id, ("item",)),
    *(_correcting(column) for column in COLUMNS if column.name != "client_reference"),
    Column("override_duplicates", _unchanged_if_blank(_flag), ("override",), is_required=False),
)


def read_corrections(name: str, raw: bytes) -> tuple[list[dict[str, Any]], Sequence[str]]:
    """The corrections in a file, as the body of a retry has them, and what was left unread. A blank cell leaves its value as it is.

    Raises BadFileError with all its mistakes.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix in TABLES:
        table = read_table(name, raw, _COLUMNS, _check)
        return [_correction(dict(record.values)) for record in table.records], table.remarks
    if suffix == ".json":
        return _from_json(name, raw), ()
    raise BadFileError([FileProblem(name, f"has an unknown ending; known are {', '.join(TABLES)} and .json")])


def _check(name: str, records: Sequence[Record]) -> Iterator[FileProblem]:
    yield from no_rows(name, records)
    for record, first in repeated(records, ["item_id"]):
        detail = f"is corrected in row {first.row} already"
        yield FileProblem(name, detail, record.row, record.line, "item_id", record.values["item_id"])


def _correction(values: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in values.items() if value is not None}
    if "activity_date" in given:
        given["activity_date"] = given["activity_date"].isoformat()
    return given


def _from_json(name: str, raw: bytes) -> list[dict[str, Any]]:
    try:
        document = one_document(raw)
    except UnreadableFileError as error:
        raise BadFileError([FileProblem(name, str(error))]) from error
    corrections = document.get("corrections") if isinstance(document, dict) else document
    if not isinstance(corrections, list):
        raise BadFileError([FileProblem(name, "is neither a list of corrections nor an object that has one as `corrections`")])
    try:
        # How many there may be is a setting of the server.
        read_retry({"corrections": corrections}, max_items=MAX_POSITIONS)
    except RefusedRequestError as refusal:
        ours = "" if isinstance(document, dict) else "/corrections"
        problems = [FileProblem(name, each.detail, pointer=each.pointer.removeprefix(ours)) for each in refusal.mistakes]
        raise BadFileError(problems) from refusal
    return corrections
