"""`/docs`: the OpenAPI document as one page for people, on which they can try requests with a token (Swagger UI, vendored)."""

from html import escape

from api.openapi import Json
from api.vendored.manifest import read_manifest

HEADERS = {
    # Swagger UI writes style attributes. Scripts come only from this API, and tried requests go only to it.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

START = "/docs/start.js"
"""The path of the script that starts the page."""

START_SCRIPT = b"""\
// The token that is typed under [Authorize] stays in the memory of this page, and is gone with it.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  displayOperationId: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  filter: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""


def page(document: Json) -> bytes:
    """Returns the page. A browser that loads it fetches the content from `/openapi.json`."""
    package = read_manifest().package("swagger-ui-dist")
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(document['info']['title'])}</title>"
        # Without this, browsers request an icon.
        "<link rel=icon href='data:,'>"
        f"<link rel=stylesheet href='{package.address('swagger-ui.css')}'>"
        f"<script defer src='{package.address('swagger-ui-bundle.js')}'></script><script defer src='{START}'></script>"
        "<body><div id=reference></div>"
        "<noscript>This page needs JavaScript. The whole description is <a href='/openapi.json'>openapi.json</a>.</noscript>"
    ).encode()
