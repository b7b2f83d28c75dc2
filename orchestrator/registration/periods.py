"""Closed periods on PostgreSQL."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from orchestrator.batches.model import Period, PeriodChange
from orchestrator.batches.repository import PeriodStore
from orchestrator.registration.rules import DEFAULT_TIME_ZONE
from orchestrator.storage.locks import take_periods
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/registration/sql/periods.sql")

_PERIOD = _SQL["period"].text().bindparams(time_zone=DEFAULT_TIME_ZONE)
_WRITE = _SQL["write"].text().bindparams(time_zone=DEFAULT_TIME_ZONE)
_ADD_CHANGE = _SQL["add_change"].text()
_CHANGES = _SQL["changes"].text()


class PostgresPeriods(PeriodStore):
    """Implements `PeriodStore` in the transaction of the connection it is given."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read(self, organization_id: str) -> Period:
        row = self._connection.execute(_PERIOD, {"organization_id": organization_id}).one()
        return Period(row.closed_through, row.version, row.today, row.unresolved)

    def take(self, organization_id: str) -> Period:
        take_periods(self._connection, [organization_id])
        return self.read(organization_id)

    def write(self, organization_id: str, change: PeriodChange) -> None:
        closed: dict[str, Any] = {"organization_id": organization_id, "closed_through": change.closed_through}
        self._connection.execute(_WRITE, closed)
        about = {"number": change.number, "previously": change.previously, "changed_at": change.at}
        who = {"reason": change.reason, "changed_by": change.by, "channel": change.channel}
        self._connection.execute(_ADD_CHANGE, {**closed, **about, **who})

    def changes(self, organization_id: str, *, before: int | None, limit: int) -> Sequence[PeriodChange]:
        rows = self._connection.execute(_CHANGES, {"organization_id": organization_id, "before": before, "most": limit})
        return [
            PeriodChange(row.number, row.closed_through, row.previously, row.reason, row.changed_by, row.channel, row.changed_at)
            for row in rows
        ]
