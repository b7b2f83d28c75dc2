"""Serves the vendored files, compressed if the browser accepts that."""

import asyncio
import gzip
import mimetypes
from functools import cache
from pathlib import Path

from aiohttp import hdrs, web

from api.http.problems import Handler
from api.vendored.manifest import read_manifest

# The address names the version, so its content never changes.
_HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept-Encoding",
}


def add_vendored_files(app: web.Application) -> None:
    """Adds a route for each file of the manifest."""
    for package in read_manifest().packages:
        for file in package.files:
            app.router.add_get(package.address(file), _serving(package.folder / file))


def _serving(path: Path) -> Handler:
    content_type = mimetypes.guess_type(path.name)[0] or "text/plain"

    async def handle(request: web.Request) -> web.Response:
        headers = dict(_HEADERS)
        takes_gzip = "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "")
        if takes_gzip:
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        body = await asyncio.to_thread(_compressed if takes_gzip else Path.read_bytes, path)
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)

    return handle


@cache
def _compressed(path: Path) -> bytes:
    """Compresses a file on its first request, once per process: a large file takes a tenth of a second."""
    return gzip.compress(path.read_bytes(), mtime=0)
