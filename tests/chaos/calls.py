"""One HTTP request to the product, and what its caller may conclude from its end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from schemas.paths import API_PATH, API_ROOT
from tests.chaos.history import Counts, Ending

TIMEOUT_S = 3.0  # Shorter than many faults last. A call that is given up tests more than one that waits.


@dataclass(frozen=True, slots=True)
class Reply:
    """`status` is None if there was no complete response."""

    outcome: Ending
    status: int | None = None
    document: Mapping[str, Any] = field(default_factory=dict)
    etag: str = ""

    @property
    def counts(self) -> Counts | None:
        """The ETag of the batch in the response."""
        shown = self.document
        if "total_items" not in shown:
            return None
        return Counts(shown["total_items"], shown["pending"], shown["completed"], shown["failed"], shown["cancelled"])


class Api:
    """Requests over one session."""

    def __init__(self, session: aiohttp.ClientSession, server_errors: list[str]) -> None:
        self._session = session
        self._server_errors = server_errors

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        patience_s: float = TIMEOUT_S,
    ) -> Reply:
        """`path` is below the batches, or a whole one. Gives up after `patience_s`. Never raises; the outcome says what happened.

        Only a definite refusal is FAILED, and a POST whose connection could not be made. 5xx is UNKNOWN, whatever its text says. Another
        method without a connection is UNKNOWN, because aiohttp repeats it when the connection breaks after it was sent, and then reports
        only that the second connection was refused.
        """
        path = path if path.startswith(API_ROOT) else API_PATH + path
        data = None if body is None else orjson.dumps(body)
        timeout = aiohttp.ClientTimeout(total=patience_s)
        try:
            async with self._session.request(method, path, data=data, headers=headers, timeout=timeout) as response:
                content = await response.read()
        except aiohttp.ClientConnectorError:
            return Reply(Ending.FAILED if method == "POST" else Ending.UNKNOWN)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return Reply(Ending.UNKNOWN)
        if response.status == 500:
            self._server_errors.append(f"{method} {path.split('?')[0]}: {content[:300]!r}")
        document = orjson.loads(content) if content and "json" in response.content_type else {}
        return Reply(_outcome(response.status), response.status, document, response.headers.get("ETag", ""))


def _outcome(status: int) -> Ending:
    if status < 400:
        return Ending.OK
    return Ending.FAILED if status < 500 else Ending.UNKNOWN
