"""Downloads: CSV for spreadsheets, and a response that is written chunk by chunk."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiohttp import web

from api.http.streaming import streaming
from orchestrator.files.formulas import neutral


def csv_bytes(rows: Sequence[Sequence[Any]]) -> bytes:
    """Returns rows as CSV in UTF-8. Text that a spreadsheet would take for a formula is made harmless."""
    text = io.StringIO(newline="")
    # All text is quoted, so that no program takes a character in it for a delimiter.
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerows([[value if isinstance(value, int) else _text(value) for value in row] for row in rows])
    return text.getvalue().encode()


def _text(value: object) -> str:
    """Returns the value of a cell as text. (Without this, the CSV writer would take an id for a number and leave out its quotes.)"""
    return "" if value is None else neutral(str(value))


async def send_download(
    request: web.Request, *, name: str, content_type: str, chunks: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Sends the chunks as a file of this name. Reads the first chunk before it sends anything, so that an exception becomes a problem."""
    first = await anext(chunks)
    headers = {
        "Content-Type": content_type,
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    if request.method == "HEAD":
        return web.Response(headers=headers)
    async with streaming(request, headers) as out:
        await out.write(first)
        async for chunk in chunks:
            await out.write(chunk)
    return out.response
