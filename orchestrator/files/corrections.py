"""A file of corrections for failed items: a table with `item_id` and the columns to change, or JSON (docs/files.md).

A table's values are compared with the items' present ones. A spreadsheet program rewrites values that nobody has edited, so only a value that
means something else is a correction (`forms`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import PurePath
from typing import Any
from uuid import UUID

from orchestrator.files import cells, forms, formulas
from orchestrator.files.cells import BadCellError, Cell
from orchestrator.files.delimited import UnreadableFileError
from orchestrator.files.documents import one_document
from orchestrator.files.headers import Column
from orchestrator.files.mistakes import BadFileError, FileMistake, excerpt
from orchestrator.files.registrations import COLUMNS
from orchestrator.files.submissions import TABLES, unknown_ending
from orchestrator.files.tables import TableRow, no_rows, read_table, repeated
from schemas.api.reading import RefusedRequestError
from schemas.api.retries import read_retry
from schemas.fields import canonical_id
from schemas.ids import MAX_POSITIONS
from schemas.statuses import ItemStatus

_YES = frozenset({"yes", "true", "ja", "1", "x", "sann", "wahr", "vrai"})
_NO = frozenset({"no", "false", "nei", "0", "usann", "falsch", "faux"})

_NAMES = ("mentor_id", "activity_type")
_DATE_ORDERS = ("dmy", "mdy", "ymd")

Item = Mapping[str, Any]
"""An item as in the results; with its `notes` if the file has notes."""


@dataclass(frozen=True, slots=True)
class NameChange:
    """A correction of a mentor or an activity type, which a person should check. `place` is its place in the file."""

    place: str
    field: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.place}: {self.field} {self.old} → {self.new}"


@dataclass(frozen=True, slots=True)
class Corrections:
    """The corrections of a file, as in the body of a retry. `changes` are those of mentors and activity types."""

    corrections: Sequence[dict[str, Any]]
    changes: Sequence[NameChange] = ()
    remarks: Sequence[str] = ()

    @property
    def moves_to_another_mentor(self) -> bool:
        """Whether an item would be registered for another mentor."""
        return any(change.field == "mentor_id" for change in self.changes)


@dataclass(frozen=True, slots=True)
class CorrectionFile:
    """A file of corrections as it was read. Its corrections depend on the items."""

    name: str
    remarks: Sequence[str]
    has_notes: bool
    _records: Sequence[TableRow] = ()
    _documents: Sequence[dict[str, Any]] = field(default=())

    def against(self, items: Iterable[Item]) -> Corrections:
        """The file's corrections of these items. Raises BadFileError with all its mistakes."""
        known = {item["item_id"]: item for item in items}
        if self._documents:
            return Corrections(self._documents, [*self._document_changes(known)], self.remarks)
        return _Comparison(self.name, self.remarks, known, _order_of_slashes(self._records, known)).of(self._records)

    def _document_changes(self, known: Mapping[str, Item]) -> Iterator[NameChange]:
        for position, correction in enumerate(self._documents):
            item = known.get(str(UUID(correction["item_id"])))
            for name in _NAMES:
                if item is not None and name in correction and canonical_id(correction[name]) != item[name]:
                    yield NameChange(f"/{position}", name, item[name], canonical_id(correction[name]))


def read_corrections(name: str, raw: bytes) -> CorrectionFile:
    """Reads a file of corrections. Raises BadFileError with all mistakes that can be found without the items."""
    suffix = PurePath(name).suffix.lower()
    if suffix in TABLES:
        table = read_table(name, raw, _READ, _check)
        has_notes = any(not cells.is_blank(record.values.get("notes", "")) for record in table.rows)
        return CorrectionFile(name, table.remarks, has_notes, table.rows)
    if suffix == ".json":
        return CorrectionFile(name, (), has_notes=False, _documents=_from_json(name, raw))
    raise BadFileError([FileMistake(name, unknown_ending(raw, (*TABLES, ".json")))])


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


def _as_it_is(cell: Cell) -> Cell:
    return cell


# Notes keep surrounding blanks, so that unedited notes don't change.
_PARSERS: Mapping[str, Callable[[Cell], Any]] = {
    **{column.name: column.parse for column in COLUMNS if column.name != "client_reference"},
    "notes": cells.verbatim_notes,
}

# Cells are parsed only if they differ from the item's values.
_READ: Sequence[Column] = (
    Column("item_id", _item_id, ("item",)),
    *(
        replace(column, parse=_as_it_is, is_required=False, is_compared=True)
        for column in COLUMNS
        if column.name != "client_reference"
    ),
    Column("attempt", _as_it_is, is_required=False),
    Column("override_duplicates", lambda cell: None if cells.is_blank(cell) else _flag(cell), ("override",), is_required=False),
)


def _check(name: str, records: Sequence[TableRow]) -> Iterator[FileMistake]:
    yield from no_rows(name, records)
    for record, first in repeated(records, ["item_id"]):
        detail = f"is already corrected in row {first.row}"
        yield FileMistake(name, detail, record.row, record.line, "item_id", record.values["item_id"])


def _order_of_slashes(records: Sequence[TableRow], known: Mapping[str, Item]) -> str:
    """The order of day, month and year in the file's dates with slashes: the one in which most of them equal the items' dates."""
    matches: Counter[str] = Counter()
    for record in records:
        item = known.get(record.values["item_id"])
        text = forms.has_slashes(record.values.get("activity_date", ""))
        if item is not None and text is not None:
            day = date.fromisoformat(item["activity_date"])
            matches.update(order for order in _DATE_ORDERS if day in forms.slashed_dates(text, order))
    return matches.most_common(1)[0][0] if matches else _DATE_ORDERS[0]


