"""Request bodies: the checks before parsing, and the parsing."""

import asyncio
from collections.abc import Collection
from typing import Any

from aiohttp import web

from api.http.problems import ProblemError
from orchestrator.process.settings import Settings
from schemas import strict_json

# 16 MiB at 0.5 MiB/s, slower than any mobile network that can send such a file at all.
_MAX_SECONDS_FOR_BODY = 32.0


async def read_body(request: web.Request, file_types: Collection[str] = ()) -> bytes:
    """The body as sent: JSON, or if `file_types` names content types, one of those.

    Raises ProblemError if the body is compressed, arrives too slowly or incompletely, and aiohttp's 413 if it is too large.
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise ProblemError("compressed", "Send the body uncompressed, without Content-Encoding.")
    try:
        async with asyncio.timeout(_MAX_SECONDS_FOR_BODY):
            body = await request.read()
    except TimeoutError as error:
        raise ProblemError(
            "body_too_slow", "The body did not arrive in time. Repeat the request.", headers={"Connection": "close"}
        ) from error
    except (ConnectionError, web.RequestPayloadError) as error:
        # The client has disconnected. It never sees this response, which only decides how the request is counted and logged.
        raise ProblemError("bad_request", "The body does not match its headers: it is incomplete or wrongly framed.") from error
    if file_types and request.content_type not in file_types:
        raise ProblemError("not_a_table", f"Send the file as one of the content types {', '.join(file_types)}.")
    if body and not file_types and not _is_json(request.content_type):
        raise ProblemError("not_json", "Send the body as Content-Type: application/json.")
    return body


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or (content_type.startswith("application/") and content_type.endswith("+json"))


def parse(body: bytes, settings: Settings) -> Any:
    """The JSON in a body. Raises BadJsonError."""
    return strict_json.loads(body, max_depth=settings.max_json_depth, max_values=settings.max_json_values)
