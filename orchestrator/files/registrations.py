"""A table of registrations: one batch, with one item in each row (docs/files.md)."""

from collections.abc import Iterator, Sequence

from orchestrator.files import cells
from orchestrator.files.headers import Column
from orchestrator.files.mistakes import FileMistake
from orchestrator.files.tables import Table, TableRow, no_rows, read_table, repeated

# The names that people give these columns, in English and Norwegian. docs/files.md lists them, and a test compares the two.
COLUMNS: Sequence[Column] = (
    Column(
        "mentor_id",
        cells.identifier,
        ("mentor", "peer mentor", "likeperson", "likeperson id", "likepersonnummer"),
        code="not_an_id",
    ),
    Column("activity_type", cells.identifier, ("activity", "type", "aktivitet", "aktivitetstype"), code="not_an_id"),
    Column("activity_date", cells.calendar_date, ("date", "dato", "aktivitetsdato"), code="not_a_date"),
    Column(
        "duration_minutes",
        cells.minutes,
        ("duration", "minutes", "varighet", "varighet minutter", "minutter"),
        code="not_a_duration",
        is_duration=True,
    ),
    Column(
        "notes",
        cells.notes,
        ("note", "comment", "comments", "notat", "notater", "kommentar", "merknad"),
        is_required=False,
        is_private=True,
    ),
    Column("client_reference", cells.optional_reference, ("reference", "referanse"), is_required=False),
)


def read_registrations(name: str, raw: bytes) -> Table:
    """Reads a table of registrations. Raises BadFileError with all its mistakes, including repeated rows of a mentor."""
    return read_table(name, raw, COLUMNS, _check)


def _check(name: str, records: Sequence[TableRow]) -> Iterator[FileMistake]:
    yield from no_rows(name, records)
    for record, first in repeated(records, ("mentor_id", "activity_type", "activity_date")):
        detail = f"has the same activity type and date as in row {first.row}; remove one of the two rows"
        yield FileMistake(name, detail, record.row, record.line, "mentor_id", record.values["mentor_id"], code="duplicate_mentor")
