"""Reading an uploaded table (docs/http.md, Read a file). Nothing is stored."""

from collections.abc import Mapping

from aiohttp import web

from api.endpoints.calls import Call
from api.http.problems import ProblemError
from api.load.files import MAX_FILE_BYTES

CONTENT_TYPES: Mapping[str, str] = {
    "text/csv": ".csv",
    "text/plain": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
}
"""The accepted content types, and the file name ending of each."""


async def read_file(request: web.Request, call: Call) -> web.Response:
    """`POST /read-file`: what a table of registrations holds, and what is wrong with it; nothing is stored."""
    # Like every endpoint, this refuses an organization that is not the caller's.
    call.actor()
    if len(call.body) > MAX_FILE_BYTES:
        detail = f"The file has {len(call.body):,} bytes; the limit is {MAX_FILE_BYTES:,}. Split it, or save it as CSV."
        raise ProblemError("body_too_large", detail)
    kind = CONTENT_TYPES[request.content_type]
    document = await call.service.files.read(kind, call.body, max_items=call.service.settings.max_items)
    return web.Response(body=document, content_type="application/json", headers={"Cache-Control": "no-store"})
