"""`/docs`: the OpenAPI document as one page for people, on which a request can be tried with a token (Swagger UI, vendored)."""

from html import escape

from api.openapi import Json
from api.vendored.manifest import read_manifest

HEADERS = {
    # Swagger UI writes style attributes. Scripts come from here alone, and so do the requests that are tried.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

START = "/docs/start.js"
"""Where the page finds the script that starts it."""

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
    """Returns the page. What it shows comes from `/openapi.json` when a browser loads it."""
    package = read_manifest().package("swagger-ui-dist")
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(document['info']['title'])}</title>"
        # Browsers ask for an icon of their own accord.
        "<link rel=icon href='data:,'>"
        f"<link rel=stylesheet href='{package.address('swagger-ui.css')}'>"
        f"<script defer src='{package.address('swagger-ui-bundle.js')}'></script><script defer src='{START}'></script>"
        "<body><div id=reference></div>"
        "<noscript>This page needs JavaScript. The whole description is <a href='/openapi.json'>openapi.json</a>.</noscript>"
    ).encode()
