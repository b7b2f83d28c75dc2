"""The endpoints that read activities: a page, a download, one with what happened to it, sums (docs/http.md, Activities)."""

from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import partial
from typing import Any
from uuid import UUID

import orjson
from aiohttp import web

from api.endpoints.calls import Call, Reply
from api.http import cursors
from api.http.downloads import csv_bytes, send_download
from api.http.problems import ProblemError
from orchestrator.batches.model import Actor
from orchestrator.registration.reading import (
    ActivityFilter,
    ActivityReader,
    ActivityView,
    Sum,
    SummaryGroup,
    TrailEntry,
)
from schemas.api.activities import ActivitiesQuery, ActivityExportQuery, ActivitySummaryQuery
from schemas.envelope import rfc3339
from schemas.groupings import Grouping

CHUNK_ACTIVITIES = 1_000

_COLUMNS = (
    "activity_id",
    "mentor_id",
    "coordinator_id",
    "chapter_id",
    "activity_type",
    "activity_date",
    "duration_minutes",
    "overrides_duplicate",
    "registered_at",
    "revoked_at",
    "revoked_by",
    "revocation_reason",
    "batch_id",
    "item_id",
)


def list_activities(call: Call) -> Reply:
    """`GET /activities`: a page of activities, the latest date first."""
    actor, query = _reader(call), call.read_query(ActivitiesQuery)
    after = None if query.cursor is None else _place(query.cursor)
    found = _page(call, actor, query, after, query.limit + 1)
    shown = found[: query.limit]
    next_cursor = _cursor(shown[-1]) if len(found) > query.limit else None
    body = {"data": [_activity(activity) for activity in shown], "next_cursor": next_cursor}
    return Reply(200, body, {"Cache-Control": "no-store"})


def get_activity(call: Call) -> Reply:
    """`GET /activities/{activity_id}`: an activity with everything that happened to it."""
    actor, activity_id = _reader(call), call.activity_id()

    def work(reader: ActivityReader) -> tuple[ActivityView, Sequence[TrailEntry]] | None:
        activity = reader.one(actor.organization_id, activity_id)
        return None if activity is None or not _may_see(actor, activity) else (activity, reader.trail(activity))

    found = call.service.database.read_activities(actor.organization_id, work)
    if found is None:
        raise ProblemError("activity_not_found", "No activity that you may see has this id.")
    activity, trail = found
    body = _activity(activity) | {"history": [_entry(entry) for entry in trail]}
    return Reply(200, body, {"Cache-Control": "no-store"})


def summarize_activities(call: Call) -> Reply:
    """`GET /activities/summary`: how many activities and minutes, live and revoked, by group."""
    actor, query = _reader(call), call.read_query(ActivitySummaryQuery)
    groupings = query.groupings
    groups = call.service.database.read_activities(
        actor.organization_id,
        lambda reader: reader.summary(
            actor.organization_id,
            groupings,
            date_from=query.date_from,
            date_to=query.date_to,
            coordinator_id=actor.sees_only_coordinator,
            mentor_id=query.mentor_id,
        ),
    )
    body = {
        "groups": [_group(group, groupings) for group in groups],
        "live": _total([group.live for group in groups]),
        "revoked": _total([group.revoked for group in groups]),
    }
    return Reply(200, body, {"Cache-Control": "no-store"})


async def download_csv(request: web.Request, call: Call) -> web.StreamResponse:
    """`GET /activities.csv`: the activities for a spreadsheet, the latest date first."""
    return await _download(request, call, _CSV)


async def download_ndjson(request: web.Request, call: Call) -> web.StreamResponse:
    """`GET /activities.ndjson`: the activities for a program, the latest date first."""
    return await _download(request, call, _NDJSON)


@dataclass(frozen=True, slots=True)
class _Format:
    suffix: str
    content_type: str
    header: bytes
    rows: Callable[[Sequence[ActivityView]], bytes]


def _csv_rows(activities: Sequence[ActivityView]) -> bytes:
    shown = map(_activity, activities)
    return csv_bytes([[_cell(activity[column]) for column in _COLUMNS] for activity in shown])


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return rfc3339(value) if isinstance(value, datetime) else value


def _ndjson_rows(activities: Sequence[ActivityView]) -> bytes:
    option = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
    return b"".join(orjson.dumps(_activity(activity), option=option) for activity in activities)


