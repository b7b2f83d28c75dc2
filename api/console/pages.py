"""The console's pages: the files of the repository, served under `/console/`. Scripts and styles are each joined into one file."""

import asyncio
import hashlib
import mimetypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from aiohttp import web

from api.console.joining import join
from api.console.provider import HOME_PATH
from api.http.problems import Handler
from api.vendored.manifest import read_manifest

STATIC = Path(__file__).parent / "static"

PAGES = (
    HOME_PATH,
    "/console/login-failed",
    "/console/batches",
    "/console/batches/{batch_id}",
    "/console/batches/{batch_id}/correct",
    "/console/new",
    "/console/activities",
    "/console/activities/{activity_id}",
    "/console/period",
    "/console/forget",
    "/console/receipts",
    "/console/webhooks",
    "/console/help",
    "/console/accessibility",
    "/console/templates",
)
"""All paths serve the same document. Its script decides by the path what to show (`static/routes.js`)."""

SCRIPT = "/console/static/app.js"
"""The module `static/app.js`, joined with all modules that it imports."""

STYLES = "/console/static/styles.css"
"""All style sheets in one: the design system's, then the console's. A page waits for it before it shows anything."""

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types lit-html"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not no-referrer: with it some browsers send no Origin.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def add_pages(app: web.Application) -> None:
    """Adds a route for each page and for each file that the pages load."""
    for path in PAGES:
        app.router.add_get(path, _serving([STATIC / "index.html"], cache="no-store"))
    app.router.add_get(HOME_PATH.rstrip("/"), _to_home)
    # Browsers revalidate scripts, styles and texts on every load, so that after an upgrade no page mixes two versions.
    app.router.add_get(STYLES, _serving(style_sheets(), cache="no-cache"))
    app.router.add_get(SCRIPT, _serving(sorted(STATIC.rglob("*.js")), cache="no-cache", joined=_script))
    for file in (STATIC / "start.js", *sorted((STATIC / "messages").glob("*.json"))):
        app.router.add_get(_address(file), _serving([file], cache="no-cache"))


def style_sheets() -> Sequence[Path]:
    """The files of `STYLES`, in their order: vendored ones, `base.css`, and one for each page that needs its own."""
    vendored = [package.folder / file for package in read_manifest().packages for file in package.files if file.endswith(".css")]
    own = sorted((STATIC / "styles").glob("*.css"), key=lambda path: (path.name != "base.css", path.name))
    return [path for path in vendored if "designsystemet" in path.as_posix()] + own


def _one_after_another(paths: Sequence[Path]) -> bytes:
    return b"\n".join(path.read_bytes() for path in paths)


def _script(paths: Sequence[Path]) -> bytes:
    return join({_address(path): path.read_text(encoding="utf-8") for path in paths}, SCRIPT).encode()


def _address(path: Path) -> str:
    return f"/console/static/{path.relative_to(STATIC).as_posix()}"


def _changed_at(paths: Sequence[Path]) -> Sequence[int]:
    return [path.stat().st_mtime_ns for path in paths]


def _serving(paths: Sequence[Path], *, cache: str, joined: Callable[[Sequence[Path]], bytes] = _one_after_another) -> Handler:
    """A handler that sends these files as one. It joins them again after one of them has changed."""
    content_type = mimetypes.guess_type(paths[0].name)[0] or "application/octet-stream"
    known = _changed_at(paths), joined(paths)

    def content() -> bytes:
        nonlocal known
        changed_at = _changed_at(paths)
        if known[0] != changed_at:
            known = changed_at, joined(paths)
        return known[1]

    async def handle(request: web.Request) -> web.Response:
        body = await asyncio.to_thread(content)
        headers = {**HEADERS, "Cache-Control": cache, "Vary": "Accept-Encoding"}
        if cache != "no-store":
            tag = f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'
            headers["ETag"] = tag
            if tag in request.headers.get("If-None-Match", ""):
                return web.Response(status=304, headers=headers)
        response = web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)
        response.enable_compression()
        return response

    return handle


async def _to_home(_request: web.Request) -> web.Response:
    return web.Response(status=308, headers={"Location": HOME_PATH})
