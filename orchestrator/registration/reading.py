"""Reads activities for auditors: pages of them, one with its history, and sums. Never reads notes (docs/http.md, Activities)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from orchestrator.storage.statements import read_statements
from schemas.groupings import Grouping
from schemas.ids import item_position

_SQL = read_statements("orchestrator/registration/sql/reading.sql")

_PAGE = _SQL["page"].text()
_ONE = _SQL["one"].text()
_TRAIL = _SQL["trail"].text()
_SUMMARY = _SQL["summary"].text()


@dataclass(frozen=True, slots=True)
class ActivityFilter:
    """Which activities to read: those that match every given value. Both dates are included."""

    date_from: date | None = None
    date_to: date | None = None
    activity_type: str | None = None
    chapter_id: str | None = None
    coordinator_id: str | None = None
    mentor_id: str | None = None
    revoked: bool | None = None


@dataclass(frozen=True, slots=True)
class ActivityView:
    """An activity without its notes. The chapter is the mentor's at registration; None if the directory did not have the mentor."""

    activity_id: UUID
    organization_id: str
    mentor_id: str
    coordinator_id: str
    activity_type: str
    activity_date: date
    duration_minutes: int
    chapter_id: str | None
    batch_id: UUID
    item_id: UUID
    overrides_duplicate: bool
    registered_at: datetime
    revoked_at: datetime | None
    revoked_by: str | None
    revocation_reason: str | None

    @property
    def place(self) -> tuple[date, UUID]:
        """The activity's place in a listing."""
        return self.activity_date, self.activity_id


@dataclass(frozen=True, slots=True)
class TrailEntry:
    """An event in the history of an activity. Fields that do not apply to its kind are None."""

    at: datetime
    kind: str
    """`submitted`, `failed`, `retried`, `registered` or `revoked`."""
    by: str | None
    channel: str | None
    attempt: int | None
    error: Mapping[str, Any] | None
    correction: Mapping[str, Any] | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Sum:
    """The number of activities and the sum of their minutes."""

    activities: int
    minutes: int


@dataclass(frozen=True, slots=True)
class SummaryGroup:
    """The activities that share these values. A value is None if the sums are not grouped by it, or if the activities have no chapter."""

    activity_type: str | None
    month: str | None
    chapter_id: str | None
    coordinator_id: str | None
    live: Sum
    revoked: Sum


class ActivityReader:
    """The activities as the transaction of the connection sees them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def page(
        self, organization_id: str, wanted: ActivityFilter, *, after: tuple[date, UUID] | None, limit: int
    ) -> Sequence[ActivityView]:
        """At most `limit` activities after the place `after`, the latest date first."""
        after_date, after_id = after or (None, None)
        rows = self._connection.execute(
            _PAGE,
            {
                "organization_id": organization_id,
                "date_from": wanted.date_from,
                "date_to": wanted.date_to,
                "activity_type": wanted.activity_type,
                "chapter_id": wanted.chapter_id,
                "coordinator_id": wanted.coordinator_id,
                "mentor_id": wanted.mentor_id,
                "revoked": wanted.revoked,
                "after_date": after_date,
                "after_id": after_id,
                "limit": limit,
            },
        )
        return [_view(row) for row in rows]

    def one(self, organization_id: str, activity_id: UUID) -> ActivityView | None:
        """The activity; None if the organization does not have it."""
        row = self._connection.execute(_ONE, {"organization_id": organization_id, "activity_id": activity_id}).one_or_none()
        return None if row is None else _view(row)

    def trail(self, activity: ActivityView) -> Sequence[TrailEntry]:
        """The history of the activity, in the order of time."""
        rows = self._connection.execute(
            _TRAIL,
            {
                "organization_id": activity.organization_id,
                "activity_id": activity.activity_id,
                "batch_id": activity.batch_id,
                "position": item_position(activity.batch_id, activity.item_id),
            },
        )
        return [TrailEntry(*row) for row in rows]

    def summary(
        self,
        organization_id: str,
        groupings: frozenset[Grouping],
        *,
        date_from: date | None,
        date_to: date | None,
        coordinator_id: str | None,
        mentor_id: str | None,
    ) -> Sequence[SummaryGroup]:
        """Sums by group. Both dates are included."""
        rows = self._connection.execute(
            _SUMMARY,
            {
                "organization_id": organization_id,
                "date_from": date_from,
                "date_to": date_to,
                "coordinator_id": coordinator_id,
                "mentor_id": mentor_id,
                "by_type": Grouping.ACTIVITY_TYPE in groupings,
                "by_month": Grouping.MONTH in groupings,
                "by_chapter": Grouping.CHAPTER in groupings,
                "by_coordinator": Grouping.COORDINATOR in groupings,
            },
        )
        return [
            SummaryGroup(
                row.activity_type,
                None if row.month is None else f"{row.month:%Y-%m}",
                row.chapter_id,
                row.coordinator_id,
                Sum(row.live, int(row.live_minutes)),
                Sum(row.revoked, int(row.revoked_minutes)),
            )
            for row in rows
        ]


def _view(row: Row[Any]) -> ActivityView:
    return ActivityView(
        activity_id=UUID(row.activity_id),
        organization_id=row.organization_id,
        mentor_id=row.attributed_to,
        coordinator_id=row.registered_by,
        activity_type=row.activity_type,
        activity_date=row.activity_date,
        duration_minutes=row.duration_minutes,
        chapter_id=row.chapter_id,
        batch_id=UUID(row.batch_id),
        item_id=UUID(row.item_id),
        overrides_duplicate=row.overrides_duplicate,
        registered_at=row.created_at,
        revoked_at=row.revoked_at,
        revoked_by=row.revoked_by,
        revocation_reason=row.revocation_reason,
    )
