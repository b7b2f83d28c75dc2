"""Closes the periods that `organizations.csv` names (docs/files.md). An import runs unattended, so it never reopens a period."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import Connection

from orchestrator.batches.model import PeriodChange
from orchestrator.batches.periods import event_of
from orchestrator.batches.repository import EventOf
from orchestrator.directory.files import Rows, mistake_at
from orchestrator.files.mistakes import FileMistake
from orchestrator.registration.periods import PostgresPeriods
from orchestrator.storage.locks import take_periods
from orchestrator.storage.outbox import insert_events
from orchestrator.storage.repository import PostgresActivityRepository
from schemas.ids import period_stream

IMPORT_CHANNEL = "import"
"""The channel, and who closed the period, as the history records them."""

_REASON = "closed_through in organizations.csv"


@dataclass(frozen=True, slots=True)
class ClosedPeriod:
    """The last day of an organization's closed period after the import."""

    organization_id: str
    closed_through: date


def not_over_yet(connection: Connection, records: Rows | None) -> Iterator[FileMistake]:
    """Mistakes for dates after yesterday in the organization's time zone. Needs the organizations to be written."""
    periods = PostgresPeriods(connection)
    for record in records or ():
        wanted = record.values.get("closed_through")
        if wanted is not None and wanted > periods.read(record.values["organization_id"]).today - timedelta(days=1):
            assert records is not None
            yield mistake_at(records.file, record, "closed_through", "is after yesterday, so the period is not over")


def close_periods(connection: Connection, records: Rows | None) -> tuple[list[ClosedPeriod], list[ClosedPeriod]]:
    """Moves closed periods forward. Returns those, and the ones that stay because they are closed longer than the file says.

    Waits for running registrations of these organizations, and keeps out others until the commit, so it is the last step of an import.
    """
    wanted: Mapping[str, date] = {
        record.values["organization_id"]: record.values["closed_through"]
        for record in records or ()
        if record.values.get("closed_through") is not None
    }
    moved: list[ClosedPeriod] = []
    stay: list[ClosedPeriod] = []
    if not wanted:
        return moved, stay
    take_periods(connection, wanted)
    periods, now = PostgresPeriods(connection), PostgresActivityRepository(connection).clock()
    for organization_id, last_day in wanted.items():
        period = periods.read(organization_id)
        if period.closed_through is not None and period.closed_through >= last_day:
            if period.closed_through > last_day:
                stay.append(ClosedPeriod(organization_id, period.closed_through))
            continue
        change = PeriodChange(period.version + 1, last_day, period.closed_through, _REASON, IMPORT_CHANNEL, IMPORT_CHANNEL, now)
        periods.write(organization_id, change)
        insert_events(connection, [EventOf(organization_id, period_stream(organization_id), event_of(organization_id, change))])
        moved.append(ClosedPeriod(organization_id, last_day))
    return moved, stay
