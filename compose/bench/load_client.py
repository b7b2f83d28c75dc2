"""What a client of the API does to one batch, for the load generator."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from schemas.paths import API_PATH
from schemas.statuses import TERMINAL_BATCH_STATUSES, BatchStatus, ItemStatus

_POLL_S = 0.02
_POLL_ITEMS_S = 0.005


class UnexpectedResponseError(Exception):
    """The product returned an unexpected response. The figures would be meaningless; see the product's logs."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a client has seen of a batch."""

    etag: str
    status: BatchStatus


class LoadClient:
    """Any number of clients of one organization, that share one session. All methods raise UnexpectedResponseError."""

    def __init__(self, session: aiohttp.ClientSession, organization: str) -> None:
        self._session = session
        self._headers = {"X-Organization-Id": organization}

    async def submit(self, body: bytes) -> str:
        """Submits a batch and returns its id."""
        batch = await self._ask("POST", API_PATH, 202, body)
        return str(batch["batch_id"])

    async def find(self, batch_id: str) -> None:
        """Reads the batch with its items."""
        await self._ask("GET", f"{API_PATH}/{batch_id}", 200)

    async def cancel(self, batch_id: str) -> Mapping[str, Any]:
        """Cancels the batch and returns the final counts."""
        return await self._ask("POST", f"{API_PATH}/{batch_id}/cancel", 200)

    async def begun(self, batch_id: str) -> None:
        """Returns when the first items are done."""
        while True:
            if (await self._ask("GET", f"{API_PATH}/{batch_id}?items={ItemStatus.FAILED}", 200))["completed"]:
                return
            await asyncio.sleep(_POLL_ITEMS_S)

    async def finished(self, batch_id: str, seen: Look | None = None) -> None:
        """Waits for the end of the batch by long polls, as a client does that wants to learn it immediately. `seen`: the result of its `GET`,
        if it has made one. Raises UnexpectedResponseError unless the batch is completed."""
        seen = seen or await self.look(batch_id)
        while seen.status not in TERMINAL_BATCH_STATUSES:
            seen = await self.look(batch_id, seen)
        if seen.status != BatchStatus.COMPLETED:
            raise UnexpectedResponseError(f"batch {batch_id} ended {seen.status}")

    async def look(self, batch_id: str, seen: Look | None = None) -> Look:
        """Reads the batch without its successful items. If the client has seen it before, waits until it has changed, up to 20 s. Raises
        UnexpectedResponseError."""
        path = f"{API_PATH}/{batch_id}?items={ItemStatus.FAILED}{'' if seen is None else '&wait=20s'}"
        headers = self._headers if seen is None else {**self._headers, "If-None-Match": seen.etag}
        async with self._session.get(path, headers=headers) as response:
            content = await response.read()
            if response.status == 200:
                return Look(response.headers["ETag"], BatchStatus(orjson.loads(content)["status"]))
            if seen is not None and response.status == 304:
                return seen
            raise UnexpectedResponseError(f"GET {path} returned {response.status}: {content[:500]!r}")

    async def all_finished(self) -> None:
        """Reads the listing until no batch of the organization is running."""
        while True:
            if not await self._number_of(BatchStatus.PROCESSING):
                return
            await asyncio.sleep(_POLL_S)

    async def check_none_failed(self) -> None:
        """Raises if a batch of the organization has a failed item."""
        for status in (BatchStatus.PARTIAL, BatchStatus.FAILED):
            if number := await self._number_of(status):
                raise UnexpectedResponseError(f"{number} batches of the benchmark ended {status}")

    async def _number_of(self, status: BatchStatus) -> int:
        page = await self._ask("GET", f"{API_PATH}?status={status}&limit=1", 200)
        return int(page["pagination"]["total"])

    async def _ask(self, method: str, path: str, expected: int, body: bytes | None = None) -> Mapping[str, Any]:
        async with self._session.request(method, path, data=body, headers=self._headers) as response:
            content = await response.read()
            if response.status != expected:
                raise UnexpectedResponseError(f"{method} {path} returned {response.status}: {content[:500]!r}")
            answer: Mapping[str, Any] = orjson.loads(content)
            return answer
