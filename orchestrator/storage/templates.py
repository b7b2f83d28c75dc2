"""Templates on PostgreSQL."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from orchestrator.batches.model import TemplateValues, TemplateView
from orchestrator.batches.repository import TemplateStore
from orchestrator.storage import arrays
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/storage/sql/templates.sql")

_ADD = _SQL["add"].text()
_FIND = _SQL["find"].text()
_LOCK = _SQL["lock"].text()
_PAGE = _SQL["page"].text()
_WRITE = _SQL["write"].text()
_REMOVE = _SQL["remove"].text()


class PostgresTemplates(TemplateStore):
    """Implements `TemplateStore` in the transaction of the connection it is given."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, template: TemplateView) -> None:
        owned = {"organization_id": template.organization_id, "coordinator_id": template.coordinator_id}
        self._connection.execute(_ADD, {**owned, **_changeable(template)})

    def find(self, template_id: UUID) -> TemplateView | None:
        return _view(self._connection.execute(_FIND, {"template_id": template_id}).one_or_none())

    def lock(self, template_id: UUID) -> TemplateView | None:
        return _view(self._connection.execute(_LOCK, {"template_id": template_id}).one_or_none())

    def page(self, organization_id: str, coordinator_id: str | None, *, after: UUID | None, limit: int) -> Sequence[TemplateView]:
        parameters = {"organization_id": organization_id, "coordinator_id": coordinator_id, "after": after, "most": limit}
        return [view for row in self._connection.execute(_PAGE, parameters) if (view := _view(row)) is not None]

    def write(self, template: TemplateView) -> None:
        self._connection.execute(_WRITE, _changeable(template))

    def remove(self, template_id: UUID) -> None:
        self._connection.execute(_REMOVE, {"template_id": template_id})


def _view(row: Row[Any] | None) -> TemplateView | None:
    if row is None:
        return None
    values = TemplateValues(row.name, tuple(row.mentor_ids), row.activity_type, row.duration_minutes, row.weekday)
    return TemplateView(UUID(row.template_id), row.organization_id, row.coordinator_id, values, row.version, row.changed_at)


def _changeable(template: TemplateView) -> dict[str, Any]:
    values = template.values
    return {
        "template_id": template.template_id,
        "name": values.name,
        "mentor_ids": arrays.texts(values.mentor_ids),
        "activity_type": values.activity_type,
        "duration_minutes": values.duration_minutes,
        "weekday": values.weekday,
        "version": template.version,
        "changed_at": template.changed_at,
    }
