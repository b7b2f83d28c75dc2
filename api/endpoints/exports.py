"""All items of a batch as a download, also while it runs: CSV for spreadsheets, NDJSON for programs.

The items are read in chunks by position, each in a short transaction, so that a slow client never holds a database connection. Each item
appears exactly once, with its state when its chunk was read. For counts and items of one moment, clients read the batch instead.
"""

from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from api.endpoints import presentation
from api.endpoints.calls import Call
from api.http.downloads import csv_bytes, send_download
from orchestrator.batches import operations
from orchestrator.batches.access import may_read_notes
from orchestrator.batches.model import ItemFilter, ItemView
from schemas.api.batches import ExportQuery
from schemas.envelope import rfc3339

CHUNK_ITEMS = 1_000

_COLUMNS = (
    "position",
    "item_id",
    "client_reference",
    "mentor_id",
    "activity_type",
    "activity_date",
    "duration_minutes",
    "status",
    "attempt",
    "activity_id",
    "error_code",
    "error_message",
    "error_field",
    "conflicting_activity_id",
    "revoked_at",
    "revoked_by",
    "revocation_reason",
)


@dataclass(frozen=True, slots=True)
class Format:
    """How items are written."""

    suffix: str
    content_type: str
    header: Callable[[bool], bytes]
    rows: Callable[[Sequence[ItemView], bool], bytes]


def _csv_header(with_notes: bool) -> bytes:
    # Without a byte order mark Excel reads the file as Windows-1252, which garbles names such as kåre and bjørn.
    return BOM_UTF8 + csv_bytes([(*_COLUMNS, "notes") if with_notes else _COLUMNS])


def _csv_rows(items: Sequence[ItemView], with_notes: bool) -> bytes:
    return csv_bytes([_cells(item, with_notes) for item in items])


def _cells(item: ItemView, with_notes: bool) -> Sequence[Any]:
    error, values, revocation = item.error, item.values, item.revocation
    cells = (
        item.position,
        item.item_id,
        item.client_reference,
        values.mentor_id,
        values.activity_type,
        values.activity_date,
        values.duration_minutes,
        item.status.value,
        item.attempt,
        item.activity_id,
        *((None,) * 4 if error is None else (error.code, error.message, error.field, error.conflicting_activity_id)),
        *((None,) * 3 if revocation is None else (rfc3339(revocation.at), revocation.by, revocation.reason)),
    )
    return (*cells, values.notes) if with_notes else cells


def _ndjson_rows(items: Sequence[ItemView], with_notes: bool) -> bytes:
    shown = [presentation.item(item) | ({"notes": item.values.notes} if with_notes else {}) for item in items]
    return b"".join(orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE) for item in shown)


CSV = Format("csv", "text/csv; charset=utf-8", _csv_header, _csv_rows)
NDJSON = Format("ndjson", "application/x-ndjson", lambda _with_notes: b"", _ndjson_rows)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of the download, and where the next begins; `after_position` is None for the last chunk."""

    content: bytes
    after_position: int | None


def read_chunk(call: Call, form: Format, after_position: int) -> Chunk:
    """The items after this position (-1: from the start, with the header), as bytes. Raises ForbiddenError (an auditor asks for notes), and what
    `get_bulk_submission_status` raises."""
    batch_id, query, actor = call.batch_id(), call.read_query(ExportQuery), call.actor()
    if query.notes:
        may_read_notes(actor)
    wanted = ItemFilter(after_position=after_position, limit=CHUNK_ITEMS)
    view = call.service.database.read(
        actor.organization_id,
        lambda repository: operations.get_bulk_submission_status(repository, actor, batch_id, wanted),
    )
    header = form.header(query.notes) if after_position < 0 else b""
    return Chunk(header + form.rows(view.items, query.notes), view.next_after_position)


async def _download(form: Format, request: web.Request, call: Call) -> web.StreamResponse:
    name = f"batch-{call.batch_id()}.{form.suffix}"
    return await send_download(request, name=name, content_type=form.content_type, chunks=_chunks(call, form))


async def _chunks(call: Call, form: Format) -> AsyncIterator[bytes]:
    after: int | None = -1
    while after is not None:
        chunk = await call.service.database.run(partial(read_chunk, call, form, after))
        yield chunk.content
        after = chunk.after_position


async def download_csv(request: web.Request, call: Call) -> web.StreamResponse:
    """`GET /{batch_id}/results.csv`: all items for a spreadsheet, also while the batch runs."""
    return await _download(CSV, request, call)


async def download_ndjson(request: web.Request, call: Call) -> web.StreamResponse:
    """`GET /{batch_id}/results.ndjson`: all items for a program, also while the batch runs."""
    return await _download(NDJSON, request, call)