class _Comparison:
    """Compares the rows of a table with the items."""

    def __init__(self, name: str, remarks: Sequence[str], known: Mapping[str, Item], slashes: str) -> None:
        self._name = name
        self._known = known
        self._slashes = slashes
        self._mistakes: list[FileMistake] = []
        self._changes: list[NameChange] = []
        self._kept: list[str] = []
        self._kept_notes: list[str] = []
        self._remarks = list(remarks)

    def of(self, records: Sequence[TableRow]) -> Corrections:
        """The corrections in these rows. Raises BadFileError."""
        selected: list[tuple[Item, dict[str, Any]]] = []
        for record in records:
            item = self._known.get(record.values["item_id"])
            if item is None:
                detail = "is not an item of this batch"
                self._mistakes.append(
                    FileMistake(self._name, detail, record.row, record.line, "item_id", record.values["item_id"])
                )
                continue
            selected.append((item, self._correction(record, item)))
        if self._mistakes:
            raise BadFileError(self._mistakes)
        wanted = [correction for item, correction in selected if item["status"] != ItemStatus.SUCCESS or len(correction) > 1]
        if 0 < len(wanted) < len(selected):
            self._remarks.append(
                f"{self._name}: skipped {len(selected) - len(wanted)} unchanged rows of items that have succeeded"
            )
        # Ids first: a wrong one registers somebody else.
        if kept := [*self._kept, *self._kept_notes]:
            self._remarks.append(
                f"{self._name}: ignored values that a spreadsheet program seems to have changed (use a .json file to correct them):"
                f" {'; '.join(kept[:_MOST_NAMED])}{'; …' if len(kept) > _MOST_NAMED else ''}"
            )
        return Corrections(wanted or [correction for _, correction in selected], self._changes, self._remarks)

    def _correction(self, record: TableRow, item: Item) -> dict[str, Any]:
        correction: dict[str, Any] = {"item_id": record.values["item_id"]}
        for name, parse in _PARSERS.items():
            cell = record.values.get(name, "")
            if cells.is_blank(cell) or self._is_unedited(record, item, name, cell):
                continue
            try:
                value = parse(formulas.original(cell))
            except BadCellError as error:
                seen = None if name == "notes" else excerpt(cells.shown(cell))
                self._mistakes.append(FileMistake(self._name, str(error), record.row, record.line, name, seen))
                continue
            written = value.isoformat() if isinstance(value, date) else value
            if written == item.get(name):
                continue
            if name in _NAMES:
                self._changes.append(NameChange(f"row {record.row}", name, item[name], value))
            correction[name] = written
        if record.values.get("override_duplicates") is not None:
            correction["override_duplicates"] = record.values["override_duplicates"]
        if len(correction) > 1:
            self._check_attempt(record, item)
        return correction

    def _check_attempt(self, record: TableRow, item: Item) -> None:
        """A row from before another attempt is a mistake: its values may come from earlier corrections, which it would undo."""
        cell = record.values.get("attempt", "")
        present = item.get("attempt", 0)
        if cells.is_blank(cell):
            return
        numbers = forms.whole_numbers(cell)
        if not numbers:
            detail = "is not a whole number; export the results again"
            seen = excerpt(cells.shown(cell))
            self._mistakes.append(FileMistake(self._name, detail, record.row, record.line, "attempt", seen))
        elif present not in numbers and min(numbers) < present:
            detail = f"was exported at attempt {min(numbers)} and has been retried since; export the results again"
            self._mistakes.append(FileMistake(self._name, detail, record.row, record.line, "item_id", item["item_id"]))

    def _is_unedited(self, record: TableRow, item: Item, name: str, cell: Cell) -> bool:
        exported = item.get(name)
        if name == "activity_date":
            return forms.is_same_date(cell, date.fromisoformat(item[name]), self._slashes)
        if name == "duration_minutes":
            return forms.is_same_duration(cell, item[name])
        if exported is None or not forms.is_same_text(cell, exported):
            return False
        if name in _NAMES and formulas.original(cells.shown(cell)) != exported:
            self._kept.append(f"row {record.row}, {name} {excerpt(cells.shown(cell))} for {exported}")
        elif name == "notes" and not forms.is_spelled_alike(cell, exported):
            self._kept_notes.append(f"row {record.row}, notes")
        return True


_MOST_NAMED = 10


def _from_json(name: str, raw: bytes) -> list[dict[str, Any]]:
    try:
        document = one_document(raw)
    except UnreadableFileError as error:
        raise BadFileError([FileMistake(name, str(error))]) from error
    corrections = document.get("corrections") if isinstance(document, dict) else document
    if not isinstance(corrections, list):
        raise BadFileError([FileMistake(name, "must be a list of corrections, or an object with such a list as `corrections`")])
    try:
        # The server limits the number of corrections.
        read_retry({"corrections": corrections}, max_items=MAX_POSITIONS, most_mistakes=None)
    except RefusedRequestError as refusal:
        ours = "" if isinstance(document, dict) else "/corrections"
        mistakes = [FileMistake(name, each.detail, pointer=each.pointer.removeprefix(ours)) for each in refusal.mistakes]
        raise BadFileError(mistakes) from refusal
    return corrections
