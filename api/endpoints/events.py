"""Server-sent events: a batch as it changes (docs/http.md). The id of an event is the batch's version."""

import asyncio
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import orjson
from aiohttp import web

from api.endpoints import presentation
from api.endpoints.calls import Call, Reply
from api.http.streaming import Stream, streaming
from api.load.watching import Watch, is_settled
from orchestrator.batches import operations
from orchestrator.batches.model import ItemFilter, StatusView
from orchestrator.batches.repository import ActivityRepository
from orchestrator.batches.states import ItemStatus
from schemas.api.batches import EventsQuery

# Proxies close connections that are silent for a minute. Writing also detects a client that has gone.
_HEARTBEAT_S = 30.0

# Changes within this time are sent as one event: people can't read faster, and a batch of 10,000 makes about 20 events instead of hundreds.
_COALESCE_S = 0.2

_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}

_VERSION = re.compile(r"[0-9]{1,18}", re.ASCII)


def issue_ticket(call: Call) -> Reply:
    """`POST /{batch_id}/events`: 201 with a ticket for the stream of a batch that the caller may see."""
    batch_id, actor = call.batch_id(), call.actor()
    call.service.database.read(
        actor.organization_id,
        lambda repository: operations.get_bulk_submission_status(repository, actor, batch_id, ItemFilter(limit=None)),
    )
    ticket, expires_at = call.service.tickets.issue(actor, batch_id, stream_ends_at=call.identity.expires_at)
    return Reply(201, {"ticket": ticket, "expires_at": datetime.fromtimestamp(expires_at, UTC)})


@dataclass(frozen=True, slots=True)
class _Change:
    """The batch with the items that changed since a version, or with all items (`is_full`)."""

    view: StatusView
    is_full: bool

    @property
    def version(self) -> int:
        return self.view.batch.version

    @property
    def is_last(self) -> bool:
        return is_settled(self.view.batch)

    def encoded(self) -> bytes:
        """The event."""
        body = {**presentation.batch_with_items(self.view), "full": self.is_full}
        del body["next_item_cursor"]
        return b"id: %d\nevent: batch\ndata: %s\n\n" % (self.version, orjson.dumps(body, option=orjson.OPT_UTC_Z))


def _change_since(call: Call, version: int | None, only: ItemStatus | None) -> _Change:
    """The changes after this version of the batch. Raises NotFoundError.

    Each item stores the version of its last change, so gaps of any length are filled. For an invalid version, or one that the batch has not
    reached (its database was restored), returns the full present state.
    """
    batch_id, actor = call.batch_id(), call.actor()

    def read(repository: ActivityRepository) -> _Change:
        view = operations.get_bulk_submission_status(repository, actor, batch_id, ItemFilter(limit=None))
        if version is None or version > view.batch.version:
            everything = ItemFilter(status=only, limit=view.batch.counts.total)
            return _Change(operations.get_bulk_submission_status(repository, actor, batch_id, everything), is_full=True)
        changed = repository.items_at(batch_id, repository.positions_changed_since(batch_id, version))
        shown = [item for item in changed if only in (None, item.status)]
        return _Change(StatusView(view.batch, shown, None), is_full=False)

    return call.service.database.read(actor.organization_id, read)


def _last_seen(call: Call) -> int | None:
    given = call.headers.get("Last-Event-ID", "")
    return int(given) if _VERSION.fullmatch(given) else None


async def stream(request: web.Request, call: Call) -> web.StreamResponse:
    """`GET /{batch_id}/events`: a stream of changes; 204 to a reconnect that has seen the terminal state."""
    only = call.read_query(EventsQuery).items
    service, batch_id, seen = call.service, call.batch_id(), _last_seen(call)
    with service.watchers.watch(batch_id, call.actor().organization_id) as watch:
        watch.version = seen or 0
        change = await service.database.run(partial(_change_since, call, seen, only))
        if change.is_last and change.version == seen:
            return web.Response(status=204)
        if request.method == "HEAD":
            return web.Response(headers=_HEADERS)
        async with streaming(request, _HEADERS) as out:
            await out.write(b"retry: 2000\n\n")
            await _follow(call, watch, change, out, only)
        return out.response


async def _follow(call: Call, watch: Watch, change: _Change, out: Stream, only: ItemStatus | None) -> None:
    """Writes this change and all later ones, until the batch is terminal, the token expires or the process ends."""
    while True:
        if change.version != watch.version:
            await out.write(change.encoded())
            watch.version = change.version
        left = call.identity.expires_at - time.time()
        if change.is_last or left <= 0:
            return
        changed = await watch.wait(min(_HEARTBEAT_S, left))
        if call.service.watchers.closing:
            return
        if not changed:
            await out.write(b":\n\n")
            continue
        await asyncio.sleep(_COALESCE_S)
        change = await call.service.watchers.read(partial(_change_since, call, watch.version, only))