# Without a byte order mark Excel reads the file as Windows-1252, which garbles names such as kåre and bjørn.
_CSV = _Format("csv", "text/csv; charset=utf-8", BOM_UTF8 + csv_bytes([_COLUMNS]), _csv_rows)
_NDJSON = _Format("ndjson", "application/x-ndjson", b"", _ndjson_rows)


async def _download(request: web.Request, call: Call, form: _Format) -> web.StreamResponse:
    return await send_download(
        request, name=f"activities.{form.suffix}", content_type=form.content_type, chunks=_chunks(call, form)
    )


async def _chunks(call: Call, form: _Format) -> AsyncIterator[bytes]:
    """Reads each chunk in its own transaction, so a slow client holds no connection. An activity that is registered meanwhile
    is included if the download has not passed its place yet."""
    run = call.service.database.run
    actor, query = _reader(call), call.read_query(ActivityExportQuery)
    after, content = None, form.header
    while True:
        found = await run(partial(_page, call, actor, query, after, CHUNK_ACTIVITIES))
        yield content + form.rows(found)
        if len(found) < CHUNK_ACTIVITIES:
            return
        after, content = found[-1].place, b""


def _page(
    call: Call, actor: Actor, query: ActivityExportQuery, after: tuple[date, UUID] | None, limit: int
) -> Sequence[ActivityView]:
    own = actor.sees_only_coordinator
    if own is not None and query.coordinator_id not in (None, own):
        return []
    wanted = ActivityFilter(
        date_from=query.date_from,
        date_to=query.date_to,
        activity_type=query.activity_type,
        chapter_id=query.chapter_id,
        coordinator_id=own or query.coordinator_id,
        mentor_id=query.mentor_id,
        revoked=query.revoked,
    )
    return call.service.database.read_activities(
        actor.organization_id, lambda reader: reader.page(actor.organization_id, wanted, after=after, limit=limit)
    )


def _reader(call: Call) -> Actor:
    """Returns the caller. Raises ProblemError if the activities are not in this database."""
    if call.service.settings.registration_url is not None:
        raise ProblemError(
            "activities_unavailable", "The external registration service keeps the activities. Ask that service for them."
        )
    return call.actor()


def _may_see(actor: Actor, activity: ActivityView) -> bool:
    return actor.sees_only_coordinator in (None, activity.coordinator_id)


def _cursor(activity: ActivityView) -> str:
    return cursors.encode((datetime.combine(activity.activity_date, time.min, UTC), activity.activity_id))


def _place(cursor: str) -> tuple[date, UUID]:
    at, activity_id = cursors.decode(cursor)
    return at.date(), activity_id


def _activity(activity: ActivityView) -> dict[str, Any]:
    return {
        "activity_id": activity.activity_id,
        "mentor_id": activity.mentor_id,
        "coordinator_id": activity.coordinator_id,
        "chapter_id": activity.chapter_id,
        "activity_type": activity.activity_type,
        "activity_date": activity.activity_date,
        "duration_minutes": activity.duration_minutes,
        "overrides_duplicate": activity.overrides_duplicate,
        "registered_at": activity.registered_at.astimezone(UTC),
        "revoked_at": None if activity.revoked_at is None else activity.revoked_at.astimezone(UTC),
        "revoked_by": activity.revoked_by,
        "revocation_reason": activity.revocation_reason,
        "batch_id": activity.batch_id,
        "item_id": activity.item_id,
    }


def _entry(entry: TrailEntry) -> dict[str, Any]:
    """The entry with only the fields that apply to its kind."""
    shown = {
        "at": entry.at.astimezone(UTC),
        "kind": entry.kind,
        "by": entry.by,
        "channel": entry.channel,
        "attempt": entry.attempt,
        "error": entry.error,
        "correction": entry.correction,
        "reason": entry.reason,
    }
    return {name: value for name, value in shown.items() if value is not None}


def _group(group: SummaryGroup, groupings: frozenset[Grouping]) -> dict[str, Any]:
    values = {
        Grouping.ACTIVITY_TYPE: ("activity_type", group.activity_type),
        Grouping.MONTH: ("month", group.month),
        Grouping.CHAPTER: ("chapter_id", group.chapter_id),
        Grouping.COORDINATOR: ("coordinator_id", group.coordinator_id),
    }
    return dict(value for grouping, value in values.items() if grouping in groupings) | {
        "live": _total([group.live]),
        "revoked": _total([group.revoked]),
    }


def _total(sums: Sequence[Sum]) -> dict[str, int]:
    return {"activities": sum(each.activities for each in sums), "minutes": sum(each.minutes for each in sums)}
